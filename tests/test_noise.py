"""Noise: what seems to differ by less than a candidate differs from itself is no difference."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins import QuietGuard, StandInBench, StandInCore, StandInRunner, selector_over, tuner_over
from test_selector import CORE, PROBLEM, memory_of, session, trial

from convkit.report.comparison import agreement
from convkit.tuner.evidence.database import Database
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.inventory import Candidate
from convkit.tuner.measuring import race as race_module
from convkit.tuner.measuring.race import Race
from convkit.tuner.measuring.sampling import Sampler
from convkit.tuner.measuring.tune import entrants

TWINS = StandInCore(
    plain={"seconds": 2.0e-3}, exact={"seconds": 2.03e-3}, slow={"seconds": 2.6e-3}, slower={"seconds": 9e-3}
)


def raced(noise: float, seed: int = 0) -> Race:
    bench = StandInBench(TWINS, noise=noise, seed=seed)
    found = Race(Sampler(bench, guard=QuietGuard(), clock=bench.clock), budget=60.0)  # type: ignore[arg-type]
    found.run(entrants(selector_over(TWINS).on(PROBLEM, 1)))
    return found


def test_the_floor_is_what_a_candidate_differs_from_itself() -> None:
    floors = [raced(noise).noise_floor for noise in (0.0, 0.01, 0.2)]
    assert floors[0] == 0.0
    assert floors[1] is not None
    assert floors[2] is not None
    assert 0 < floors[1] < 0.01 < floors[2]
    # Whoever runs alone is compared with nobody.
    alone = StandInCore(one={"seconds": 1e-3})
    bench = StandInBench(alone)
    race = Race(Sampler(bench, guard=QuietGuard(), clock=bench.clock), budget=60.0)  # type: ignore[arg-type]
    race.run(entrants(selector_over(alone).on(PROBLEM, 1)))
    assert race.noise_floor is None


def test_intervals_hold_what_the_noise_hides() -> None:
    race = raced(0.05)
    floor = race.noise_floor
    assert floor
    for result in race.results.values():
        if result.n > 1:
            assert result.ratio
            assert result.ratio_low is not None
            assert result.ratio_low <= result.ratio / (1 + floor)


class UnluckyTwin(StandInBench):
    """Of the fastest candidate every second runner, which is the anchor's twin in the race, lies badly in memory."""

    made = 0

    def runner(self, candidate: Candidate) -> StandInRunner:
        runner = super().runner(candidate)
        if candidate.kernel.family == "plain":
            self.made += 1
            runner.slow_down(1.0 if self.made % 2 else 1.3)
        return runner


def test_nobody_leaves_early_for_less_than_the_twin_loses() -> None:
    core = StandInCore(
        plain={"seconds": 2.0e-3}, other={"seconds": 2.02e-3}, third={"seconds": 2.04e-3}, behind={"seconds": 2.5e-3}
    )
    rounds = {}
    for bench in (StandInBench(core, noise=0.0), UnluckyTwin(core, noise=0.0)):
        race = Race(Sampler(bench, guard=QuietGuard(), clock=bench.clock), budget=60.0)  # type: ignore[arg-type]
        race.run(entrants(selector_over(core).on(PROBLEM, 1)))
        rounds[type(bench)] = {c.kernel.family: result.n for c, result in race.results.items()}["behind"]
    assert rounds[StandInBench] == race_module.BLOCK
    assert rounds[UnluckyTwin] >= race_module.ENOUGH


def test_the_floor_is_kept_with_the_session(tmp_path: Path) -> None:
    selector = selector_over(TWINS, UserTier(str(tmp_path / "trials")))
    tuner_over(selector, StandInBench(TWINS, noise=0.05), store=True).tune(PROBLEM, 1, budget=60)
    (own,) = Database(tmp_path / "trials").sessions()
    assert 0 < own.facts["noise_floor"] < 0.2


def test_pairs_run_there_and_back() -> None:
    bench, order = StandInBench(TWINS, noise=0.0), []

    class Watched(Sampler):
        def sample(self, entrant: object, round_number: int | None = None) -> float:
            if round_number is not None:
                order.append((round_number, id(entrant)))
            return super().sample(entrant, round_number)  # type: ignore[arg-type]

    race = Race(Watched(bench, guard=QuietGuard(), clock=bench.clock), budget=60.0)  # type: ignore[arg-type]
    race.run(entrants(selector_over(TWINS).on(PROBLEM, 1)))
    rounds = [[who for number, who in order if number == wanted] for wanted in range(2)]
    assert rounds[0] == rounds[1][::-1]
    assert len(rounds[0]) > 2


@pytest.mark.parametrize(("ratio", "family"), [(1.04, "gemm"), (1.2, "winograd")])
def test_what_only_a_busy_machine_prefers_is_a_tie(ratio: float, family: str) -> None:
    busy, quiet = session(2, contended=True), session(1)
    rows = [(busy, trial(busy, "winograd", 1.0)), (busy, trial(busy, "gemm", ratio))]
    rows.append((quiet, trial(quiet, "gemm", ratio)))
    assert selector_over(CORE, memory_of(*rows)).choose(PROBLEM, 1).family == family


def test_agreement_beyond_the_floor(tmp_path: Path) -> None:
    paths = []
    for number, (fast, floor) in enumerate((("gemm", 0.06), ("winograd", 0.01))):
        own = session(number + 1).closed("", None, floor)
        slow = "winograd" if fast == "gemm" else "gemm"
        paths.append(tmp_path / str(number))
        for problem, ratio in ((PROBLEM, 1.05), (PROBLEM.replace(c=16), 1.2)):
            rows = [trial(own, fast, 1.0, problem=str(problem)), trial(own, slow, ratio, problem=str(problem))]
            Database(paths[-1]).append(own, rows)
    found = agreement(*paths, choosing=selector_over(CORE))
    assert (found.problems, found.same, found.tied, found.hidden) == (2, 0, 0, 1)
    assert found.slowest == pytest.approx(0.2)
    assert found.proven == pytest.approx(0.2, abs=0.01)
    assert found.floor == pytest.approx(0.06)
    assert "1 no further apart than the noise of their machines (50.0%)" in " ".join(str(found).split())


def test_what_the_other_s_intervals_cannot_tell_is_told(tmp_path: Path) -> None:
    for number, interval in enumerate(({"ratio_low": 0.95, "ratio_high": 1.6}, {"ratio_low": 1.1}, {"n": 1})):
        paths = [tmp_path / f"{number}{side}" for side in range(2)]
        for path, fast, slow in zip(paths, ("gemm", "winograd"), ("winograd", "gemm"), strict=True):
            own = session(1 + (fast == "gemm"))
            given = {"ratio_low": 1.3, "ratio_high": 1.3, **interval}
            Database(path).append(own, [trial(own, fast, 1.0), trial(own, slow, 1.3, **given)])
        found = agreement(*paths, choosing=selector_over(CORE))
        assert (found.slowest, found.glimpsed) == pytest.approx((0.0, 0.3) if number == 2 else (0.3, 0.0))
        assert found.proven == pytest.approx((0.0, 0.1, 0.0)[number], abs=0.002)
        assert f", {100 * found.proven:.1f}% at least" in " ".join(str(found).split())


def test_more_sessions_raise_no_floor(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(2)]
    for side, (path, fast, slow) in enumerate(zip(paths, ("gemm", "winograd"), ("winograd", "gemm"), strict=True)):
        for number, (floor, reason) in enumerate(((0.01, None), (0.02, None), (0.03, None), (0.3, "busy"))):
            own = session(1 + 4 * side + number).closed("", reason, floor)
            Database(path).append(own, [trial(own, fast, 1.0), trial(own, slow, 1.05)])
    assert agreement(*paths, choosing=selector_over(CORE)).floor == pytest.approx(0.02)

"""The race: fairness, the gate, cuts, budgets and interruption, on a virtual clock."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stand_ins import QuietGuard, StandInBench, StandInCore, context_of, selector_over, tuner_over

from convkit import _core
from convkit.problem import Problem
from convkit.tuner.choosing.intervals import median_interval
from convkit.tuner.evidence.database import Database
from convkit.tuner.evidence.records import Result, Session
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.measuring import race as race_module
from convkit.tuner.measuring.contention import ContentionGuard, team_apart
from convkit.tuner.measuring.race import Race, policy
from convkit.tuner.measuring.sampling import Sampler
from convkit.tuner.measuring.tune import entrants
from convkit.tuner.process import reload

PROBLEM = Problem(n=1, c=8, h=16, w=16, o=8, kh=3, kw=3)


def race(
    core: StandInCore, bench: StandInBench, budget: float = 60.0, guard: QuietGuard | None = None
) -> dict[str, Result]:
    quiet: Any = guard or QuietGuard()
    found = Race(Sampler(bench, guard=quiet, clock=bench.clock), budget=budget)
    selector = selector_over(core)
    found.run(entrants(selector.on(PROBLEM, 1)))
    return {f"{c.kernel.family}{c.parameters[0]}": result for c, result in found.results.items()}


def test_the_fastest_wins_and_losers_leave_early() -> None:
    core = StandInCore(slow={"seconds": 9e-3}, middle={"seconds": 2.4e-3}, fast={"seconds": 2e-3})
    results = race(core, StandInBench(core))
    assert results["fast8"].status == "complete"
    assert results["middle8"].status == "raced out"
    assert results["slow8"].status == "raced out"
    assert results["slow8"].n == 1
    assert results["middle8"].n < 30
    assert results["middle8"].ratio == pytest.approx(1.2, rel=0.02)
    assert results["fast8"].ratio == 1.0


def test_the_best_of_each_accuracy_stays_to_the_end() -> None:
    core = StandInCore(
        exact={"seconds": 9e-3},
        exact_too={"seconds": 8e-3},
        good={"seconds": 2e-3, "direct": False, "rms_ratio": 3.0},
        good_too={"seconds": 2.6e-3, "direct": False, "rms_ratio": 3.0},
        coarse={"seconds": 1e-3, "direct": False, "rms_ratio": 20.0},
        coarse_too={"seconds": 1.9e-3, "direct": False, "rms_ratio": 20.0},
    )
    results = race(core, StandInBench(core))
    complete = {name for name, result in results.items() if result.status == "complete"}
    assert complete == {"exact_too8", "good8", "coarse8"}


class HalfDisturbed(QuietGuard):
    """Every other round is disturbed, and its longer sample is then much too long."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0

    def undisturbed(self, sample: Callable[[], float], tries: int, *, threads: int) -> tuple[float, bool]:
        seconds = sample()
        disturbed = self.rounds % 2 == 1
        return seconds * (5.0 if disturbed and seconds > 2.05e-3 else 1.0), not disturbed

    def end_round(self) -> None:
        self.rounds += 1


def test_disturbed_rounds_do_not_count_where_there_are_others() -> None:
    core = StandInCore(first={"seconds": 2.0e-3}, second={"seconds": 2.1e-3})
    bench = StandInBench(core, noise=0.0)
    results = race(core, bench, guard=HalfDisturbed())
    assert results["first8"].ratio == 1.0
    assert results["second8"].ratio == pytest.approx(1.05, rel=1e-3)


class TogetherAtFirst(QuietGuard):
    """The team of the longer candidate shares one CPU in its first three samples."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = 3

    def undisturbed(self, sample: Callable[[], float], tries: int, *, threads: int) -> tuple[float, bool]:
        seconds = sample()
        if self.slow and seconds > 2.05e-3:
            self.slow -= 1
            seconds *= 2
        return seconds, True


def test_nobody_leaves_whose_first_samples_contradict_each_other() -> None:
    core = StandInCore(first={"seconds": 2.0e-3}, second={"seconds": 2.1e-3})
    results = race(core, StandInBench(core, noise=0.0), guard=TogetherAtFirst())
    assert results["second8"].n > 1
    assert results["second8"].ratio == pytest.approx(1.05, rel=1e-3)


def test_memory_bounds_the_candidates_that_are_kept_ready() -> None:
    kernels = {f"kernel{i}": {"seconds": (2 + 0.01 * i) * 1e-3, "footprint": 2**29} for i in range(6)}
    core = StandInCore(**kernels)
    results = race(core, StandInBench(core, noise=0.0))
    assert sorted(name for name, result in results.items() if result.n > 1) == ["kernel08", "kernel18"]
    assert len(results) == 6


def test_paired_ratios_survive_a_machine_that_slows_down() -> None:
    core = StandInCore(first={"seconds": 2.0e-3}, second={"seconds": 2.1e-3})
    bench = StandInBench(core, noise=0.002)
    bench.slowdown = lambda now: 1.0 + 20 * now
    results = race(core, bench)
    assert results["second8"].ratio == pytest.approx(1.05, rel=0.05)


def test_a_machine_that_slows_down_while_it_screens_keeps_nobody_out() -> None:
    core = StandInCore(early={"seconds": 2.0e-3, "predicted": 1e-3}, late={"seconds": 1.8e-3})
    bench = StandInBench(core, noise=0.0)
    # The first has been screened by then.
    bench.slowdown = lambda now: 1.0 if now < 0.01 else 2.0
    results = race(core, bench)
    assert results["late8"].status == "complete"
    assert results["early8"].ratio == pytest.approx(1 / 0.9)


def test_a_lucky_place_in_memory_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    def error() -> float:
        off = 0.0
        for seed in range(40):
            core = StandInCore(slower={"seconds": 2.1e-3}, faster={"seconds": 2.0e-3})
            bench = StandInBench(core, seed=seed)
            bench.luck = 0.2
            results = race(core, bench)
            assert (bench.moves > 0) == (race_module.MOVING > 0)
            assert results["slower8"].ratio is not None
            assert results["faster8"].ratio is not None
            off += abs(results["slower8"].ratio / results["faster8"].ratio - 1.05)
        return off

    moved = error()
    monkeypatch.setattr(race_module, "MOVING", -1.0)
    assert moved < 0.75 * error()


def test_short_candidates_are_repeated_within_a_sample() -> None:
    core = StandInCore(tiny={"seconds": 1e-6})
    bench = StandInBench(core)
    before = bench.clock.now
    race(core, bench)
    assert bench.clock.now - before > bench.samples * 0.5e-3


def test_wrong_and_raising_candidates_are_recorded_and_never_timed() -> None:
    core = StandInCore(
        right={"seconds": 2e-3}, wrong={"seconds": 1e-3, "error": 0.5}, broken={"seconds": 1e-3, "raises": True}
    )
    results = race(core, StandInBench(core))
    assert results["wrong8"].status == "failed"
    assert "wrong" in results["wrong8"].reason
    assert results["broken8"].status == "failed"
    assert "made-up failure" in results["broken8"].reason
    assert results["right8"].status == "complete"


def test_the_budget_is_honoured() -> None:
    kernels = {f"kernel{i}": {"seconds": 1.0} for i in range(12)}
    core = StandInCore(**kernels)
    bench = StandInBench(core)
    results = race(core, bench, budget=5.0)
    assert bench.clock.now < 5.0 + 3.5
    assert 2 <= len(results) < 12


def test_a_direct_summation_runs_however_short_the_budget() -> None:
    kernels: dict[str, dict[str, Any]] = {f"coarse{i}": {"seconds": 1.0 + 0.1 * i, "direct": False} for i in range(5)}
    core = StandInCore(**kernels, exact={"seconds": 3.0})
    assert race(core, StandInBench(core), budget=0.1).keys() == {"coarse08", "exact8"}


def test_every_parameter_set_competes_and_only_the_best_instruction_set() -> None:
    core = StandInCore(gemm={"seconds": 2e-3, "blocks": (8, 16, 40), "optimum": 40})
    selector = selector_over(core)
    assert all(c.kernel.isa == "avx2" for c in entrants(selector.on(PROBLEM, 1)))
    results = race(core, StandInBench(core, noise=0.001))
    assert set(results) == {"gemm8", "gemm16", "gemm40"}
    assert min(results, key=lambda name: results[name].ratio or 9) == "gemm40"


def test_one_slow_parameter_set_does_not_keep_a_kernels_others_out() -> None:
    core = StandInCore(gemm={"seconds": 2e-3, "blocks": (8, 12, 64), "optimum": 12, "slope": 0.02})
    results = race(core, StandInBench(core, noise=0.001))
    assert results["gemm64"].n == 1
    assert min(results, key=lambda name: results[name].ratio or 9) == "gemm12"


def test_interruption_keeps_what_raced_and_discards_what_was_screened(tmp_path: Path) -> None:
    core = StandInCore(
        first={"seconds": 2e-3},
        second={"seconds": 2.001e-3},
        slow={"seconds": 9e-3},
        wrong={"seconds": 1e-3, "error": 1},
    )
    kept: set[frozenset[str]] = set()
    for interrupt_after in range(1, 60):
        bench = StandInBench(core, noise=0.3)
        bench.interrupt_after = interrupt_after
        selector = selector_over(core, UserTier(str(tmp_path / f"{interrupt_after}")))
        with pytest.raises(KeyboardInterrupt):
            tuner_over(selector, bench, store=True).tune(PROBLEM, 1, budget=60)
        database = Database(tmp_path / f"{interrupt_after}")
        found = list(database.trials()) if database.exists() else []
        kept.add(frozenset(trial.kernel.split("_")[1] for trial in found))
        assert all(trial.status == "failed" or trial.n >= race_module.BLOCK for trial in found)
        assert selector.choose(PROBLEM, 1).measured == bool(found)
        assert not selector.on(PROBLEM, 1).complete
    assert {frozenset(), frozenset({"first", "second", "wrong"})} <= kept
    assert all("slow" not in kernels and ("wrong" in kernels or not kernels) for kernels in kept)


def test_a_session_tells_all_that_decides_a_result() -> None:
    told = policy(2.0, 7)
    assert (told["budget"], told["seed"], told["operands"]) == (2.0, 7, "warm")
    assert {"race.rounds", "screening.screen", "sampling.sample_seconds", "contention.drift"} <= told.keys()
    session = Session.begin(context_of(1), told)
    assert Session.from_row(session.row()).policy == {**told, "screening.samples": 3}


def test_interval_holds_all_of_few_samples_and_the_middle_of_many() -> None:
    assert median_interval([1.0, 2.0, 3.0]) == (1.0, 3.0)
    many = [float(i) for i in range(101)]
    low, high = median_interval(many)
    assert 35 < low < 50 < high < 65


def test_a_disturbed_sample_is_taken_again() -> None:
    switches = iter([0, 1, 1, 1])
    samples = iter([9.0, 2.0])
    guard = ContentionGuard(lambda: 1.0, lambda: next(switches), process_clock=lambda: 0.0)
    assert guard.undisturbed(lambda: next(samples), tries=3, threads=2) == (2.0, True)
    assert guard.reason() is None


def test_the_clock_of_a_process_excuses_no_switch_in_a_short_sample_of_a_team() -> None:
    # It learns of the other threads at the next tick, and may then seem to have run for longer than the sample took.
    count, cpu = itertools.count(), iter([0.0, 0.004])
    guard = ContentionGuard(lambda: 1.0, lambda: next(count), process_clock=lambda: next(cpu))
    assert guard.undisturbed(lambda: 1e-3, tries=1, threads=2) == (1e-3, False)


@pytest.mark.parametrize(("used", "undisturbed"), [(4.9, True), (4.8, False)])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_switch_that_took_no_time_disturbs_nothing(threads: int, used: float, undisturbed: bool) -> None:
    count = itertools.count()
    cpu = iter([0.0, used * threads])
    clock = functools.partial(next, cpu)
    guard = ContentionGuard(lambda: 1.0, lambda: next(count), clock, clock)
    assert guard.undisturbed(lambda: 5.0, tries=1, threads=threads)[1] is undisturbed


def test_cpu_time_stands_in_for_a_disturbed_sample_of_one_thread() -> None:
    for threads, seconds in ((1, 1.0), (2, 5.0)):
        count, cpu = itertools.count(), itertools.count()
        clock = functools.partial(next, cpu)
        guard = ContentionGuard(lambda: 1.0, functools.partial(next, count), clock, clock)
        assert guard.undisturbed(lambda: 5.0, tries=2, threads=threads) == (seconds, False)
        assert guard.reason() is not None


def test_a_team_is_apart_if_it_hands_on_more_slowly_than_at_its_best() -> None:
    seconds = {2: iter([150e-9, 30e-9, 50e-9, 150e-9, 70e-9]), 3: iter([150e-9])}
    reload()
    seen = [team_apart(2, lambda threads: next(seconds[threads])) for _ in range(5)]
    # At first nobody knows how near they may be.
    assert seen == [False, False, False, True, True]
    assert not team_apart(3, lambda threads: next(seconds[threads]))
    assert not any(team_apart(1, lambda threads, at=at: at) for at in (1e-9, 1e-6))  # it hands on to itself
    reload()


def test_a_session_in_which_the_team_was_apart_is_contended() -> None:
    for rounds, told in ((5, None), (4, "apart in 1 of 4 rounds")):
        reload()
        left = [150e-9] + (rounds - 1) * [50e-9]
        guard = ContentionGuard(lambda: 1.0, lambda: 0, handover=lambda threads, left=left: left.pop())
        assert [guard.apart(2) for _ in range(rounds)] == (rounds - 1) * [False] + [True]
        assert guard.reason() is told if told is None else told in (guard.reason() or "")
    reload()


def test_nothing_is_sampled_while_a_team_shares_a_cpu() -> None:
    bench = StandInBench(StandInCore(only={"seconds": 4e-3}))
    for crowded, runs in ((0, 0), (3, 3), (100, 5)):
        left = iter(crowded * [2e-3] + [50e-9])
        guard = ContentionGuard(lambda: 1.0, lambda: 0, handover=lambda threads, left=left: next(left))
        runner = bench.runner(entrants(selector_over(bench.core).on(PROBLEM, 2))[0])
        before = bench.samples
        Sampler(bench, 2, guard, bench.clock).spread_team(runner)
        assert bench.samples == before + runs


def test_the_core_times_how_a_team_hands_on() -> None:
    assert 0 < _core.handover(1) < 2e-3
    assert 0 < _core.handover(2) <= 2e-3
    with pytest.raises(ValueError, match="threads must be at least 1"):
        _core.handover(0)


class Moving(QuietGuard):
    """The host moves a CPU away in every other round, and the second candidate then takes half as long again."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0

    def undisturbed(self, sample: Callable[[], float], tries: int, *, threads: int) -> tuple[float, bool]:
        seconds = sample()
        return seconds * (1.5 if self.rounds % 2 and seconds < 1.95e-3 else 1.0), True

    def end_round(self) -> None:
        self.rounds += 1

    def apart(self, threads: int) -> bool:
        return self.rounds % 2 == 0 and self.rounds > 0


def test_rounds_in_which_the_team_was_apart_do_not_count() -> None:
    core = StandInCore(steady={"seconds": 2.0e-3}, sharing={"seconds": 1.9e-3})
    results = race(core, StandInBench(core, noise=0.0), guard=Moving())
    assert results["sharing8"].ratio == 1.0
    assert results["steady8"].ratio == pytest.approx(2.0 / 1.9, rel=1e-3)


def test_contention_is_told_by_disturbed_samples_and_by_the_canary() -> None:
    count = itertools.count()
    guard = ContentionGuard(lambda: 1.0, lambda: next(count), process_clock=lambda: 0.0)
    samples = iter([3.0, 2.0, 5.0])
    assert guard.undisturbed(lambda: next(samples), tries=3, threads=2) == (2.0, False)
    assert "1 of 1 samples" in (guard.reason() or "")
    times = iter([1.0, 1.0, 1.0] + [1.5] * 5)
    guard = ContentionGuard(lambda: next(times), lambda: 0)
    for _ in range(5):
        guard.end_round()
    assert "canary" in (guard.reason() or "")


def test_seconds_of_the_screened_out_are_those_of_the_machine_as_it_became() -> None:
    core = StandInCore(best={"seconds": 2.0e-3}, slow={"seconds": 9e-3})
    bench = StandInBench(core, noise=0.0)
    bench.slowdown = lambda now: 1.0 if now < 0.009 else 3.0
    slow = race(core, bench)["slow8"]
    assert slow.n == 1
    assert slow.ratio == pytest.approx(4.5)
    assert slow.median == pytest.approx(27e-3)

"""The figures of a ranking, one by one: scales of sessions, doubts, ties. Each was found missing by a mutant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from stand_ins import MACHINE, StandInCore, context_of
from test_selector import PROBLEM, session, trial

from convkit.tuner.choosing.ranking import Ranking, Row, expectations, rank
from convkit.tuner.evidence.records import Session, Trial
from convkit.tuner.inventory import Inventory, Task

CORE = StandInCore(**{name: {"seconds": 1e-3} for name in ("gemm", "other", "third", "fourth")})
NO_RATIO: Any = dict.fromkeys(("ratio", "ratio_low", "ratio_high"))
CLAMPED = PROBLEM.replace(epilogue="clamp")


def task(problem: object = PROBLEM) -> Task:
    return Inventory(CORE).on(problem, 1)  # type: ignore[arg-type]


def ranked(*trials: tuple[Session, Trial], problem: object = PROBLEM) -> Ranking:
    return rank(trials, task(problem), context_of(1))


def rows(found: Ranking) -> dict[str, Row]:
    return {row.candidate.kernel.family: row for row in found.ranked}


def ratios(found: Ranking) -> dict[str, float]:
    return {family: pytest.approx(row.ratio) for family, row in rows(found).items()}


def test_a_row_says_what_its_trial_says() -> None:
    own = session()
    found = ranked(
        (own, trial(own, "gemm", 1.5, n=7, workspace=64, problem=str(CLAMPED))),
        (own, trial(own, "other", 3.0, ratio_low=2.7, ratio_high=3.6, parameters=(16,), problem=str(CLAMPED))),
        problem=CLAMPED,
    )
    best, other = found.ranked
    assert (best.candidate.kernel.family, other.candidate.kernel.family) == ("gemm", "other")
    assert (best.ratio, other.ratio) == pytest.approx((1.0, 2.0))
    assert (other.low, other.high) == pytest.approx((1.8, 2.4))
    assert (best.seconds, other.seconds) == pytest.approx((1.5e-3, 3e-3))
    assert (best.samples, best.workspace, best.status, best.error) == (7, 64, "complete", 1e-7)
    assert best.epilogue == other.epilogue == "clamp"
    assert (best.default, other.default) == (True, False)
    assert not best.outdated
    assert not best.doubtful


def test_a_row_of_which_nothing_is_known() -> None:
    row = Row(task().default(task().competitors[0]), "predicted")
    assert (row.workspace, row.samples, row.default, row.outdated, row.doubtful) == (0, 0, True, False, False)


def test_sessions_are_put_on_one_scale_by_what_they_share() -> None:
    one, two = session(1), session(2)
    found = ranked(
        (one, trial(one, "gemm", 1.0)),
        (one, trial(one, "other", 2.0)),
        (two, trial(two, "gemm", 0.5)),
        (two, trial(two, "third", 1.5, ratio_low=1.4, ratio_high=1.6)),
    )
    assert ratios(found) == {"gemm": 1.0, "other": 2.0, "third": 3.0}
    assert (rows(found)["third"].low, rows(found)["third"].high) == pytest.approx((2.8, 3.2))
    assert (rows(found)["other"].low, rows(found)["other"].high) == pytest.approx((1.998, 2.002))


def test_the_scale_is_that_of_the_largest_session_and_of_the_newest_of_those() -> None:
    large, small, last = session(1), session(2), session(3)
    found = ranked(
        *((large, trial(large, family, ratio)) for family, ratio in (("gemm", 1.0), ("other", 2.0), ("third", 3.0))),
        *((small, trial(small, family, ratio)) for family, ratio in (("gemm", 1.0), ("third", 2.0))),
        *((last, trial(last, family, 1.0)) for family in ("third", "fourth")),
    )
    # The small session's factor is 1.25: the median of 1 / 1 and 3 / 2.
    assert ratios(found) == {"gemm": 1.0, "other": 2 / 1.125, "third": 3 / 1.125, "fourth": 3 / 1.125}
    old = session(1)
    found = ranked(
        *((old, trial(old, family, ratio)) for family, ratio in (("gemm", 1.0), ("third", 3.0))),
        *((small, trial(small, family, ratio)) for family, ratio in (("gemm", 1.0), ("third", 2.0))),
    )
    # The old one's factor is 5 / 6: the median of 1 / 1 and 2 / 3.
    assert ratios(found) == {"gemm": 1.0, "third": 2.25 / (11 / 12)}


def test_sessions_that_share_nothing_meet_in_seconds() -> None:
    one, two = session(1), session(2)
    found = ranked(
        (one, trial(one, "gemm", 1.0)),
        (one, trial(one, "other", 2.0)),
        (two, trial(two, "third", 1.0, median=4e-3)),
    )
    assert ratios(found) == {"gemm": 1.0, "other": 2.0, "third": 4.0}


def test_so_do_sessions_of_another_epilogue() -> None:
    own, one, two = session(1), session(2), session(3)
    found = ranked(
        (own, trial(own, "gemm", 1.0)),
        (one, trial(one, "gemm", 0.5, median=1e-3, problem=str(CLAMPED))),
        (one, trial(one, "other", 1.0, median=2e-3, problem=str(CLAMPED))),
        (two, trial(two, "third", 1.0, median=3e-3, problem=str(CLAMPED))),
    )
    assert ratios(found) == {"gemm": 1.0, "other": 2.0, "third": 3.0}


def test_a_session_without_ratios_is_compared_by_its_seconds() -> None:
    one, two = session(1), session(2)
    found = ranked(
        (one, replace(trial(one, "gemm", 1.0), **NO_RATIO)),
        (one, replace(trial(one, "other", 2.0), **NO_RATIO)),
        (two, trial(two, "gemm", 1.0, median=5e-3)),
        (two, trial(two, "third", 4.0, median=20e-3)),
    )
    assert ratios(found) == {"gemm": 1.0, "other": 2.0, "third": 4.0}


def test_another_epilogue_counts_by_its_ratios_alone() -> None:
    own, foreign = session(1), session(2)
    found = ranked(
        (own, trial(own, "gemm", 1.0)),
        (foreign, trial(foreign, "gemm", 1.0, median=5e-3, problem=str(CLAMPED))),
        (foreign, trial(foreign, "other", 3.0, median=15e-3, problem=str(CLAMPED))),
        (foreign, trial(foreign, "third", 4.0, median=20e-3, problem=str(CLAMPED))),
    )
    assert ratios(found) == {"gemm": 1.0, "other": 3.0, "third": 4.0}
    # Its seconds are of other work: they are those of the own epilogue, by the ratio.
    assert {family: row.seconds for family, row in rows(found).items()} == {
        "gemm": pytest.approx(1e-3), "other": pytest.approx(3e-3), "third": pytest.approx(4e-3),
    }  # fmt: skip
    assert (rows(found)["gemm"].epilogue, rows(found)["other"].epilogue) == ("none", "clamp")


def test_another_epilogue_that_shares_nothing_says_nothing() -> None:
    own, foreign = session(1), session(2)
    known, alone = (own, trial(own, "gemm", 1.0)), (foreign, trial(foreign, "other", 0.1, problem=str(CLAMPED)))
    assert ratios(ranked(known, alone)) == {"gemm": 1.0}
    # With nothing of the own epilogue it is all that there is, in its own seconds.
    assert rows(ranked(alone))["other"].seconds == pytest.approx(1e-4)


def test_what_shares_nothing_at_first_may_share_with_what_comes_later() -> None:
    own, bridge, far = session(1), session(2), session(3)
    found = ranked(
        (own, trial(own, "gemm", 1.0)),
        (far, trial(far, "third", 1.0, problem=str(CLAMPED))),
        (far, trial(far, "fourth", 3.0, problem=str(CLAMPED))),
        (bridge, trial(bridge, "gemm", 2.0, problem=str(CLAMPED))),
        (bridge, trial(bridge, "third", 4.0, problem=str(CLAMPED))),
    )
    assert ratios(found) == {"gemm": 1.0, "third": 2.0, "fourth": 6.0}


def test_a_trial_without_a_ratio_is_held_against_the_anchor_s_seconds() -> None:
    own = session()
    found = ranked(
        (own, trial(own, "gemm", 2.0, median=4e-3)),
        (own, replace(trial(own, "other", 1.0, median=6e-3), **NO_RATIO)),
    )
    assert ratios(found) == {"gemm": 1.0, "other": 1.5}
    assert (rows(found)["other"].low, rows(found)["other"].high) == pytest.approx((1.5, 1.5))


@pytest.mark.parametrize(
    "doubts",
    [{"contended": True}, {"affinity": "cores"}, {"machine": str(MACHINE._replace(l3=0))}],
    ids=lambda doubts: next(iter(doubts)),
)
def test_the_figures_are_those_of_the_session_with_least_doubt(doubts: dict[str, object]) -> None:
    good, poor = session(1), session(2, **doubts)
    found = ranked(
        (good, trial(good, "gemm", 1.0)),
        (good, trial(good, "other", 2.0)),
        (poor, trial(poor, "gemm", 1.0, median=9e-3)),
        (poor, trial(poor, "other", 8.0, n=99)),
    )
    assert ratios(found) == {"gemm": 1.0, "other": 2.0}
    assert rows(found)["other"].samples == 9
    alone = ranked((poor, trial(poor, "gemm", 1.0)))
    assert rows(alone)["gemm"].doubtful == ("machine" not in doubts)


def test_the_own_epilogue_s_figures_count_before_another_s() -> None:
    own, foreign = session(1), session(2)
    found = ranked(
        (own, trial(own, "gemm", 1.0)),
        (own, trial(own, "other", 2.0)),
        (foreign, trial(foreign, "gemm", 1.0, problem=str(CLAMPED))),
        (foreign, trial(foreign, "other", 7.0, problem=str(CLAMPED))),
    )
    assert ratios(found) == {"gemm": 1.0, "other": 2.0}


@pytest.mark.parametrize(("contended", "settled"), [(False, True), (True, False)])
def test_a_failure_settles_a_kernel_unless_the_machine_was_busy(contended: bool, settled: bool) -> None:
    own = session(contended=contended)
    measured = trial(own, "gemm", 1.0)
    failed = replace(measured, status="failed", n=0, median=None, reason="it gave NaN", **NO_RATIO)
    found = ranked((own, failed), (own, trial(own, "other", 1.0)))
    assert [row.verdict for row in found.failed] == ["it gave NaN"]
    assert list(rows(found)) == ["other"]
    assert ("f32_gemm__avx2" not in found.missing) is settled
    assert "f32_gemm__avx2" not in found.untried
    assert not found.complete


def test_the_time_of_a_failure_is_no_time() -> None:
    own = session()
    wrong = replace(trial(own, "gemm", 0.1), status="failed", reason="it is wrong")
    found = ranked((own, wrong), (own, trial(own, "other", 1.0)))
    assert list(rows(found)) == ["other"]
    assert [(row.candidate.kernel.family, row.status) for row in found.failed] == [("gemm", "failed")]


@pytest.mark.parametrize(
    ("status", "doubtful", "samples", "measured", "thin"),
    [
        ("complete", False, 2, True, True), ("complete", False, 3, True, False),
        ("complete", True, 7, True, True), ("complete", True, 8, True, False),
        ("predicted", False, 0, False, False), ("estimated", False, 0, False, False),
    ],
)  # fmt: skip
def test_a_row_is_thin_if_it_was_measured_a_little(
    status: str, doubtful: bool, samples: int, measured: bool, thin: bool
) -> None:
    candidate = task().default(task().competitors[0])
    row = Row(candidate, status, doubtful=doubtful, samples=samples)
    assert (row.measured, row.thin) == (measured, thin)


@pytest.mark.parametrize(("samples", "thin"), [(2, True), (3, False)])
def test_evidence_of_few_samples_is_thin(samples: int, thin: bool) -> None:
    own = session()
    assert ranked((own, trial(own, "gemm", 1.0, n=samples))).thin is thin


def test_rows_of_one_time_are_in_the_order_of_kernels_and_parameters() -> None:
    own = session()
    given = [("third", (8,)), ("gemm", (16,)), ("gemm", (8,)), ("other", (8,))]
    found = ranked(*((own, trial(own, family, 1.0, parameters=block)) for family, block in given))
    order = [("gemm", (8,)), ("gemm", (16,)), ("other", (8,)), ("third", (8,))]
    assert [(row.candidate.kernel.family, row.parameters) for row in found.ranked] == order
    work = task()
    expected = [(work.default(kernel), 1e-3, None) for kernel in reversed(work.competitors)]
    assert [row.kernel for row in expectations("predicted", expected, work).ranked] == [
        k.name for k in work.competitors
    ]


def test_what_was_hardly_more_than_screened_comes_after_what_was_raced() -> None:
    own = session()
    found = ranked((own, trial(own, "gemm", 1.0, n=2)), (own, trial(own, "other", 1.5, n=9)))
    assert [row.candidate.kernel.family for row in found.ranked] == ["other", "gemm"]


def test_expected_times_are_relative_to_the_best() -> None:
    work = task()
    candidates = [work.default(kernel) for kernel in work.competitors[:3]]
    found = expectations("predicted", zip(candidates, (3e-3, 2e-3, 8e-3), (None, None, None), strict=True), work)
    assert [row.ratio for row in found.ranked] == pytest.approx([1.0, 1.5, 4.0])
    assert [row.low for row in found.ranked] == [row.high for row in found.ranked] == [r.ratio for r in found.ranked]


def tied(*given: tuple[str, float, float, float, Sequence[int]], doubtful: bool = False) -> list[str]:
    """Who ties, in order of preference, of rows given as family, ratio, low, high, parameters."""
    work = task()
    found = []
    for family, ratio, low, high, parameters in given:
        candidate = work.resolve(f"f32_{family}__avx2", parameters)
        assert candidate is not None
        default = candidate == work.default(candidate.kernel)
        found.append(
            Row(candidate, "complete", ratio, ratio, low, high, default=default, doubtful=doubtful and not found)
        )
    return [row.candidate.kernel.family for row in Ranking(found).ties(work.constraints())]


def test_ties_end_where_the_limit_says() -> None:
    best = ("other", 1.0, 1.0, 1.0, (8,))
    assert tied(best, ("gemm", 1.03, 1.0, 1.1, (8,))) == ["gemm", "other"]
    assert tied(best, ("gemm", 1.0301, 1.0, 1.1, (8,))) == ["other"]
    assert tied(best, ("gemm", 1.02, 1.0001, 1.1, (8,))) == ["other"]
    assert tied(best, ("gemm", 1.02, 1.0, 1.1001, (8,))) == ["other"]


def test_of_ties_the_least_error_and_then_the_least_workspace_comes_first() -> None:
    core = StandInCore(
        one={"seconds": 1e-3, "direct": False, "rms_ratio": 2.0}, two={"seconds": 1e-3}, three={"seconds": 1e-3}
    )
    work = Inventory(core).on(PROBLEM, 1)  # type: ignore[arg-type]
    one, two, three = [Row(work.default(kernel), "complete", 1.0, 1.0, 1.0, 1.0) for kernel in work.competitors]
    rows = [one, two._replace(workspace=8), three._replace(workspace=4)]
    assert [row.kernel for row in Ranking(rows).ties(work.constraints())] == [three.kernel, two.kernel, one.kernel]


def test_only_the_best_makes_a_ranking_thin() -> None:
    work = task()
    known, little = [
        Row(work.default(kernel), "complete", samples=n) for kernel, n in zip(work.competitors, (9, 1), strict=False)
    ]
    assert not Ranking([known, little]).thin
    assert Ranking([little, known]).thin


def test_ties_are_relative_to_the_best_that_may_answer() -> None:
    best = ("other", 2.0, 2.0, 2.0, (8,))
    assert tied(best, ("gemm", 2.05, 2.0, 2.1, (8,))) == ["gemm", "other"]
    assert tied(best, ("third", 2.09, 2.09, 2.09, (8,)), doubtful=True) == ["third", "other"]
    assert tied(best, ("third", 2.11, 2.11, 2.11, (8,)), doubtful=True) == ["other"]


def test_a_doubtful_best_ties_with_more() -> None:
    best = ("other", 1.0, 1.0, 1.0, (8,))
    # Who is beyond doubt comes first.
    assert tied(best, ("third", 1.05, 1.05, 1.05, (8,)), doubtful=True) == ["third", "other"]
    assert tied(best, ("third", 1.0501, 1.05, 1.05, (8,)), doubtful=True) == ["other"]


def test_of_equals_the_default_parameters_win() -> None:
    assert tied(("gemm", 1.0, 1.0, 1.0, (16,)), ("other", 1.0, 1.0, 1.0, (8,))) == ["other", "gemm"]

"""Little evidence: what a short budget has measured must not make calls slower than no tuning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stand_ins import StandInBench, StandInCore, selector_over, tuner_over
from test_selector import CORE, PROBLEM, memory_of, session, trial

from convkit.problem import Problem
from convkit.report.summary import stale_cases
from convkit.tuner.choosing.explanation import explain_problem
from convkit.tuner.choosing.selector import Selector
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.measuring.tune import entrants

# The cost model believes in kernels that are slow; what was measured elsewhere knows better.
MISLED = StandInCore(
    vain={"seconds": 9e-3, "predicted": 1e-3},
    plain={"seconds": 8e-3, "predicted": 2e-3},
    modest={"seconds": 2e-3, "predicted": 5e-3},
    sketchy={"seconds": 1e-3, "predicted": 6e-3, "direct": False, "rms_ratio": 20.0},
)


class SiteTier(UserTier):
    name = "site"


def site_of(problem: Problem = PROBLEM) -> SiteTier:
    own, tier = session(2), SiteTier()
    ratios = {"modest": 2.0, "sketchy": 1.0, "vain": 9.0, "plain": 8.0}
    trials = [trial(own, name, ratio, problem=str(problem)) for name, ratio in ratios.items()]
    tier.record(own, trials, store=False)
    return tier


def test_what_would_be_chosen_is_measured_first() -> None:
    case = selector_over(MISLED, UserTier(), site_of()).on(PROBLEM, 1)
    first, second = entrants(case)[:2]
    assert first == case.choose().candidate
    assert (first.kernel.family, second.kernel.family) == ("modest", "sketchy")
    # Without other evidence the model's favourites are.
    assert entrants(selector_over(MISLED).on(PROBLEM, 1))[0].kernel.family == "vain"


@pytest.mark.parametrize("budget", [1e-6, 0.01, 0.05, 0.1, 0.5, 5.0])
@pytest.mark.parametrize("others", [(), (site_of(),), (site_of(PROBLEM.replace(c=16)),)], ids=["model", "site", "near"])
def test_no_budget_makes_calls_slower(budget: float, others: tuple[UserTier, ...]) -> None:
    for accuracy in (None, "strict", "fast"):
        for problem in (PROBLEM, PROBLEM.replace(c=12), PROBLEM.replace(h=18)):
            selector = selector_over(MISLED, UserTier(), *others)
            untuned = seconds(selector, problem, accuracy)
            for number in range(3):
                bench = StandInBench(MISLED, noise=0.02, seed=number)
                tuner_over(selector, bench).tune(PROBLEM, 1, budget=budget)
                assert seconds(selector, problem, accuracy) <= untuned


def seconds(selector: Selector, problem: Problem, accuracy: object) -> float:
    return float(MISLED.details[selector.choose(problem, 1, accuracy=accuracy).candidate.kernel.index]["seconds"])


def test_an_answer_from_screening_alone_competes_with_predictions() -> None:
    own = session()
    screened = memory_of((own, trial(own, "gemm", 3.0, n=1)))
    raced = memory_of((own, trial(own, "gemm", 3.0, n=9)))
    assert selector_over(CORE, raced).choose(PROBLEM, 1).family == "gemm"
    choice = selector_over(CORE, screened).choose(PROBLEM, 1)
    assert (choice.family, choice.tier) == ("winograd", "model")
    # It may win: the model expects 1 ms.
    quick = memory_of((own, trial(own, "gemm", 0.9, n=1)))
    assert selector_over(CORE, quick).choose(PROBLEM, 1).family == "gemm"
    explanation = explain_problem(PROBLEM, 1, choosing=selector_over(CORE, screened))
    assert "1 candidates measured with none, too little to go by it alone" in str(explanation)
    verdicts = {(row.kernel, row.measured): row.verdict for row in explanation.rows}
    assert verdicts["f32_gemm__avx2", True] == "1 samples prove little"
    assert verdicts["f32_winograd__avx2", False] == "chosen"


def test_little_evidence_decides_only_what_is_clear() -> None:
    own = session()
    for advantage, family in ((1.03, "winograd"), (1.2, "gemm")):
        rows = [(own, trial(own, "gemm", 1.0, n=2)), (own, trial(own, "winograd", advantage, n=2))]
        choice = selector_over(CORE, memory_of(*rows)).choose(PROBLEM, 1)
        assert (choice.family, choice.tier, choice.measured) == (family, "user", True)


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("baseline", [True, False])
def test_little_evidence_of_a_busy_machine_decides_nothing(samples: int, baseline: bool) -> None:
    # The call's own kernel, which the model expects to take 1 ms, was disturbed, or not reached.
    own = session(contended=True)
    rows = [(own, trial(own, "gemm", 0.8, n=samples)), (own, trial(own, "winograd", 1.3, n=samples))]
    choice = selector_over(CORE, memory_of(*rows[: 1 + baseline])).choose(PROBLEM, 1)
    assert (choice.family, choice.tier) == ("winograd", "user" if baseline else "model")
    # With as many samples as a race takes it does, for want of better.
    rows = [(own, trial(own, "gemm", 0.8, n=9)), (own, trial(own, "winograd", 1.3, n=9))]
    assert selector_over(CORE, memory_of(*rows)).choose(PROBLEM, 1).family == "gemm"


def test_what_was_only_screened_wins_no_tie() -> None:
    # The kernel of the smaller error class would, by its single sample.
    own = session()
    for samples, family in ((1, "winograd"), (9, "gemm")):
        rows = [(own, trial(own, "winograd", 1.0)), (own, trial(own, "gemm", 1.0, n=samples))]
        choice = selector_over(CORE, memory_of(*rows)).choose(PROBLEM, 1)
        assert (choice.family, choice.tier) == (family, "user")
        # Nor does it where it seems to be faster.
        rows[1] = own, trial(own, "gemm", 0.9, n=samples)
        choice = selector_over(CORE, memory_of(*rows)).choose(PROBLEM, 1)
        assert (choice.family, choice.tier) == (family, "user")


def test_what_failed_here_is_not_predicted_to_be_faster() -> None:
    own = session()
    failed = {"n": 0, "status": "failed", "median": None, "ratio_low": None, "ratio_high": None, "reason": "wrong"}
    broken = replace(trial(own, "winograd", 1.0), ratio=None, **failed)
    rows = [(own, trial(own, "gemm", 3.0, n=1)), (own, broken)]
    assert selector_over(CORE, memory_of(*rows)).choose(PROBLEM, 1).family == "gemm"


@pytest.mark.parametrize("rows", [{"gemm": 1}, {"gemm": 1, "winograd": 1, "coarse": 1}, {"gemm": 9}])
def test_little_evidence_teaches_no_neighbour(rows: dict[str, int]) -> None:
    own = session()
    memory = memory_of(*((own, trial(own, name, 1.0, n=n)) for name, n in rows.items()))
    # Of four kernels one is too few.
    core = StandInCore(
        **dict(zip(("gemm", "winograd", "coarse"), CORE.details[::2], strict=False)), fourth={"seconds": 1}
    )
    selector = selector_over(core, memory)
    assert selector.choose(PROBLEM.replace(c=16), 1).tier == "model"
    assert selector.on(PROBLEM.replace(c=16), 1).neighbours == []


def test_what_was_only_screened_is_measured_again() -> None:
    own = session()
    for samples, complete in ((1, False), (9, True)):
        rows = [(own, trial(own, name, 1.0, n=samples)) for name in ("gemm", "winograd", "coarse")]
        case = selector_over(CORE, memory_of(*rows)).on(PROBLEM, 1)
        assert case.complete == complete
        assert stale_cases([case]) == ([] if complete else [case])
        assert case.tried

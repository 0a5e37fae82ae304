"""Choosing: tiers, constraints, ties, completeness, forced algorithms."""

from __future__ import annotations

import pytest
from stand_ins import MACHINE, StandInBench, StandInCore, context_of, selector_over, tuner_over

from convkit.problem import Problem
from convkit.tuner.choosing.explanation import explain_problem
from convkit.tuner.choosing.selector import UnsupportedAlgorithmError
from convkit.tuner.evidence.records import Session, Trial
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.measuring.tune import entrants

PROBLEM = Problem(n=1, c=8, h=16, w=16, o=8, kh=3, kw=3)


def session(number: int = 1, **changes: object) -> Session:
    values = {
        "uuid": f"{number:032x}",
        "machine": str(MACHINE),
        "isa": "avx2",
        "threads": 1,
        "affinity": "unpinned",
        "started": f"2026-01-0{number}T00:00:00Z",
    }
    return Session(**{**values, **changes})  # type: ignore[arg-type]


def trial(own: Session, family: str, ratio: float, **changes: object) -> Trial:
    values = {
        "session": own.uuid, "problem": str(PROBLEM), "kernel": f"f32_{family}__avx2", "revision": 1,
        "parameters": (8,), "status": "complete", "n": 9, "median": 1e-3 * ratio, "ratio": ratio,
        "ratio_low": 0.999 * ratio, "ratio_high": 1.001 * ratio, "error": 1e-7,
    }  # fmt: skip
    return Trial(**{**values, **changes})  # type: ignore[arg-type]


def memory_of(*pairs: tuple[Session, Trial]) -> UserTier:
    memory = UserTier()
    for own, one in pairs:
        memory.record(own, [one], store=False)
    return memory


CORE = StandInCore(
    gemm={"seconds": 2e-3, "workspace": 1000},
    winograd={"seconds": 1e-3, "direct": False, "rms_ratio": 3.0},
    coarse={"seconds": 0.5e-3, "direct": False, "rms_ratio": 20.0},
)


def test_an_empty_database_leaves_it_to_the_cost_model() -> None:
    choice = selector_over(CORE).choose(PROBLEM, 1)
    assert (choice.tier, choice.family, choice.measured) == ("model", "winograd", False)


def test_measured_beats_predicted() -> None:
    own = session()
    memory = memory_of((own, trial(own, "gemm", 1.0)), (own, trial(own, "winograd", 1.5)))
    choice = selector_over(CORE, memory).choose(PROBLEM, 1)
    assert (choice.tier, choice.family, choice.measured) == ("user", "gemm", True)
    assert choice.stale


@pytest.mark.parametrize(
    ("accuracy", "family"),
    [
        ("strict", "gemm"),
        ("standard", "winograd"),
        ("fast", "coarse"),
        (1e-30, None),
        (1.0, "coarse"),
        (1e-6, "winograd"),
    ],
)
def test_accuracy_is_a_constraint_of_the_query(accuracy: object, family: str | None) -> None:
    own = session()
    memory = memory_of(*((own, trial(own, k, r)) for k, r in (("gemm", 2.0), ("winograd", 1.0), ("coarse", 0.5))))
    for selector in (selector_over(CORE, memory), selector_over(CORE)):
        if family is None:
            with pytest.raises(UnsupportedAlgorithmError, match="expected RMS error"):
                selector.choose(PROBLEM, 1, accuracy=accuracy)
        else:
            assert selector.choose(PROBLEM, 1, accuracy=accuracy).family == family


def test_float64_is_strict_by_default() -> None:
    choice = selector_over(CORE).choose(PROBLEM.replace(dtype="float64"), 1)
    assert choice.family == "gemm"


def test_a_bad_accuracy_names_the_allowed() -> None:
    with pytest.raises(ValueError, match="strict, standard, fast"):
        selector_over(CORE).choose(PROBLEM, 1, accuracy="exact")


def test_the_larger_of_declared_and_measured_error_counts() -> None:
    own = session()
    pairs = [(own, trial(own, "gemm", 2.0)), (own, trial(own, "winograd", 1.0, error=1e-4))]
    assert selector_over(CORE, memory_of(*pairs)).choose(PROBLEM, 1).family == "gemm"


def test_workspace_is_a_constraint_of_the_query() -> None:
    own = session()
    pairs = [(own, trial(own, "gemm", 1.0, workspace=1000)), (own, trial(own, "winograd", 1.5, workspace=0))]
    selector = selector_over(CORE, memory_of(*pairs))
    assert selector.choose(PROBLEM, 1).family == "gemm"
    assert selector.choose(PROBLEM, 1, workspace_limit=999).family == "winograd"
    with pytest.raises(UnsupportedAlgorithmError, match="workspace"):
        selector.choose(PROBLEM, 1, accuracy="strict", workspace_limit=10)


def test_ties_go_to_the_smaller_error_class() -> None:
    own = session()
    close = {"ratio_low": 0.99, "ratio_high": 1.02}
    pairs = [(own, trial(own, "winograd", 1.0, **close)), (own, trial(own, "gemm", 1.01, **close))]
    assert selector_over(CORE, memory_of(*pairs)).choose(PROBLEM, 1).family == "gemm"
    # What may be much slower is not as good.
    pairs[1] = own, trial(own, "gemm", 1.01, ratio_low=0.99, ratio_high=1.3)
    assert selector_over(CORE, memory_of(*pairs)).choose(PROBLEM, 1).family == "winograd"
    wide = {"ratio_low": 0.5, "ratio_high": 2.0}
    pairs = [(own, trial(own, "winograd", 1.0, **wide)), (own, trial(own, "gemm", 1.2, **wide))]
    assert selector_over(CORE, memory_of(*pairs)).choose(PROBLEM, 1).family == "winograd"


def test_sessions_meet_through_shared_candidates_not_raw_time() -> None:
    first, second = session(1), session(2)
    pairs = [
        (first, trial(first, "gemm", 1.0)),
        (first, trial(first, "winograd", 0.8)),
        # The machine ran at a third of its speed; gemm is the anchor again.
        (second, trial(second, "gemm", 1.0, median=3e-3)),
        (second, trial(second, "coarse", 0.6, median=1.8e-3)),
    ]
    selector = selector_over(CORE, memory_of(*pairs))
    assert selector.choose(PROBLEM, 1, accuracy="fast").family == "coarse"
    assert selector.choose(PROBLEM, 1).family == "winograd"


def test_a_contended_session_counts_only_where_nothing_better_exists() -> None:
    good, bad = session(1), session(2, contended=True)
    pairs = [(good, trial(good, "gemm", 1.0)), (good, trial(good, "winograd", 1.2))]
    noise = [(bad, trial(bad, "gemm", 1.0)), (bad, trial(bad, "winograd", 0.3))]
    assert selector_over(CORE, memory_of(*pairs, *noise)).choose(PROBLEM, 1).family == "gemm"
    alone = selector_over(CORE, memory_of(*noise))
    assert alone.choose(PROBLEM, 1).family == "winograd"
    assert alone.choose(PROBLEM, 1).stale


def test_a_contended_session_is_compared_through_candidates_that_a_better_one_outdoes() -> None:
    good, bad = session(1), session(2, contended=True)
    pairs = [
        # The machine ran at a third of its speed, and the busy session before it at full speed.
        (good, trial(good, "gemm", 1.0, median=3e-3)),
        (bad, trial(bad, "gemm", 1.0, median=1e-3)),
        (bad, trial(bad, "winograd", 1.2, median=1.2e-3)),
    ]
    assert selector_over(CORE, memory_of(*pairs)).choose(PROBLEM, 1).family == "gemm"


def test_other_thread_counts_and_machines_do_not_count() -> None:
    for changes in ({"threads": 16}, {"machine": "Other-6-85-4-avx2-l1d32k-l21024k-l332768k"}):
        own = session(1, **changes)
        assert selector_over(CORE, memory_of((own, trial(own, "gemm", 1.0)))).choose(PROBLEM, 1).tier == "model"


def test_a_neighbour_corrects_the_cost_model() -> None:
    core = StandInCore(
        gemm={"seconds": 2e-3},
        praised={"seconds": 9e-3, "predicted": 1e-3},
        modest={"seconds": 1e-3, "predicted": 3e-3, "blocks": (8, 16)},
        unknown={"seconds": 1e-4},
    )
    own = session()
    pairs = [
        (own, trial(own, "modest", 1.0, parameters=(16,))),
        (own, trial(own, "modest", 1.2)),
        (own, trial(own, "gemm", 2.0)),
        (own, trial(own, "praised", 9.0)),
    ]
    selector = selector_over(core, memory_of(*pairs))
    near = PROBLEM.replace(h=18, w=18)
    choice = selector.choose(near, 1)
    assert (choice.tier, choice.family, choice.parameters, choice.measured) == ("neighbour", "modest", (16,), False)
    assert 1e-3 < choice.seconds < 1.5e-3
    text = str(explain_problem(near, 1, choosing=selector))
    assert "doublings away" in text
    assert "times the fastest estimate" in text
    assert selector.choose(near, 2).tier == "neighbour"
    for far in (near.replace(c=256), near.replace(kh=5), near.replace(stride_h=2), near.replace(packed=False)):
        assert selector.choose(far, 1).tier == "model"
    assert selector.choose(near.replace(epilogue="clamp", bias=True), 1).tier == "neighbour"
    assert selector.choose(near, 1, accuracy="strict", workspace_limit=0).tier == "neighbour"


def test_an_older_revision_answers_until_measured_again() -> None:
    own = session()
    pairs = [(own, trial(own, "gemm", 1.0, revision=0)), (own, trial(own, "winograd", 1.5, revision=0))]
    selector = selector_over(CORE, memory_of(*pairs))
    choice = selector.choose(PROBLEM, 1)
    assert (choice.family, choice.stale) == ("gemm", True)
    assert not selector.on(PROBLEM, 1).complete
    assert "older revision" in str(explain_problem(PROBLEM, 1, choosing=selector))


def test_parameters_that_a_kernel_has_got_since_are_zero() -> None:
    core = StandInCore(gemm={"seconds": 2e-3}, winograd={"seconds": 1e-3})
    for entry in core.entries:
        entry["parameters"] = [("block", 1, 64), ("pairs", 0, 1)]
    own = session()
    memory = memory_of((own, trial(own, "gemm", 1.0)), (own, trial(own, "winograd", 1.5)))
    choice = selector_over(core, memory).choose(PROBLEM, 1)
    assert (choice.family, choice.parameters, choice.measured) == ("gemm", (8, 0), True)


@pytest.mark.parametrize(
    "row", [{"kernel": "f32_gone__avx2"}, {"parameters": (999,)}, {"parameters": (8, 8)}, {"parameters": ()}]
)
def test_rows_are_hints(row: dict[str, object]) -> None:
    own = session()
    pairs = [(own, trial(own, "gemm", 0.1, **row)), (own, trial(own, "winograd", 1.0))]
    choice = selector_over(CORE, memory_of(*pairs)).choose(PROBLEM, 1)
    assert (choice.family, choice.parameters) == ("winograd", (8,))


def test_tuning_completes_a_problem_and_only_new_kernels_run_later() -> None:
    bench = StandInBench(CORE)
    selector = selector_over(CORE)
    choice = tuner_over(selector, bench).tune(PROBLEM, 1, budget=60)
    assert (choice.tier, choice.family, choice.stale) == ("user", "winograd", False)
    assert selector.on(PROBLEM, 1).complete

    known = dict(zip(("gemm", "winograd", "coarse"), CORE.details[::2], strict=False))
    grown = StandInCore(**known, newer={"seconds": 0.7e-3})
    later = selector_over(grown, selector.user)
    assert not later.on(PROBLEM, 1).complete
    assert later.choose(PROBLEM, 1).stale
    families = [candidate.kernel.family for candidate in entrants(later.on(PROBLEM, 1))]
    assert sorted(families[:2]) == ["coarse", "winograd"]
    assert families[2:] == ["newer"]
    assert tuner_over(later, StandInBench(grown)).tune(PROBLEM, 1, budget=60).family == "newer"


@pytest.mark.parametrize(("default", "block"), [(1.5, 40), (1.02, 8)])
def test_what_did_well_nearby_is_taken_over_unless_the_default_did_as_well(default: float, block: int) -> None:
    core = StandInCore(gemm={"seconds": 2e-3, "blocks": (8, 16, 40)})
    own = session()
    ratios = {8: default, 16: 1.01, 40: 1.0}
    rows = [(own, trial(own, "gemm", ratio, parameters=(block,))) for block, ratio in ratios.items()]
    choice = selector_over(core, memory_of(*rows)).choose(PROBLEM.replace(c=12), 1)
    assert (choice.tier, choice.parameters) == ("neighbour", (block,))


def test_a_decision_outlives_its_evidence() -> None:
    selector = selector_over(CORE)
    asked = PROBLEM.replace(c=16)
    first = selector.choose(asked, 1)
    assert (first.tier, first.family) == ("model", "winograd")
    own = session()
    trials = [trial(own, family, ratio) for family, ratio in (("gemm", 1.0), ("winograd", 9.0), ("coarse", 9.0))]
    selector.user.record(own, trials, store=False)
    selector.forget(PROBLEM)
    assert selector.choose(asked.replace(c=24), 1).family == "gemm"
    for h in range(100, 400):
        selector.choose(PROBLEM.replace(h=h), 1)
    again = selector.choose(asked, 1)
    assert (again.candidate, again.measured) == (first.candidate, False)
    assert selector.choose(asked, 1, accuracy="strict").family == "gemm"
    # What is measured is decided anew.
    theirs = [trial(own, family, ratio, problem=str(asked)) for family, ratio in (("gemm", 1.0), ("winograd", 9.0))]
    selector.user.record(own, theirs, store=False)
    selector.forget(asked)
    assert selector.choose(asked, 1).family == "gemm"


def test_a_contended_tune_is_marked_and_not_complete() -> None:
    selector = selector_over(CORE)
    choice = tuner_over(selector, StandInBench(CORE), trouble="made up").tune(PROBLEM, 1, budget=60)
    assert choice.measured
    assert choice.stale
    assert selector.on(PROBLEM, 1).tried
    assert not selector.on(PROBLEM, 1).complete
    ((own, _), *_) = selector.user.evidence([str(PROBLEM)], context_of(1))
    assert own.contended


def test_algorithm_by_family_by_name_and_by_choice() -> None:
    selector = selector_over(CORE)
    assert selector.choose(PROBLEM, 1, algorithm="coarse").kernel == "f32_coarse__avx2"
    assert selector.choose(PROBLEM, 1, algorithm="f32_gemm__portable", accuracy="strict").kernel == "f32_gemm__portable"
    choice = selector.choose(PROBLEM, 1, algorithm="gemm")
    again = selector.choose(PROBLEM.replace(h=20), 1, algorithm=choice)
    assert (again.kernel, again.tier) == (choice.kernel, "forced")
    with pytest.raises(UnsupportedAlgorithmError, match="gemm, winograd, coarse"):
        selector.choose(PROBLEM, 1, algorithm="fft")
    with pytest.raises(TypeError, match="algorithm must be a name"):
        selector.choose(PROBLEM, 1, algorithm=3)


def test_kernels_that_do_not_apply_never_compete() -> None:
    core = StandInCore(general={"seconds": 2e-3}, square={"seconds": 1e-3, "applies": lambda p: p.kh == p.kw == 3})
    selector = selector_over(core)
    assert selector.choose(PROBLEM, 1).family == "square"
    assert selector.choose(PROBLEM.replace(kw=5), 1).family == "general"
    with pytest.raises(UnsupportedAlgorithmError, match="families that do: general"):
        selector.choose(PROBLEM.replace(kw=5), 1, algorithm="square")


def test_explain_shows_tiers_candidates_and_reasons() -> None:
    own = session()
    pairs = [
        (own, trial(own, "gemm", 1.0)),
        (own, trial(own, "coarse", 0.5)),
        (own, trial(own, "winograd", 1.0, status="failed", median=None, reason="wrong: made up")),
    ]
    selector = selector_over(CORE, memory_of(*pairs))
    explanation = explain_problem(PROBLEM, 1, choosing=selector)
    assert explanation.choice.family == "gemm"
    verdicts = {row.kernel: row.verdict for row in explanation.rows}
    assert verdicts["f32_gemm__avx2"] == "chosen"
    assert "20.0 times direct" in verdicts["f32_coarse__avx2"]
    assert verdicts["f32_winograd__avx2"] == "wrong: made up"
    text = str(explanation)
    assert "user: 2 candidates" in text
    assert str(PROBLEM) in text
    assert "f32_gemm__avx2" in explanation.to_json()
    assert "predicted slower" in str(explain_problem(PROBLEM, 1, choosing=selector_over(CORE)))


def test_evidence_is_read_once() -> None:
    own = session()
    memory = memory_of((own, trial(own, "gemm", 1.0)))
    selector = selector_over(CORE, memory)
    assert selector.choose(PROBLEM, 1).family == "gemm"
    memory.record(own, [trial(own, "winograd", 0.5)], store=False)
    assert selector.choose(PROBLEM, 1).family == "gemm"
    selector.forget(PROBLEM)
    assert selector.choose(PROBLEM, 1).family == "winograd"


def test_an_empty_batch_needs_no_evidence() -> None:
    assert selector_over(CORE).choose(PROBLEM.replace(n=0), 1).tier == "model"


def test_a_choice_outlives_what_led_to_it() -> None:
    """Evidence is kept for the problems asked about last; an answer stays the same all the same."""
    own = session()
    memory = memory_of((own, trial(own, "gemm", 1.0)))
    selector = selector_over(CORE, memory)
    first = selector.on(PROBLEM, 1)
    choice = first.choose()
    for h in range(20, 320):
        selector.choose(PROBLEM.replace(n=64, h=h), 1)  # too far away to be neighbours
    memory.record(own, [trial(own, "winograd", 0.5)], store=False)
    assert selector.on(PROBLEM, 1) is not first
    assert selector.choose(PROBLEM, 1) is choice
    selector.forget(PROBLEM.replace(bias=True))
    assert selector.choose(PROBLEM, 1).family == "winograd"


def test_a_kernel_that_proposes_nonsense_fails_no_choice() -> None:
    core = StandInCore(
        gemm={"seconds": 2e-3}, odd={"seconds": 1e-3, "blocks": (999, 32, 0)}, mad={"blocks": (99,), "seconds": 9}
    )
    task = selector_over(core).on(PROBLEM, 1).task
    sets = {kernel.family: [c.parameters for c in task.parameter_sets(kernel)] for kernel in task.competitors}
    assert sets == {"gemm": [(8,)], "odd": [(32,)], "mad": [(1,)]}
    assert selector_over(core).choose(PROBLEM, 1).family == "odd"


class ShippedTier(UserTier):
    name = "shipped"


@pytest.mark.parametrize(("predicted", "chosen"), [(0.9e-3, "winograd"), (0.7e-3, "newer")])
def test_a_kernel_that_came_after_the_package_was_measured(predicted: float, chosen: str) -> None:
    core = StandInCore(
        winograd={"seconds": 1e-3, "predicted": 2e-3},
        gemm={"seconds": 2e-3, "predicted": 4e-3},
        newer={"seconds": 0.5e-3, "predicted": 2 * predicted},
    )
    own, tier = session(), ShippedTier()
    tier.record(own, [trial(own, "winograd", 1.0), trial(own, "gemm", 2.0)], store=False)
    selector = selector_over(core, None, tier)
    choice = selector.choose(PROBLEM, 1)
    assert (choice.family, choice.stale) == (chosen, True)
    rows = explain_problem(PROBLEM, 1, choosing=selector).rows
    assert [row.kernel for row in rows if row.verdict == "chosen"] == [f"f32_{chosen}__avx2"]
    assert len(rows) == 3
    assert selector.choose(PROBLEM, 1, algorithm="gemm").family == "gemm"

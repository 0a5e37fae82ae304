"""A trial answers for every epilogue of its problem: by ratios through shared candidates, never by seconds."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from stand_ins import StandInBench, StandInCore, selector_over, tuner_over
from test_selector import CORE, PROBLEM, memory_of, session, trial

import convkit as ck
from convkit.problem import EPILOGUES, Problem
from convkit.tuner import NotMeasuredError, choose, explain_problem, is_complete, tune_problem
from convkit.tuner.choosing.neighbours import Neighbourhood
from convkit.tuner.choosing.selector import selector
from convkit.tuner.evidence.database import Database
from convkit.tuner.machine import context
from convkit.tuner.measuring.tune import entrants

CLAMPED = PROBLEM.replace(epilogue="clamp", bias=True)
ALL = [
    PROBLEM.replace(epilogue=epilogue, bias=bias, residual=residual)
    for epilogue, bias, residual in product(EPILOGUES, (False, True), (False, True))
]


def test_a_problem_names_its_kin() -> None:
    texts = CLAMPED.texts()
    assert texts[0] == str(CLAMPED)
    assert sorted(texts) == sorted(map(str, ALL))
    assert {problem.bare() for problem in ALL} == {PROBLEM.bare()}
    gradient = PROBLEM.of_op("weight_grad")
    assert gradient.texts() == [str(gradient)]
    assert len(CLAMPED.of_op("input_grad").texts()) == 12  # a transposed convolution has an epilogue


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.epilogue_text)
def test_one_tuning_answers_for_every_epilogue(problem: Problem) -> None:
    selector = selector_over(CORE)
    tuned = tuner_over(selector, StandInBench(CORE)).tune(CLAMPED, 1, budget=60)
    choice = selector.choose(problem, 1)
    assert (choice.tier, choice.candidate, choice.stale) == ("user", tuned.candidate, False)
    assert selector.on(problem, 1).complete
    assert choice.epilogue == ("" if problem == CLAMPED else "clamp+bias")
    explanation = str(explain_problem(problem, 1, choosing=selector))
    assert "3 candidates measured with clamp+bias" in explanation
    assert ("measured with clamp+bias, from user" in explanation) == (problem != CLAMPED)


def test_what_is_measured_is_known_at_once_with_every_epilogue() -> None:
    selector = selector_over(CORE)
    assert {selector.choose(problem, 1).tier for problem in ALL} == {"model"}
    tuner_over(selector, StandInBench(CORE)).tune(CLAMPED, 1, budget=60)
    assert {selector.choose(problem, 1).tier for problem in ALL} == {"user"}


def test_seconds_of_another_epilogue_are_not_compared() -> None:
    """Times move up to a half from one epilogue to another, far more than kernels differ."""
    own, other = session(1), session(2)
    foreign = {"problem": str(CLAMPED), "median": 1e-6}
    pairs = [(own, trial(own, "gemm", 1.0)), (other, trial(other, "winograd", 1.0, **foreign))]
    selector = selector_over(CORE, memory_of(*pairs))
    case = selector.on(PROBLEM, 1)
    assert [row.candidate.kernel.family for row in case.own.ranked] == ["gemm"]
    # So it is still to be measured here.
    assert "f32_winograd__avx2" in case.own.missing
    assert "f32_winograd__avx2" in case.own.untried
    # Within one epilogue, two sessions without a common candidate are compared by their seconds.
    pairs[1] = (other, trial(other, "winograd", 1.0, median=1e-6))
    ranked = selector_over(CORE, memory_of(*pairs)).on(PROBLEM, 1).own.ranked
    assert [row.candidate.kernel.family for row in ranked] == ["winograd", "gemm"]


def test_sessions_of_two_epilogues_meet_in_a_shared_candidate() -> None:
    own, other = session(1), session(2)
    foreign = {"problem": str(CLAMPED)}
    pairs = [
        (own, trial(own, "gemm", 1.0, median=2e-3)),
        # All takes half as long there, and winograd a third of gemm's time.
        (other, trial(other, "winograd", 1.0, median=0.33e-3, **foreign)),
        (other, trial(other, "gemm", 3.0, median=1e-3, **foreign)),
    ]
    ranked = selector_over(CORE, memory_of(*pairs)).on(PROBLEM, 1).own.ranked
    assert [(row.candidate.kernel.family, row.epilogue) for row in ranked] == [
        ("winograd", "clamp+bias"), ("gemm", "none"),
    ]  # fmt: skip
    assert ranked[1].ratio == pytest.approx(3.0)
    # A third of what gemm takes with this epilogue, not what it took with the other.
    assert ranked[0].seconds == pytest.approx(2e-3 / 3)
    assert ranked[1].seconds == 2e-3


def test_a_third_epilogue_is_scaled_by_its_own_seconds_only() -> None:
    """A session that shares no candidate counts where another one with its epilogue does."""
    sessions = [session(number) for number in (1, 2, 3)]
    foreign = {"problem": str(CLAMPED)}
    pairs = [
        (sessions[0], trial(sessions[0], "gemm", 1.0, median=2e-3)),
        (sessions[1], trial(sessions[1], "gemm", 1.0, median=1e-3, **foreign)),
        (sessions[2], trial(sessions[2], "winograd", 1.0, median=0.5e-3, **foreign)),
    ]
    ranked = selector_over(CORE, memory_of(*pairs)).on(PROBLEM, 1).own.ranked
    assert [row.candidate.kernel.family for row in ranked] == ["winograd", "gemm"]
    assert ranked[1].ratio == pytest.approx(2.0)


def test_the_calls_own_epilogue_goes_first() -> None:
    own, other = session(1), session(2)
    foreign = {"problem": str(CLAMPED)}
    pairs = [(own, trial(own, "gemm", 1.0)), (own, trial(own, "winograd", 1.2))]
    pairs += [(other, trial(other, "gemm", 1.5, **foreign)), (other, trial(other, "winograd", 1.0, **foreign))]
    selector = selector_over(CORE, memory_of(*pairs))
    assert selector.choose(PROBLEM, 1).family == "gemm"
    assert selector.choose(CLAMPED, 1).family == "winograd"
    # Unless it was measured on a busy machine.
    busy = session(1, contended=True)
    pairs[:2] = [(busy, one) for _, one in pairs[:2]]
    assert selector_over(CORE, memory_of(*pairs)).choose(PROBLEM, 1).family == "winograd"


def test_completeness_comes_from_what_applies_to_this_call() -> None:
    core = StandInCore(
        gemm={"seconds": 2e-3},
        plain={"seconds": 1e-3, "applies": lambda p: not p.residual},
        adding={"seconds": 1e-3, "applies": lambda p: p.residual},
    )
    selector = selector_over(core)
    tuner_over(selector, StandInBench(core)).tune(CLAMPED, 1, budget=60)
    with_residual = selector.on(CLAMPED.replace(residual=True), 1)
    assert [row.candidate.kernel.family for row in with_residual.own.ranked] == ["gemm"]
    assert with_residual.own.missing == ("f32_adding__avx2",)
    assert selector.on(PROBLEM, 1).complete
    # Only what is missing runs, against what is known.
    assert [candidate.kernel.family for candidate in entrants(with_residual)] == ["gemm", "adding"]
    tuner_over(selector, StandInBench(core)).tune(with_residual.task.problem, 1, budget=60)
    assert selector.choose(with_residual.task.problem, 1).family == "adding"


def test_kin_are_one_neighbour_and_never_their_own() -> None:
    far = PROBLEM.replace(h=20)
    measured = [(str(problem.replace(h=h)), 1) for problem in ALL for h in (16, 20)]
    near = list(Neighbourhood(measured).nearest(CLAMPED, 1))
    assert [(problem, threads) for _, problem, threads in near] == [(CLAMPED.replace(h=20), 1)]
    (_, other, _), *_ = Neighbourhood([(str(far), 1)]).nearest(CLAMPED, 1)
    assert other == far


def test_require_and_tune_are_content_with_another_epilogue(database: Path) -> None:
    x, w = np.ones((1, 4, 10, 10), np.float32), np.ones((6, 4, 3, 3), np.float32)
    layer = ck.Conv2d(w, padding=1, num_threads=1)
    problem = ck.explain(x, w, padding=1, packed=True, num_threads=1).problem
    with ck.tuning(mode="require"), pytest.raises(NotMeasuredError):
        layer(x)
    while not is_complete(problem.replace(epilogue="clamp", bias=True), 1):  # on a busy machine once is not enough
        tuned = tune_problem(problem.replace(epilogue="clamp", bias=True), 1)
    ck.reload()
    with ck.tuning(mode="require"):
        layer(x)
    choice = choose(problem, 1)
    assert (choice.candidate, choice.tier, choice.epilogue) == (tuned.candidate, "user", "clamp+bias")
    assert is_complete(problem, 1)


def test_a_kernel_that_refuses_residuals_is_not_missed_where_there_is_one() -> None:
    pads = dict.fromkeys(("pad_top", "pad_bottom", "pad_left", "pad_right"), 1)
    up = Problem(n=1, c=16, h=16, w=16, o=16, kh=4, kw=4, stride_h=2, stride_w=2, op="input_grad", **pads)
    inventory = selector().inventory
    plain, adding = (
        {kernel.name for kernel in inventory.on(problem, 1).competitors} for problem in (up, up.replace(residual=True))
    )
    assert any("winograd" in name for name in plain - adding)
    assert adding < plain


def test_what_older_versions_wrote_is_read(database: Path) -> None:
    """Problems, and keys of `BestOf`, as version 0.1.0 wrote them."""
    training = (
        "best_of-training-(1, 'forward-float32-NCHW-n1c3h8w8-o4k3x3-s1x1-p1,1,1,1-d1x1-g1-none+bias-cold None None')"
    )
    layer = "forward-float32-NCHW-n1c3h8w8-o4k3x3-s1x1-p1,1,1,1-d1x1-g1-clamp+bias-packed"
    here = context(1)
    own = session(1, machine=str(here.machine), isa=here.machine.isa, affinity=here.affinity)
    pairs = [
        trial(own, "", ratio, problem=training, kernel=name, revision=0, parameters=())
        for name, ratio in (("kernels", 1.2), ("columns", 1.0))
    ]
    task = selector().inventory.on(Problem.parse(layer), 1)
    last = task.default(next(kernel for kernel in reversed(task.competitors) if kernel.direct))
    known = {"kernel": last.kernel.name, "revision": last.kernel.revision, "parameters": last.parameters}
    pairs.append(trial(own, "", 1.0, problem=layer, **known))
    Database(database).append(own, pairs)
    ck.reload()
    x, w = np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    plan = ck.TrainingConv2d(padding=1, num_threads=1)
    plan.forward(x, w, np.ones(4, np.float32))
    assert plan.pipeline == "columns"
    choice = ck.explain(x, w, padding=1, packed=True, num_threads=1).choice
    assert (choice.tier, choice.candidate, choice.epilogue) == ("user", last, "clamp+bias")

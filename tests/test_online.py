"""Online mode: exploring on real calls, always right, then settled, written and cached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from stand_ins import StandInBench, StandInCore, selector_over

import convkit as ck
from convkit import _core
from convkit.best_of import BestOf
from convkit.problem import Problem, of_call
from convkit.reference import conv2d as reference
from convkit.tuner import choose
from convkit.tuner.inventory import Constraints
from convkit.tuner.measuring.online import OnlineProblem, online

PROBLEM = Problem(n=1, c=8, h=16, w=16, o=8, kh=3, kw=3)
LIMITS = Constraints(PROBLEM, "standard", 2**30)


def explore(core: StandInCore, calls: int = 60) -> tuple[OnlineProblem, list[str], Any]:
    bench = StandInBench(core, noise=0.001)
    selector = selector_over(core)
    problem = OnlineProblem(selector, selector.on(PROBLEM, 1), LIMITS, bench=lambda *_: bench)
    ran = []
    for _ in range(calls):
        turn = problem.next()
        assert turn is not None
        candidate, settle = turn
        ran.append(candidate.kernel.family)
        if settle is not None:
            settle(core.details[candidate.kernel.index]["seconds"])
    return problem, ran, selector


def test_it_settles_on_the_fastest_and_writes_trials(monkeypatch: Any) -> None:
    monkeypatch.setattr("convkit.tuner.machine.facts", dict)
    core = StandInCore(
        first={"seconds": 2e-3},
        second={"seconds": 1e-3, "predicted": 3e-3},
        hopeless={"seconds": 9e-3},
        coarse={"seconds": 1e-4, "direct": False, "rms_ratio": 50.0},
        wrong={"seconds": 5e-4, "predicted": 2e-3, "error": 0.5},
    )
    problem, ran, selector = explore(core)
    assert ran[-10:] == ["second"] * 10
    assert "wrong" not in ran
    assert "coarse" not in ran
    assert "hopeless" not in ran
    report = problem.report()
    assert report.settled is not None
    assert report.settled.startswith("f32_second__avx2")
    assert report.lost > 0
    choice = selector.choose(PROBLEM, 1)
    assert (choice.tier, choice.family) == ("user", "second")


def test_real_calls_are_right_and_settle(database: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 8, 12, 12), np.float32)
    w = generator.standard_normal((8, 8, 3, 3), np.float32)
    expected = reference(x, w, padding=1)
    problem = of_call(x, w, padding=1)[0]
    with ck.tuning(mode="online"):
        for _ in range(150):
            np.testing.assert_allclose(ck.conv2d(x, w, padding=1, num_threads=1), expected, rtol=1e-4, atol=1e-4)
        (report,) = online().reports()
        assert report.settled is not None
        assert len({name for name, _ in report.history}) > 1
        misses = _core.counters()["plan_misses"]
        for _ in range(3):
            ck.conv2d(x, w, padding=1, num_threads=1)
        assert _core.counters()["plan_misses"] - misses <= 1
    ck.reload()
    assert choose(problem, 1).tier == "user"


def test_a_spent_budget_ends_exploring(database: Path) -> None:
    x, w = np.ones((1, 8, 12, 12), np.float32), np.ones((8, 8, 3, 3), np.float32)
    with ck.tuning(mode="online", budget=0):
        ck.conv2d(x, w, num_threads=1)
    assert online().reports() == []


def test_runs_that_explore_are_paid_from_the_budget(database: Path) -> None:
    x, w = np.ones((1, 8, 12, 12), np.float32), np.ones((8, 8, 3, 3), np.float32)
    with ck.tuning(mode="online", budget=1e-9):
        for _ in range(5):
            ck.conv2d(x, w, num_threads=1)
        (report,) = online().reports()
        assert sum(row.samples for row in report.alternatives) <= 1
        assert report.settled is None
    with ck.tuning(mode="online", budget="1h"):
        for _ in range(5):
            ck.conv2d(x, w, num_threads=1)
        (report,) = online().reports()
    assert sum(row.samples for row in report.alternatives) > 1


def test_best_of_waits_for_convkit_to_settle(database: Path) -> None:
    x, w = np.ones((1, 8, 12, 12), np.float32), np.ones((8, 8, 3, 3), np.float32)
    best = BestOf("conv", [("convkit", lambda a: ck.conv2d(a, w, num_threads=1)), ("other", lambda a: None)])
    with ck.tuning(mode="online"):
        for _ in range(400):
            best(x)
        assert all(report.settled for report in online().reports())
    assert best.settled(x) is not None


def test_conv2d_layers_explore_too(database: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 8, 12, 12), np.float32)
    w = generator.standard_normal((8, 8, 3, 3), np.float32)
    layer = ck.Conv2d(w, padding=1, num_threads=1)
    with ck.tuning(mode="online"):
        for _ in range(150):
            np.testing.assert_allclose(layer(x), reference(x, w, padding=1), rtol=1e-4, atol=1e-4)
        assert [report.settled is not None for report in online().reports()] == [True]

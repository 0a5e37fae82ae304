"""Regret, the stale list, calibration and the HTML page."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from stand_ins import StandInBench, StandInCore, selector_over, tuner_over

import convkit as ck
from convkit import calibration
from convkit.problem import Problem
from convkit.report import summary as report
from convkit.report.comparison import agreement, layer_times, static_table, total
from convkit.report.regret import regrets, summary
from convkit.tuner import tune_problem
from convkit.tuner.choosing import cost_model
from convkit.tuner.choosing.selector import selector
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.machine import machine_class

PROBLEM = Problem(n=1, c=8, h=16, w=16, o=8, kh=3, kw=3)


def test_regret_of_model_and_neighbours() -> None:
    core = StandInCore(
        gemm={"seconds": 2e-3}, praised={"seconds": 3e-3, "predicted": 1e-3}, best={"seconds": 1e-3, "predicted": 4e-3}
    )
    selector_ = selector_over(core)
    measured = [PROBLEM, PROBLEM.replace(c=12)]
    for problem in measured:
        tuner_over(selector_, StandInBench(core)).tune(problem, 1, budget=60)
    cases = report.measured_cases(selector_)
    assert [case.task.problem for case in cases] == sorted(measured, key=str)
    found = regrets(cases)
    assert [row.best.candidate.kernel.family for row in found] == ["best", "best"]
    assert [row.model for row in found] == [pytest.approx(2.0, rel=0.05)] * 2
    assert [row.neighbour for row in found] == [0.0, 0.0]
    text = summary(found)
    assert "cost model" in text
    assert "praised" in text
    assert "2 problems measured, 0 stale" in str(report.summarise(selector_))


def test_the_selector_against_static_choices() -> None:
    core = StandInCore(
        gemm={"seconds": 3e-3},
        small={"seconds": 1e-3, "applies": lambda p: p.c < 10},
        large={"seconds": 2e-3, "applies": lambda p: p.c >= 10},
    )
    selector_ = selector_over(core)
    layers = [("first", 1, PROBLEM), ("second", 2, PROBLEM.replace(c=16))]
    for _, _, problem in layers:
        tuner_over(selector_, StandInBench(core)).tune(problem, 1, budget=60)
    times = layer_times(layers, 1, selector_)
    assert [layer.chosen for layer in times] == ["small", "large"]
    assert total(times, "gemm") == pytest.approx(9e-3, rel=0.05)
    assert total(times, "large") == pytest.approx(5e-3, rel=0.05)
    table = static_table(times)
    assert "selector" in table
    assert "1.000" in table
    assert "convkit tune" in static_table(layer_times(layers, 16, selector_))


def test_two_tunings_agree_or_tell_where_not(tmp_path: Path) -> None:
    paths = []
    for number, fast in enumerate(("one", "two")):
        core = StandInCore(one={"seconds": 1e-3}, two={"seconds": 1.2e-3}, third={"seconds": 0.9e-3})
        slow = StandInCore(one={"seconds": 1e-3}, two={"seconds": 1.2e-3}, third={"seconds": 1.3e-3})
        paths.append(tmp_path / str(number))
        selector_ = selector_over(core, UserTier(str(paths[-1])))
        tuner_over(selector_, StandInBench(core, seed=number), store=True).tune(PROBLEM, 1, budget=60)
        other = core if fast == "one" else slow
        tuner_over(selector_, StandInBench(other), store=True).tune(PROBLEM.replace(c=16), 1, budget=60)
    found = agreement(*paths, choosing=selector_)
    assert (found.problems, found.same, found.tied) == (2, 1, 0)
    assert found.slowest == pytest.approx(0.3, rel=0.1)
    assert "third" in str(found)


def test_stale_problems_are_listed() -> None:
    old = StandInCore(gemm={"seconds": 2e-3})
    selector_ = selector_over(old)
    tuner_over(selector_, StandInBench(old)).tune(PROBLEM, 1, budget=60)
    assert report.stale_cases(report.measured_cases(selector_)) == []
    grown = selector_over(StandInCore(gemm={"seconds": 2e-3}, newer={"seconds": 1e-3}), selector_.user)
    (stale,) = report.stale_cases(report.measured_cases(grown))
    assert (stale.task.problem, stale.task.threads) == (PROBLEM, 1)
    assert "nothing was measured" in str(report.summarise(selector_over(old)))


def test_calibration_is_kept_and_used(database: Path) -> None:
    found = calibration.calibrate(0.5, problems=[PROBLEM])
    assert "GFLOP/s" in str(found)
    assert found.constants.corrections
    ck.reload()
    assert selector().constants == found.constants
    assert cost_model.load("another machine") is None
    kept = cost_model.constants_path()
    assert kept is not None
    path = Path(kept)
    assert path.stat().st_mode & 0o777 == 0o600
    value = json.loads(path.read_text())
    for change in ({"constants": None}, {"constants": {**value["constants"], "l2": -1}}, {"constants": {"fmas": {}}}):
        path.write_text(json.dumps({**value, **change}))
        assert cost_model.load(str(machine_class())) is None
    for text in ("", "[", "[]", "[" * 5000):
        path.write_text(text)
        ck.reload()
        assert selector().constants.source == "CPUID defaults"


def test_the_page_is_self_contained(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from convkit.pictures.page import write

    for c in (4, 8):
        tune_problem(PROBLEM.replace(c=c), 1, budget=0.05)
    page = tmp_path / "report.html"
    write(page)
    text = page.read_text()
    assert not re.search(r"(src|href)='(?!data:)", text)
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)'", text)
    assert len(pictures) >= 3
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert "Which kernel wins where" in text

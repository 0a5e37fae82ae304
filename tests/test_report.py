"""Regret, the stale list, calibration and the HTML page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from stand_ins import StandInBench, StandInCore, selector_over, tuner_over

import convkit as ck
from convkit import calibration, networks
from convkit.problem import Problem
from convkit.report import summary as report
from convkit.report.comparison import agreement, layer_times, network_worth, static_table
from convkit.report.layers import layer_name
from convkit.report.regret import regrets, summary
from convkit.tuner.choosing import cost_model
from convkit.tuner.choosing.selector import Selector, selector
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.inventory import Inventory
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
    told = "2 problems measured, 0 in doubt (short or busy), 0 stale (older revision)"
    assert told in str(report.summarise(selector_))


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
    worth = network_worth(networks.get("mnist_cnn"), layers, 1, selector_)
    assert worth is not None
    assert [layer.chosen for layer in layer_times(worth)] == ["small", "large"]
    assert worth.with_family("gemm") == pytest.approx(9e-3, rel=0.05)
    assert worth.with_family("large") == pytest.approx(5e-3, rel=0.05)
    assert worth.families()[0][0] in ("small", "large")
    table = static_table(worth)
    assert "over the selector" in table
    assert "1.000" in table
    assert re.search(r"first +1 +1.0\d\d  small +-  gemm +[12]\d\d%", table)
    assert "convkit calibrate" in table
    assert network_worth(networks.get("mnist_cnn"), layers, 16, selector_) is None


def test_what_tuning_is_worth_is_held_against_the_cost_models_choice() -> None:
    core = StandInCore(
        praised={"seconds": 3e-3, "predicted": 1e-3},
        best={"seconds": 1e-3, "predicted": 4e-3},
        close={"seconds": 1.01e-3},
    )
    selector_ = selector_over(core)
    network = networks.get("mnist_cnn")
    for layer in network.unique():
        tuner_over(selector_, StandInBench(core)).tune(layer.problem(4, bias=layer.bias), 1, budget=60)
    summary = report.summarise(selector_)
    (worth,) = summary.worths
    assert (worth.network, worth.complete, str(worth.setting)) == ("MNIST CNN", True, "4 images, NCHW, 1 thread")
    assert worth.untuned == pytest.approx(3 * worth.tuned, rel=0.05)
    assert all(one.tied and one.of_limit is None for _, _, one in worth.layers)
    text = str(summary)
    assert re.search(r"MNIST CNN +\d\S+ +\d\S+ +6\d\.\d%", text)
    assert "MNIST CNN conv1" in text
    facts = summary.facts()["networks"]
    assert facts == [
        {
            "network": "MNIST CNN", "batch": 4, "layout": "NCHW", "dtype": "float32", "packed": True, "threads": 1,
            "layers": 2, "of": 2, "tuned": worth.tuned, "untuned": worth.untuned, "families": dict(worth.families()),
        }
    ]  # fmt: skip


def test_a_report_speaks_of_layers_and_fits_a_terminal() -> None:
    core = StandInCore(a_kernel_of_a_long_name={"seconds": 1e-3}, other={"seconds": 2e-3, "predicted": 1e-4})
    selector_ = selector_over(core)
    network = networks.get("densenet121")
    layers = [(layer.name, layer.count, layer.problem(128, dtype="float64")) for layer in network.unique()[:12]]
    for _, _, problem in [*layers, ("", 1, PROBLEM.replace(groups=8, stride_h=2, stride_w=2))]:
        tuner_over(selector_, StandInBench(core)).tune(problem, 1, budget=60)
    worth = network_worth(network, layers, 1, selector_)
    assert worth is not None
    for text in (str(report.summarise(selector_)), static_table(worth)):
        assert [line for line in text.splitlines() if len(line) > 80] == []
        assert "-n128c" not in text
    assert "DenseNet-121" in str(report.summarise(selector_))
    assert layer_name(PROBLEM.replace(groups=8, stride_h=2, stride_w=2)) == "8→8 @16x16 3x3 /2 depthwise"
    assert layer_name(networks.get("vgg19").layers[0].problem(2).of_op("input")) == "VGG-11 conv1_1, input gradient"
    assert layer_name(networks.get("vgg19").layers[0].problem(2), ["VGG-19"]) == "VGG-19 conv1_1"
    assert layer_name(networks.get("vgg19_cifar").layers[0].problem(2), ["VGG-19 @32"]) == "VGG-19 @32 conv1_1"


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


def test_what_is_in_doubt_is_not_called_stale() -> None:
    core = StandInCore(gemm={"seconds": 2e-3}, other={"seconds": 1e-3})
    busy, old = selector_over(core), selector_over(core)
    tuner_over(busy, StandInBench(core), "busy").tune(PROBLEM, 1, budget=60)
    assert "1 in doubt (short or busy), 0 stale" in str(report.summarise(busy))
    tuner_over(old, StandInBench(core)).tune(PROBLEM, 1, budget=60)
    newer = StandInCore(gemm={"seconds": 2e-3}, other={"seconds": 1e-3, "revision": 2})
    found = report.summarise(selector_over(newer, old.user))
    assert "0 in doubt (short or busy), 1 stale (older revision)" in str(found)
    assert "\n  stale     8→8 @16x16 3x3" in str(found)
    assert (len(found.facts()["stale"]), found.facts()["in_doubt"]) == (1, [])  # type: ignore[arg-type]


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


def page_of(summary: report.Summary, choosing: Selector, path: Path) -> str:
    """The page that a summary makes."""
    from convkit.pictures.page import write

    write(path, choosing, summary)
    return path.read_text(encoding="utf-8")


def test_the_page_is_self_contained_and_says_what_tuning_is_worth(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    core = StandInCore(
        praised={"seconds": 3e-3, "predicted": 1e-3, "error": 1e-6}, best={"seconds": 1e-3, "predicted": 4e-3},
        **{f"family{i}": {"seconds": 2e-3 + 1e-4 * i, "error": 1e-7} for i in range(8)},
    )  # fmt: skip
    constants = selector().constants._replace(source="calibrated by hand")
    selector_ = Selector(Inventory(core), UserTier(), constants=constants, context_of=selector_over(core).context_of)
    for layer in networks.get("mnist_cnn").unique():
        for threads in (1, 2):
            tuner_over(selector_, StandInBench(core)).tune(layer.problem(1), threads, budget=60)
    text = page_of(report.summarise(selector_), selector_, tmp_path / "report.html")
    assert re.search(r"Tuning saves 4\.\d of 6\.\d ms for MNIST CNN&#39;s convolutions\.", text)
    assert text.count("<svg") == text.count("</svg>") == 10 + 3
    for title in ("Scaling by layer", "Regret without measuring", "Error against speed", "Which kernel wins where"):
        assert title in text
    # Nothing is fetched, and no colour of a picture is one that a dark page hides.
    assert not re.search(r"(?:src|href)=['\"](?!#)|url\((?!#)|@import", text)
    assert not re.search("#1f2933|#000000", text.partition("</style>")[2])
    rows = re.findall(r'<tr><th scope="row">(conv\d|MNIST CNN conv\d)</th>', text)
    assert sorted(rows) == ["MNIST CNN conv1"] * 2 + ["MNIST CNN conv2"] * 2 + ["conv1", "conv2"]
    assert "forward-float32" not in text


def test_the_page_of_nothing_and_of_what_no_network_has(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    core = StandInCore(gemm={"seconds": 2e-3})
    selector_ = selector_over(core)
    assert "Nothing was measured" in page_of(report.summarise(selector_), selector_, tmp_path / "nothing.html")
    tuner_over(selector_, StandInBench(core)).tune(PROBLEM, 1, budget=60)
    text = page_of(report.summarise(selector_), selector_, tmp_path / "one.html")
    assert "On this machine tuning changes little" in text
    assert "8→8 @16x16 3x3" in text


def test_families_are_told_apart_by_colour_or_by_marker() -> None:
    pytest.importorskip("matplotlib")
    from convkit.pictures.style import family_marks

    names = [str(number) for number in range(20)]
    marks = family_marks(names)
    assert list(marks) == names
    assert len(set(marks.values())) == 20
    assert len({marks[name].colour for name in names[:8]}) == 8
    assert [mark.shared for mark in marks.values()] == [False] * 8 + [True] * 12
    assert {mark.ink for mark in marks.values()} == {"#000000", "#ffffff"}

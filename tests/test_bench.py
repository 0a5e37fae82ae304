"""``convkit bench`` on a small shape: rows, files, pictures, and the judgement of errors."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shims import libgomp
from shims import run as run_script
from test_cli import run

from convkit import _core
from convkit.contest.contestants import Contestant, Operands, convkit_contestant, peer
from convkit.contest.layers import Heat, TimedLayer
from convkit.contest.pinning import cpus_for, pinned
from convkit.contest.results import Report, Row
from convkit.contest.training import Pass, training_contestant
from convkit.contest.turns import in_turns, relative_error
from convkit.problem import Problem

PROBLEM = Problem(n=1, c=8, h=10, w=9, o=12, kh=3, kw=3, pad_top=1, pad_bottom=1, bias=True, epilogue="clamp")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A file of two small shapes."""
    path = tmp_path / "shapes.txt"
    path.write_text(f"{PROBLEM}\n{PROBLEM.replace(o=16)}\n")
    return path


@pytest.mark.usefixtures("database")
def test_bench_times_draws_and_saves(shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the pictures need it")
    saved, table, picture = tmp_path / "rows.json", tmp_path / "rows.csv", tmp_path / "bench.png"
    options = ("--threads", "1,2", "--kernels", "direct,im2col", "--no-tune", "--seconds", "0.01")
    files = ("--json", str(saved), "--csv", str(table), "--plot", str(picture))
    told = run("bench", "--shapes", str(shapes), *options, *files)
    report = Report.load(saved)
    assert set(report.contestants()) == {"convkit NCHW", "convkit direct NCHW", "convkit im2col NCHW", "NumPy im2col"}
    assert report.teams() == (1, 2)
    assert len(report.rows) == 2 * 2 * 4
    for row in report.rows:
        assert row.contestant in told
        assert 0 < row.best <= row.median
        assert row.error < 1e-4
        assert (row.limit > 0) == bool(row.kernel)
    with table.open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(report.rows)
    names = {path.stem.removeprefix("bench-") for path in tmp_path.glob("bench-*.png")}
    assert names >= {"layers-1t", "layers-2t", "totals", "roofline", "kernels", "scaling"}


@pytest.mark.usefixtures("database")
def test_bestof_compares_every_algorithm_with_the_selection(shapes: Path) -> None:
    told = run(
        "bench", "--shapes", str(shapes), "--threads", "1", "--table", "bestof", "--against", "none",
        "--no-tune", "--seconds", "0.01",
    )  # fmt: skip
    assert "against the selection" in told
    for name in ("selected", "direct", "im2col"):
        assert name in told


@pytest.mark.usefixtures("database")
def test_bestof_of_a_training_pass(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the pictures need it")
    saved = tmp_path / "rows.json"
    told = run(
        "bench", "--network", "mnist_cnn", "--layer", "conv2", "--threads", "1", "--op", "training",
        "--table", "bestof", "--against", "none", "--no-tune", "--seconds", "0.01", "--json", str(saved),
        "--plot", str(tmp_path / "pass.png"),
    )  # fmt: skip
    assert {path.stem for path in tmp_path.glob("*.png")} == {"pass-layers", "pass-totals"}
    assert "against the selection" in told
    report = Report.load(saved)
    assert {"convkit NCHW", "convkit direct NCHW", "convkit winograd2 NCHW"} <= set(report.contestants())
    for row in report.rows:
        assert row.error < 1e-4
        assert row.kernel.count(" + ") == 2 or row.kernel == "columns"
        assert row.flops == 3 * Problem.parse(row.problem).flops
        assert (row.limit > 0) == (row.kernel != "columns")
    assert str(tmp_path) not in saved.read_text()
    assert report.machine["command"].startswith("convkit bench --network mnist_cnn --layer conv2 --threads 1")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("algorithm", [None, "direct", "winograd2", "im2col", "columns"])
def test_a_training_pass_is_right_in_all_three_parts(layout: str, algorithm: str | None) -> None:
    work = Pass(PROBLEM.replace(layout=layout, epilogue="none", packed=False))
    exact = work.exact()
    contestant = training_contestant(work, 1, algorithm)
    y, dx, dw = contestant.call()
    found = contestant.result((y, dx, dw))
    assert relative_error(found, exact)[0] < 1e-5
    for wrong in ((0 * y, dx, dw), (y, 0 * dx, dw), (y, dx, 0 * dw)):
        assert relative_error(contestant.result(wrong), exact)[0] > 0.5


def test_reports_of_one_machine_merge(tmp_path: Path) -> None:
    one, other = (Report(machine={"class": "a"}, fma_peak={1: peak}, bandwidth={1: 1.0}) for peak in (2.0, 3.0))
    other.fma_peak[2] = 4.0
    one.merge(other)
    assert one.fma_peak == {1: 2.0, 2: 4.0}
    one.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == one
    with pytest.raises(ValueError, match="is not a"):
        one.merge(Report(machine={"class": "b"}))


@pytest.mark.parametrize("op", ["forward", "input_grad", "weight_grad"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_convkit_as_a_contestant_is_right(op: str, layout: str) -> None:
    fields = {} if op == "forward" else {"bias": False, "epilogue": "none", "packed": False}
    operands = Operands(PROBLEM.replace(op=op, layout=layout, **fields))
    contestant = convkit_contestant(operands, 1)
    largest, rms = relative_error(contestant.result(contestant.call()), operands.exact())
    assert 0 < rms <= largest < 1e-5


def test_a_wrong_contestant_shows_its_error() -> None:
    operands = Operands(PROBLEM)
    numpy = peer("numpy", operands, 1)
    assert numpy is not None
    zeros = Contestant("zeros", lambda: np.zeros((1, 12, 10, 7), np.float32), np.asarray)
    right, wrong = in_turns([numpy, zeros], operands.exact(), seconds=0.01)
    assert right.error < 1e-5
    assert wrong.error == 1.0


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "wrong",
    [
        ("--against", "abacus"),
        ("--table", "sums"),
        ("--op", "sideways"),
        ("--layout", "NCHW"),
        ("--layer", "conv1"),
        ("--batch", "2"),
        ("--batch", "0"),
        ("--kernels", "dirct"),
        ("--kernels", "columns"),
        ("--accuracy", "dirct"),
        ("--accuracy", "nan"),
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--seconds", "-1"),
        ("--threads", "99999"),
        ("--plot", "speeds.docx"),
        ("--json", "missing/rows.json"),
        ("--csv", "missing/rows.csv"),
        ("--plot", "missing/speeds"),
    ],
)
def test_bench_refuses_before_it_measures(
    wrong: tuple[str, str], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("contest.turns.in_turns", "commands.tune.tune_all"):
        monkeypatch.setattr(f"convkit.{name}", lambda *_, **__: pytest.fail("it began"))
    option, value = wrong
    told = run("bench", "--shapes", str(shapes), option, str(tmp_path / value) if "/" in value else value, code=2)
    assert "Error" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shapes.txt"]


@pytest.mark.usefixtures("database")
def test_a_named_peer_that_is_missing_is_an_error(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.commands.bench.installed", lambda name: name == "numpy")
    monkeypatch.setattr("convkit.commands.tune.tune_all", lambda *_, **__: pytest.fail("it began"))
    told = run("bench", "--shapes", str(shapes), "--against", "numpy,torch", code=2)
    assert "torch is not installed: pip install" in told


@pytest.mark.usefixtures("database")
def test_bench_wants_something_to_do() -> None:
    assert "name a --network" in run("bench", code=2)
    assert "name a --network" in run("bench", "--network", "vgg19", "--layer", "no such layer", code=2)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("option", ["--json", "--csv"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk is tried with /dev/full")
def test_a_full_disk_is_a_sentence(shapes: Path, option: str) -> None:
    told = run("bench", "--shapes", str(shapes), "--threads", "1", "--no-tune", "--seconds", "0", "--against", "none",
               option, "/dev/full", code=2)  # fmt: skip
    assert "/dev/full: No space left on device" in told
    assert "->" not in told


@pytest.mark.usefixtures("database")
def test_rows_on_standard_output_have_nothing_beside_them(shapes: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "convkit", "bench", "--shapes", str(shapes), "--threads", "1", "--seconds", "0",
         "--against", "numpy", "--json", "-"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) >= 4
    assert "shapes.txt line 2, 1 thread: convkit NCHW" in done.stderr


@pytest.mark.usefixtures("database")
def test_accuracy_holds_for_a_training_pass(tmp_path: Path) -> None:
    saved = tmp_path / "rows.json"
    shape = tmp_path / "shape"
    # With this shape Winograd is the choice of everybody who may choose it.
    shape.write_text("2x64x32x32 64x64x3x3 padding=1\n")
    options = ("bench", "--shapes", str(shape), "--threads", "1", "--op", "training", "--against", "none", "--no-tune",
               "--seconds", "0", "--json", str(saved))  # fmt: skip
    found = []
    for accuracy in ("strict", "fast"):
        run(*options, "--accuracy", accuracy)
        found.append(Report.load(saved).rows[0].kernel)
    assert "winograd" not in found[0]
    assert "winograd" in found[1]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("op", ["forward", "input", "weight", "training"])
def test_every_line_of_a_file_is_what_is_timed(tmp_path: Path, op: str) -> None:
    path, saved = tmp_path / "shapes.txt", tmp_path / "rows.json"
    lines = [str(PROBLEM), str(PROBLEM.replace(epilogue="other", residual=True)), str(PROBLEM.replace(dtype="float64"))]
    path.write_text("\n".join(lines))
    run(
        "bench",
        "--shapes",
        str(path),
        "--threads",
        "1",
        "--no-tune",
        "--seconds",
        "0",
        "--op",
        op,
        "--json",
        str(saved),
    )
    rows = Report.load(saved).rows
    assert {row.op for row in rows} == {op}
    for row in rows:
        assert row.error < (1e-12 if "float64" in row.problem else 1e-5)
        assert row.problem.startswith("forward" if op in ("forward", "training") else f"{op}_grad")
    ours = [row for row in rows if row.contestant.startswith("convkit")]
    assert len(ours) == 3
    assert len([row for row in rows if row.contestant == "NumPy im2col"]) == (2 if op == "forward" else 0)


@pytest.mark.usefixtures("database")
def test_a_gradient_in_a_file_is_what_it_is(tmp_path: Path) -> None:
    path, saved = tmp_path / "shapes.txt", tmp_path / "rows.json"
    path.write_text(str(PROBLEM.of_op("weight")))
    options = ("bench", "--shapes", str(path), "--threads", "1", "--no-tune", "--seconds", "0", "--json", str(saved))
    run(*options)
    assert Report.load(saved).rows[0].op == "weight"
    assert "is a gradient itself" in run(*options, "--op", "training", code=2)


@pytest.mark.usefixtures("database")
def test_what_was_measured_before_an_interrupt_is_shown_and_saved(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def interrupted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return in_turns(*arguments, **keywords)

    monkeypatch.setattr("convkit.contest.turns.in_turns", interrupted)
    saved = tmp_path / "rows.json"
    told = run("bench", "--shapes", str(shapes), "--threads", "1", "--no-tune", "--seconds", "0", "--json", str(saved),
               code=130)  # fmt: skip
    assert "line 1 x1" in told
    assert {row.layer for row in Report.load(saved).rows} == {"line 1"}


@pytest.mark.usefixtures("database")
def test_a_layer_that_does_not_fit_costs_only_itself(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(self: Heat) -> Any:
        if self.layer.name == "line 1":
            raise MemoryError
        return self._operands.exact()

    monkeypatch.setattr(Heat, "exact", property(small))
    saved = tmp_path / "rows.json"
    told = run("bench", "--shapes", str(shapes), "--threads", "1", "--no-tune", "--seconds", "0", "--json", str(saved),
               code=2)  # fmt: skip
    assert "line 1: not enough memory" in told
    assert {row.layer for row in Report.load(saved).rows} == {"line 2"}


def test_the_peak_is_that_of_the_cpus_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(_core, "fma_peak", lambda dtype, threads: asked.append(threads) or 1e9 * threads)
    monkeypatch.setattr(_core, "available_cpus", lambda: 2)
    report = Report.here()
    for team in (1, 2, 64):
        report.measure_limits(team)
    assert asked == [1, 2, 2]
    assert [report.peak(team) for team in (1, 2, 64)] == [2e9, 4e9, 4e9]
    assert report.peak(2, "float64") == 2e9


def test_samples_that_were_interrupted_make_a_row_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.contest.turns.ContentionGuard.reason", lambda self: "somebody else")
    heat = Heat(TimedLayer("net", "layer", 1, PROBLEM))
    entered = heat.contestants(1, (None, "direct", "winograd_strided"), ("numpy",))
    assert [one.name for one in entered] == ["convkit NCHW", "convkit direct NCHW", "NumPy im2col"]
    report = Report(machine={"class": "a"}, fma_peak={1: 1e9}, bandwidth={1: 1.0})
    for contestant, timing in zip(entered, in_turns(entered, heat.exact, seconds=0.0), strict=True):
        row = report.add(heat.layer, 1, contestant, timing)
        assert row.busy == "somebody else"
        assert row.doubtful == (contestant.name != "NumPy im2col")


def test_teams_get_cores_before_siblings(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{siblings}\n")
    for threads, expected in ((1, {0}), (2, {0, 1}), (3, {0, 1, 2}), (9, {0, 1, 2, 3})):
        assert cpus_for(threads, {0, 1, 2, 3}, str(tmp_path)) == expected
    assert cpus_for(2, {0, 2, 3}, str(tmp_path)) == {0, 3}


def test_pinning_binds_every_thread_and_lets_go() -> None:
    before = os.sched_getaffinity(0)
    stop, bound = threading.Event(), threading.Event()

    def bind() -> None:
        os.sched_setaffinity(0, {max(before)})
        bound.set()
        stop.wait()

    others = [threading.Thread(target=stop.wait), threading.Thread(target=bind)]
    for other in others:
        other.start()
    free, own = [other.native_id or 0 for other in others]
    try:
        bound.wait()
        with pinned(1) as cpus:
            assert len(cpus) == 1
            assert {frozenset(os.sched_getaffinity(task)) for task in (0, free, own)} == {frozenset(cpus)}
        assert os.sched_getaffinity(0) == os.sched_getaffinity(free) == before
        assert os.sched_getaffinity(own) == {max(before)}
    finally:
        stop.set()
        for other in others:
            other.join()


def test_threads_that_openmp_bound_are_not_pinned() -> None:
    script = """
import os
from convkit import _core
from convkit.contest.layers import TimedLayer, Heat
from convkit.contest.pinning import pinned
threads = _core.available_cpus()
before = os.sched_getaffinity(0)
assert len(before) < threads or threads == 1
with pinned(threads) as cpus:
    assert cpus == os.sched_getaffinity(0) == before
assert os.sched_getaffinity(0) == before
"""
    libgomp()
    run_script(script, OMP_PROC_BIND="true")


def test_a_busy_machine_shows() -> None:
    fields = (PROBLEM.replace(n=64), 2, "convkit NCHW", "f32_direct__avx2", (), 2e-3, 2e-3, 5)
    row = Row("net", "layer", 1, str(fields[0]), *fields[1:], 2.0, 0.0, 0.0, 0.0)  # type: ignore[arg-type]
    assert not row.doubtful
    assert replace(row, cpu_per_wall=1.1).doubtful
    assert not replace(row, cpu_per_wall=1.1, threads=1).doubtful
    assert not replace(row, cpu_per_wall=1.1, median=1e-4).doubtful
    assert not replace(row, cpu_per_wall=1.1, contestant="ncnn").doubtful

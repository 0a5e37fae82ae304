"""``convkit bench`` on a small shape: rows, files, pictures, and the judgement of errors."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_cli import run

from convkit.contest.contestants import Contestant, Operands, convkit_contestant, peer
from convkit.contest.pinning import cpus_for, pinned
from convkit.contest.results import Report, Row
from convkit.contest.training import Pass, training_contestant
from convkit.contest.turns import race, relative_error
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
    right, wrong = race([numpy, zeros], operands.exact(), seconds=0.01)
    assert right.error < 1e-5
    assert wrong.error == 1.0


@pytest.mark.usefixtures("database")
def test_bench_refuses_what_it_does_not_know(shapes: Path) -> None:
    for wrong in (("--against", "abacus"), ("--table", "sums"), ("--op", "sideways"), ("--layout", "CHWN")):
        run("bench", "--shapes", str(shapes), *wrong, code=2)
    run("bench", code=2)


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
from convkit.contest.pinning import pinned
before = os.sched_getaffinity(0)
with pinned(_core.available_cpus()) as cpus:
    assert cpus == os.sched_getaffinity(0) == before
assert os.sched_getaffinity(0) == before
"""
    environment = os.environ | {"OMP_PROC_BIND": "true"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)


def test_a_busy_machine_shows() -> None:
    fields = (PROBLEM.replace(n=64), 2, "convkit NCHW", "f32_direct__avx2", (), 2e-3, 2e-3, 5)
    row = Row("net", "layer", 1, str(fields[0]), *fields[1:], 2.0, 0.0, 0.0, 0.0)  # type: ignore[arg-type]
    assert not row.disturbed
    assert replace(row, cpu_per_wall=1.1).disturbed
    assert not replace(row, cpu_per_wall=1.1, threads=1).disturbed
    assert not replace(row, cpu_per_wall=1.1, median=1e-4).disturbed
    assert not replace(row, cpu_per_wall=1.1, contestant="ncnn").disturbed

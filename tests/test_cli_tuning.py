"""The commands around the database's contents: calibrate, report, and tune's further sources."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_cli import run
from test_database import filled, held
from test_modes import CONVOLVE
from test_modes import run as run_code

from convkit.problem import Problem
from convkit.tuner import choose, tune_problem
from convkit.tuner.choosing.selector import selector
from convkit.tuner.evidence.database import Database
from convkit.report.summary import missed_problems

PROBLEM = Problem(n=1, c=4, h=8, w=8, o=4, kh=3, kw=3)


def test_calibrate_prints_and_keeps(database: Path) -> None:
    told = run("calibrate", "--budget", "300ms")
    assert "GFLOP/s" in told
    assert "kept in" in told
    assert "calibrated" in run("info")


def test_report_of_nothing_and_of_something(database: Path, tmp_path: Path) -> None:
    assert "convkit tune begins" in run("report")
    tune_problem(PROBLEM, 1, budget=0.1)
    page = tmp_path / "page.html"
    told = run("report", "--html", str(page))
    assert "1 problems measured" in told
    assert page.read_text().startswith("<!doctype html>")


def test_report_of_a_network_holds_the_selector_against_static_choices(database: Path) -> None:
    run("tune", "--network", "mnist_cnn", "--threads", "1", "--layout", "NCHW", "--per-shape", "50ms")
    told = run("report", "--network", "mnist_cnn", "--threads", "1", "--layout", "NCHW")
    assert "over the selector" in told
    assert "2 of 2 layers" in told
    assert "none of these layers" in run("report", "--network", "mnist_cnn", "--threads", "1", "--layout", "NHWC")


def test_two_databases_are_compared(database: Path, tmp_path: Path) -> None:
    tune_problem(PROBLEM, 1, budget=0.1)
    other = tmp_path / "other"
    Database(other).merge(database)
    assert "1 choices equal" in run("report", "--against", str(other))


def test_tune_says_what_a_lock_cost(database: Path, tmp_path: Path) -> None:
    shapes = tmp_path / "shapes"
    shapes.write_text(str(PROBLEM))
    filled(database)
    with held(database, "exclusive"):
        # As if it had waited for it before.
        selector().user._waited_in_vain = True
        told = run("tune", "--shapes", str(shapes), "--threads", "1", "--per-shape", "20ms", code=2)
    assert "1 measured" in told
    assert "the database could not be written" in told


def test_tune_again_and_from_a_log(database: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(run_code(CONVOLVE, CONVKIT_VERBOSE="1", CONVKIT_DB=str(tmp_path / "none")).stderr)
    ((problem, threads),) = missed_problems(log.read_text() * 2 + "nonsense with 1 threads: x from model")
    assert "1 measured" in run("tune", "--from-misses", str(log), "--per-shape", "50ms")
    assert choose(problem, threads).tier == "user"
    sessions = Database(database).counts()["sessions"]
    assert "1 measured" in run("tune", "--from-misses", str(log), "--per-shape", "50ms", "--again")
    assert Database(database).counts()["sessions"] == sessions + 1
    run("tune", "--stale")


def test_tune_with_dask(database: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra fleet is not installed")
    shapes = tmp_path / "shapes"
    shapes.write_text(str(PROBLEM))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        told = run("tune", "--shapes", str(shapes), "--threads", "1", "--per-shape", "50ms", "--dask",
                   cluster.scheduler_address)  # fmt: skip
    assert "1 sessions" in told
    assert os.path.exists(database)

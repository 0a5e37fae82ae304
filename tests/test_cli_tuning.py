"""The commands around the database's contents: calibrate, report, and tune's further sources."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from stand_ins import selector_over
from test_cli import PROBLEMS as SHAPES
from test_cli import run, shapes
from test_database import filled, held
from test_modes import CONVOLVE
from test_modes import run as run_code
from test_selector import CORE, memory_of, session, trial
from test_selector import PROBLEM as MADE_UP

from convkit import tuner
from convkit.commands.tune import Job, Tally, _judge
from convkit.problem import Problem
from convkit.report.summary import missed_problems
from convkit.tuner import choose, tune_problem
from convkit.tuner.choosing.selector import selector
from convkit.tuner.evidence.database import Database

__all__ = ["shapes"]

PROBLEM = Problem(n=1, c=4, h=8, w=8, o=4, kh=3, kw=3)


def test_calibrate_prints_and_keeps(database: Path) -> None:
    told = run("calibrate", "--budget", "300ms")
    assert "GFLOP/s" in told
    assert "kept in" in told
    assert "calibrated" in run("info")


def test_report_of_nothing_and_of_something(database: Path, tmp_path: Path) -> None:
    assert "run convkit tune" in run("report")
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


@pytest.mark.usefixtures("database")
def test_explain_says_which_team_sizes_were_measured() -> None:
    tune_problem(PROBLEM, 1, budget=0.05)
    told = run("explain", str(PROBLEM), "--threads", "2")
    assert "user: nothing for 2 threads; measured for 1 (" in told
    assert "nothing for" not in run("explain", str(PROBLEM), "--threads", "1")


def test_tune_with_dask(database: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra fleet is not installed")
    shapes = tmp_path / "shapes"
    shapes.write_text(str(PROBLEM))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as cluster:
        told = run("tune", "--shapes", str(shapes), "--threads", "1", "--per-shape", "50ms", "--dask",
                   cluster.scheduler_address)  # fmt: skip
    assert "1 sessions" in told
    assert os.path.exists(database)


@pytest.mark.usefixtures("database")
def test_tune_says_what_it_was_worth(shapes: Path) -> None:
    told = run("tune", "--shapes", str(shapes), "--threads", "1", "--budget", "200ms")
    assert re.search(r"against what ran before, by samples taken in turns: \d+\.\d\d\d times as fast, \d of \d", told)


@pytest.mark.parametrize(
    ("samples", "contended", "kernels", "doubt"),
    [
        (9, False, 3, None),
        (2, False, 3, "a first look only"),
        (9, True, 3, "the machine was busy"),
        (9, False, 2, "no time for 1 of 3 kernels"),
    ],
)
def test_what_is_in_doubt_is_told_with_its_reason(
    samples: int, contended: bool, kernels: int, doubt: str | None
) -> None:
    own = session(1, contended=contended)
    ratios = (("gemm", 1.0), ("winograd", 3.0), ("coarse", 5.0))
    rows = [(own, trial(own, name, ratio, n=samples)) for name, ratio in ratios[:kernels]]
    before, after = selector_over(CORE).on(MADE_UP, 1), selector_over(CORE, memory_of(*rows)).on(MADE_UP, 1)
    tally, job = Tally(), Job("made up", MADE_UP, 1)
    _judge(tally, job, after, before.choose(), after.choose())
    assert tally.faster == pytest.approx(3.0)
    assert tally.slower == pytest.approx(3.0)
    assert doubt in tally.noisy[job] if doubt else tally.noisy == {}


@pytest.mark.usefixtures("database")
def test_gains_and_doubts_are_those_of_the_measurements() -> None:
    job, other = Job("one", Problem.parse(SHAPES[0]), 1), Job("two", Problem.parse(SHAPES[0]), 1)
    tally = Tally(measured=2, gains={job: (3.0, 2.0), other: (1.0, 2.0)}, noisy={job: "made up"})
    assert tally.faster == 1.0
    assert "1.000 times as fast, 1 of 2 problems faster" in tally.text()
    assert tally.text().splitlines()[-1] == "  one, 1 thread: made up"
    assert json.loads(tally.to_json())["noisy"] == {"one, 1 thread": "made up"}
    assert Tally().faster is None


@pytest.mark.usefixtures("database")
def test_tune_refuses_a_budget_that_is_too_short(shapes: Path) -> None:
    told = run("tune", "--shapes", str(shapes), "--threads", "1", "--budget", "90ms", code=2)
    assert "it must be at least 0.1 s, 0.05 s a problem" in " ".join(told.replace("│", " ").split())


@pytest.mark.usefixtures("database")
def test_what_a_busy_machine_made_tune_measure_twice_is_compared_with_the_time_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from convkit.commands import tune

    compared: list[str] = []
    monkeypatch.setattr(tuner, "is_complete", lambda problem, threads: False)
    monkeypatch.setattr(tune, "_judge", lambda tally, job, case, before, choice: compared.append(before.tier))
    tally = tune.tune_all([Job("one", PROBLEM, 1)])
    assert (tally.measured, tally.again, len(compared)) == (1, 1, 1)
    assert compared != ["user"]


@pytest.mark.usefixtures("database")
def test_candidates_that_fail_are_told_with_their_reasons(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit.tuner.measuring.workbench import Workbench

    tolerance = Workbench.tolerance
    monkeypatch.setattr(
        Workbench, "tolerance", lambda self, c: -1.0 if c.kernel.family == "im2col" else tolerance(self, c)
    )
    told = run("tune", "--shapes", str(shapes), "--threads", "1", "--per-shape", "2s")
    assert re.search(r"1 thread: left out f32_im2col__\w+\(\): wrong: RMS error", told)
    assert "2 measured, 0 reused, 0 failed" in told


@pytest.mark.usefixtures("database")
def test_a_problem_whose_candidates_all_fail_has_failed(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit.tuner.measuring.workbench import Workbench

    monkeypatch.setattr(Workbench, "tolerance", lambda self, candidate: -1.0)
    told = run("tune", "--shapes", str(shapes), "--threads", "1", "--budget", "1s", code=1)
    assert "0 measured, 0 reused, 2 failed" in told
    assert ": wrong: RMS error" in told

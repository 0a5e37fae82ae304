"""The commands, run as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from convkit import _core, networks
from convkit.commands import app, arguments
from convkit.commands.tune import Job, Tally, tune_all
from convkit.distribution import install_line
from convkit.problem import Problem

PROBLEMS = (
    "forward-float32-NCHW-n1c8h10w10-o16k3x3-s1x1-p1,1,1,1-d1x1-g1-clamp+bias-packed",
    "1x9x9x4 8x4x1x1 layout=NHWC",
)


def run(*arguments: str, code: int = 0) -> str:
    """Run a command in this process; its output."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A file of two small shapes."""
    path = tmp_path / "shapes.txt"
    path.write_text("# two shapes\n\n" + "\n".join(PROBLEMS) + "  # the second\n")
    return path


def test_without_the_extra_the_script_names_the_install_line() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom convkit.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert install_line("cli") in done.stderr
    assert "Traceback" not in done.stderr


def test_module_and_script_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "convkit", "--help"], capture_output=True, text=True, check=True)
    for command in ("info", "demo", "tune", "explain", "db"):
        assert command in done.stdout


def test_info_lists_every_kernel() -> None:
    told = run("info", "--kernels")
    assert _core.active_isa() in told
    for kernel in _core.kernels():
        assert kernel["name"] in told


@pytest.mark.usefixtures("database")
def test_explain_takes_shapes_layers_and_problems() -> None:
    by_shape = run(
        "explain", "1x64x56x56", "64x64x3x3", "--padding", "1", "--threads", "1", "--bias", "--activation", "relu"
    )
    by_layer = run("explain", "resnet18", "conv2_1_a", "--threads", "1", "--bias", "--activation", "relu")
    text = str(networks.get("resnet18").layers[1].problem(1, bias=True, epilogue="clamp"))
    assert text in by_shape
    assert text in by_layer
    assert text in run("explain", text, "--threads", "1")
    for op in ("input", "weight"):
        told = run("explain", "resnet18", "conv2_1_a", "--threads", "1", "--op", op)
        assert f"{op}_grad-float32" in told
        assert "-none-cold" in told
    assert "-other-packed" in run("explain", "resnet18", "conv2_1_a", "--threads", "1", "--activation", "silu")
    told = json.loads(run("explain", text, "--threads", "1", "--json"))
    assert told


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("options", "op"),
    [((), "input_grad"), (("--op", "input"), "forward"), (("--op", "weight"), "weight_grad")],
)
def test_explain_knows_what_a_transposed_layer_computes(options: tuple[str, ...], op: str) -> None:
    for layer, size in (("decode1", 14), ("decode2", 28)):
        told = run("explain", "autoencoder", layer, "--threads", "1", *options)
        assert f"{op}-float32-NCHW-n1c8h{size}w{size}-o8k3x3-s2x2" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("1x64x56", "64x64x3x3"),
        ("1x64x56x56", "64x63x3x3"),
        ("1x64x2x2", "64x64x3x3"),
        ("vgg19", "conv9_9"),
        ("no-such-network", ""),
        ("1x64x56x56", "64x64x3x3", "--padding", "some"),
        ("1x64x56x56", "64x64x3x3", "--stride", "x"),
        ("1x64x56x56", "64x64x3x3", "--accuracy", "perfect"),
        ("1x64x56x56", "64x64x3x3", "--op", "input_grad"),
        ("vgg19", "conv1_1", "--activation", "perfect"),
        (PROBLEMS[0], "--op", "weight"),
    ],
)
def test_explain_refuses_in_one_sentence(arguments: tuple[str, ...]) -> None:
    told = run("explain", *arguments, code=2)
    assert "Error" in told
    assert "Traceback" not in told


def test_tune_measures_once_and_the_database_can_be_carried(database: Path, shapes: Path, tmp_path: Path) -> None:
    first = run("tune", "--shapes", str(shapes), "--threads", "1", "--budget", "4s")
    assert "2 measured, 0 reused, 0 failed" in first
    assert database.exists()
    told = run("db", "show")
    assert PROBLEMS[0] in told
    assert "2 problems" in told
    assert str(database) in run("db", "path")
    assert "contended" in run("db", "ls")
    assert "sound" in run("db", "verify")

    lines = tmp_path / "trials.jsonl"
    run("db", "export", str(lines), "--contended")
    assert "0 sessions and 0 trials are new" in run("db", "import", str(lines))
    copy = tmp_path / "frozen.sqlite"
    run("db", "freeze", str(copy))
    assert "0 sessions and 0 trials are new" in run("db", "merge", str(copy))
    run("db", "freeze", str(copy), code=2)
    run("db", "prune", code=2)
    assert "deleted 0 of" in run("db", "prune", "--machine", "no such machine")
    assert "deleted 0 of" not in run("db", "prune", "--kernel", "f32_")
    assert "0 trials" in run("db", "show")


def test_an_export_for_the_package_takes_neither_file_nor_contended_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convkit.tuner.evidence.shipped.write", lambda *arguments: pytest.fail("it wrote"))
    for ignored in (str(tmp_path / "elsewhere"), "--contended"):
        assert "--package" in run("db", "export", "--package", ignored, code=2)
    assert not (tmp_path / "elsewhere").exists()


def test_commands_on_no_database_say_so(database: Path) -> None:
    for command in ("show", "ls", "verify"):
        assert "no database" in run("db", command, code=2)
    assert not database.exists()


def test_what_is_in_the_database_is_not_measured_again(database: Path) -> None:
    problem = Problem.parse(PROBLEMS[0])
    jobs = [Job("small", problem, 1)]
    assert tune_all(jobs, 2.0).measured == 1
    before = database.read_bytes()
    tally = tune_all(jobs, 2.0, any_answer=True)
    assert (tally.reused, tally.measured) == (1, 0)
    assert database.read_bytes() == before


@pytest.mark.usefixtures("database")
def test_what_a_busy_machine_disturbed_is_measured_once_more_after_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit import tuner

    order: list[Problem] = []
    busy = Problem.parse(PROBLEMS[0])
    quiet = busy.replace(n=2)

    def tune_problem(problem: Problem, threads: int, **keywords: Any) -> Any:
        order.append(problem)
        return tuner.choose(problem, threads)

    monkeypatch.setattr(tuner, "tune_problem", tune_problem)
    monkeypatch.setattr(tuner, "is_complete", lambda problem, threads: problem == quiet and quiet in order)
    tally = tune_all([Job("busy", busy, 1), Job("quiet", quiet, 1)])
    assert order == [busy, quiet, busy]
    assert (tally.measured, tally.again, tally.reused) == (2, 1, 0)
    order.clear()
    tune_all([Job("busy", busy, 1)], 2.0)
    assert order == [busy]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("limited", [True, False])
def test_while_a_team_is_apart_one_thread_works(monkeypatch: pytest.MonkeyPatch, limited: bool) -> None:
    from convkit import tuner

    order, looks, slept = [], iter([False, True, True] + [True] * 9 + [False] * 9), []
    one = Problem.parse(PROBLEMS[0])
    jobs = [Job("", one.replace(n=n), threads) for n in (1, 2) for threads in (1, 2)]

    def tune_problem(problem: Problem, threads: int, **keywords: Any) -> Any:
        order.append((problem.n, threads))
        return tuner.choose(problem, threads)

    monkeypatch.setattr(tuner, "tune_problem", tune_problem)
    monkeypatch.setattr(tuner, "is_complete", lambda problem, threads: threads == 1 or len(order) > 4)
    monkeypatch.setattr("convkit.tuner.measuring.contention.team_apart", lambda threads: next(looks))
    monkeypatch.setattr("convkit.commands.tune.time.sleep", slept.append)
    tune_all(jobs, 2.0 if limited else None, again=True)
    assert order[:4] == [(1, 1), (1, 2), (2, 1), (2, 2)] if limited else [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert bool(slept) is not limited


@pytest.mark.usefixtures("database")
def test_an_interrupt_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch, shapes: Path) -> None:
    from convkit import tuner

    measured: list[Problem] = []
    tune_problem = tuner.tune_problem

    def interrupted(problem: Problem, *args: Any, **keywords: Any) -> Any:
        if measured:
            raise KeyboardInterrupt
        measured.append(problem)
        return tune_problem(problem, *args, **keywords)

    monkeypatch.setattr(tuner, "tune_problem", interrupted)
    told = run("tune", "--shapes", str(shapes), "--threads", "1", "--budget", "2s", code=130)
    assert "1 measured, 0 reused, 0 failed, 1 not reached" in told
    assert str(measured[0]) in run("db", "show")


def test_shards_are_a_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit.commands import tune

    seen: list[Job] = []

    def collect(jobs: list[Job], budget: float | None, **options: Any) -> Any:
        seen.extend(jobs)
        return tune.Tally(reused=len(jobs))

    monkeypatch.setattr(tune, "tune_all", collect)
    options = (
        "tune",
        "--network",
        "vgg19,resnet50",
        "--batch",
        "1,8",
        "--threads",
        "1,2",
        "--op",
        "forward,input,weight",
    )
    run(*options)
    whole, seen[:] = list(seen), []
    for shard in ("1/3", "2/3", "3/3"):
        run(*options, "--shard", shard)
    assert sorted(map(str, seen)) == sorted(map(str, whole))
    assert len({(job.problem, job.threads) for job in whole}) == len(whole)
    assert {job.problem.op for job in whole} == {"forward", "input_grad", "weight_grad"}
    run(*options, "--shard", "4/3", code=2)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30.0), ("10m", 600.0), ("1.5h", 5400.0), ("250ms", 0.25), ("7", 7.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert arguments.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1d", "1 2"])
def test_wrong_durations_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="seconds"):
        arguments.duration(text)


@pytest.mark.parametrize("line", ["1x2x3", "1x2x3x4 5x2x1x1 stride", "1x2x3x4 5x2x1x1 strides=2", "forward-float32"])
def test_a_wrong_line_of_a_shapes_file_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text(f"{PROBLEMS[0]}\n{line}\n")
    with pytest.raises(typer.BadParameter, match="line 2"):
        arguments.shapes_file(path)


def test_demo_draws_and_tunes_nothing_the_second_time(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws")
    from PIL import Image

    options = ("demo", "--output", str(tmp_path / "demo"), "--budget", "2s", "--threads", "1")
    first = run(*options)
    assert "9 measured" in first
    for layer in networks.get("vgg19").layers:
        assert layer.name in first
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"filter-bank.png", "vgg19.png"}
    for path in (tmp_path / "demo").iterdir():
        with Image.open(path) as picture:
            assert picture.width > 800
            assert len(picture.convert("L").getcolors() or []) > 50
    kept = database.read_bytes()
    assert "nothing was tuned" in run(*options)
    assert kept == database.read_bytes()


@pytest.mark.usefixtures("database")
def test_demo_shows_times_of_one_race_and_says_if_it_was_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws")
    from convkit.contest.turns import Timing

    seen: list[str] = []

    def raced(contestants: list[Any], exact: Any, *_: Any, **__: Any) -> list[Timing]:
        _, theirs = contestants
        seen.append(theirs.name)
        busy = "4 of 5 samples were interrupted" if len(seen) in (3, 16 + 3) else ""
        return [Timing(seconds, seconds, 5, 1.0, 1e-7, 1e-7, busy) for seconds in (1e-3, 8e-3)]

    monkeypatch.setattr("convkit.contest.turns.in_turns", raced)
    monkeypatch.setattr("convkit.commands.tune.tune_all", lambda *_, **__: Tally(reused=9))
    options = ("demo", "--output", str(tmp_path), "--threads", "1", "--layout", "NHWC")
    told = run(*options)
    assert seen == ["NumPy im2col"] * 16
    assert len(re.findall(r"\b8\.0x", told)) == 16 + 1
    assert "16.00" in told
    assert "128.00" in told
    assert "while 1 of 16 layers were timed (4 of 5 samples were interrupted)" in told
    lines = run(*options, "--json").splitlines()
    facts = json.loads(lines[-1])
    assert [row["layer"] for row in facts["layers"]][::2] == [layer.name for layer in networks.get("vgg19").layers]


def test_the_filter_bank_is_what_scipy_would_do() -> None:
    import numpy as np

    from convkit import reference
    from convkit.commands.filter_bank import FILTERS, apply

    photo = np.random.default_rng(0).random((20, 30, 3), dtype=np.float32)
    filtered = apply(photo)
    assert filtered.shape == (len(FILTERS), 20, 30, 3)
    for name, picture in zip(FILTERS, filtered, strict=True):
        padded = np.pad(photo[..., 1], 5, mode="edge")
        expected = reference.conv2d(padded[None, None], FILTERS[name][None, None])[0, 0]
        np.testing.assert_allclose(picture[..., 1], expected, atol=1e-5)

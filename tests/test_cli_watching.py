"""Long work can be watched: by people in a terminal and without one, and by machines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console
from test_cli import run

from convkit.commands.watching import Watch
from convkit.problem import Problem
from convkit.tuner import tune_problem

PROBLEM = Problem(n=1, c=8, h=10, w=10, o=16, kh=3, kw=3)


def watched(*, terminal: bool) -> str:
    """What three problems leave on a console."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    with Watch("problems", 3, console, parts=True) as watch:
        watch.now("first of all")
        watch.tell("a line that stays")
        watch.within(1, 4, "a kernel")
        watch.done("done: one")
        watch.done("done: two")
        watch.expect(4)
    assert list(watch.each("ab", "going through")) == ["a", "b"]
    return file.getvalue()


def test_a_terminal_shows_a_bar_with_the_time_left() -> None:
    told = watched(terminal=True)
    for text in ("left:", "0/3", "2/4", "first of all", "a kernel", "a line that stays"):
        assert text in told
    assert "done: one" not in told


def test_without_a_terminal_there_is_a_line_for_each_problem() -> None:
    told = watched(terminal=False).splitlines()
    assert told[:4] == ["first of all", "a line that stays", "done: one", "done: two"]
    assert "left:" not in "".join(told)


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    """A file of two small shapes, one of which no kernel can hold in memory."""
    path = tmp_path / "shapes.txt"
    path.write_text(f"{PROBLEM}\n{PROBLEM.replace(o=8)}\n")
    return str(path)


def lines(*words: str, code: int = 0) -> list[dict[str, object]]:
    """What a command printed as JSON, line by line; people's text is on the error output."""
    from typer.testing import CliRunner

    from convkit.commands import app

    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.usefixtures("database")
def test_tune_tells_machines_of_each_problem(shapes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit import tuner

    tune_problem(PROBLEM, 1, budget=0.05)
    monkeypatch.setattr(tuner, "is_complete", lambda problem, threads: problem == PROBLEM)
    one, two, last = lines("tune", "--shapes", shapes, "--threads", "1", "--per-shape", "20ms", "--json")
    assert (one["problem"], one["threads"], one["outcome"]) == (str(PROBLEM), 1, "database")
    assert two["outcome"] == "measured"
    assert str(two["kernel"]).startswith("f32_")
    assert last["measured"] == last["reused"] == 1

    def fails(*_: object, **__: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(tuner, "tune_problem", fails)
    *each, last = lines("tune", "--shapes", shapes, "--threads", "1", "--again", "--json", code=1)
    assert [(one["outcome"], one["reason"]) for one in each] == [("failed", "too large")] * 2
    assert last["failed"] == 2
    told = run("tune", "--shapes", shapes, "--threads", "1", "--again", code=1)
    assert "failed    1x8@10x10 16x3x3 s1 NCHW, 1 thread: too large" in told
    assert "0 measured, 0 reused, 2 failed" in told


@pytest.mark.usefixtures("database")
def test_a_bar_on_the_terminal_takes_nothing_from_a_pipe(shapes: str) -> None:
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def look() -> None:
        with contextlib.suppress(OSError):  # how the end of a terminal shows
            while piece := os.read(ours, 65536):
                shown.append(piece)

    looking = threading.Thread(target=look)
    looking.start()
    command = [sys.executable, "-m", "convkit", "tune", "--shapes", shapes, "--threads", "1", "--per-shape", "20ms"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        assert process.stdout is not None
        told = [json.loads(line) for line in process.stdout.read().splitlines()]
    looking.join()
    os.close(ours)
    assert process.returncode == 0
    assert [line.get("outcome") for line in told] == ["measured", "measured", None]
    assert b"left:" in b"".join(shown)
    assert b"outcome" not in b"".join(shown)


@pytest.mark.usefixtures("database")
def test_calibrate_and_report_tell_machines() -> None:
    (found,) = lines("calibrate", "--budget", "200ms", "--json")
    assert found["constants"]["dram"] > 0  # type: ignore[index]
    tune_problem(PROBLEM, 1, budget=0.05)
    (found,) = lines("report", "--json")
    assert found["measured"] == 1
    assert found["regrets"][0]["problem"] == str(PROBLEM)  # type: ignore[index]
    run("tune", "--network", "mnist_cnn", "--threads", "1", "--layout", "NCHW", "--per-shape", "20ms")
    (found,) = lines("report", "--network", "mnist_cnn", "--threads", "1", "--layout", "NCHW", "--json")
    assert [layer["name"] for layer in found["networks"][0]["layers"]] == ["conv1", "conv2"]  # type: ignore[index]


@pytest.mark.usefixtures("database")
def test_what_takes_long_says_so_without_a_terminal(shapes: str) -> None:
    told = run("calibrate", "--budget", "200ms")
    assert "FMA peak" in told.splitlines()[0]
    assert "bandwidth of l2" in told
    told = run("bench", "--shapes", shapes, "--threads", "1", "--no-tune", "--seconds", "0")
    assert "shapes.txt line 1, 1 thread: convkit NCHW" in told
    assert "shapes.txt line 2, 1 thread: convkit NCHW" in told

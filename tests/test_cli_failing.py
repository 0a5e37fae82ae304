"""What goes wrong at the command line: one sentence, exit status 2, nothing half written, and never in silence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_cli import run

import convkit
from convkit.commands import arguments
from convkit.problem import Problem
from convkit.tuner import tune_problem
from convkit.tuner.evidence.database import Database

PROBLEM = Problem(n=1, c=8, h=10, w=10, o=16, kh=3, kw=3)
LINE = "1x8x10x10 16x8x3x3"
ROOT = Path(convkit.__file__).parents[1]


def failed(*words: str) -> str:
    """Run a command that must fail; what it said, in one line and without the frame around it."""
    told = " ".join(run(*words, code=2).replace("│", " ").split())
    assert "Error" in told
    assert "Traceback" not in told
    return told


def process(*words: str, **options: Any) -> Any:
    """Run a command as a process of its own."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "check": False, "timeout": 300, **options}
    return subprocess.run([sys.executable, "-m", "convkit", *words], env=environment, **options)


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    """A file of one small shape."""
    path = tmp_path / "shapes.txt"
    path.write_text(f"{LINE}\n")
    return str(path)


@pytest.fixture
def measured(database: Path) -> Path:
    """A database with one measured problem."""
    tune_problem(PROBLEM, 1, budget=0.05)
    return database


# What was ignored in silence


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (("explain", "vgg19", "conv3_1", "--stride", "2"), "--stride"),
        (("explain", "vgg19", "conv3_1", "--padding", "0", "--groups", "1"), "--padding, --groups"),
        (("explain", str(PROBLEM), "--layout", "NHWC", "--batch", "4"), "--layout, --batch"),
        (("explain", str(PROBLEM), "--op", "weight"), "--op"),
        (("explain", *LINE.split(), "--batch", "4"), "--batch"),
        (("explain", *LINE.split(), "--op", "input", "--activation", "relu"), "--activation"),
        (("tune", "--shapes", "SHAPES", "--batch", "4", "--dtype", "float64"), "--batch, --dtype"),
        (("tune", "--stale", "--threads", "2"), "--threads"),
        (("tune", "--network", "vgg19", "--op", "weight", "--weights", "cold"), "--weights"),
        (("tune", "--shapes", "SHAPES", "--dask", "tcp://127.0.0.1:1", "--budget", "1s"), "--budget"),
        (("report", "--batch", "4"), "--batch"),
    ],
)
def test_options_that_would_change_nothing_are_refused(words: tuple[str, ...], idle: str, shapes: str) -> None:
    assert f"leave {idle} out" in failed(*(shapes if word == "SHAPES" else word for word in words))


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "words",
    [
        ("explain", "0x8x10x10", "16x8x3x3"),
        ("explain", "1x8x10x10", "16x8x3x3", "--batch", "0"),
        ("explain", "vgg19", "conv3_1", "--batch", "0"),
        ("explain", str(PROBLEM.replace(n=0))),
        ("tune", "--network", "mnist_cnn", "--batch", "0"),
        ("tune", "--network", "mnist_cnn", "--batch", "99999999999"),
        ("bench", "--network", "mnist_cnn", "--batch", "0"),
    ],
)
def test_a_batch_of_nothing_or_of_everything_is_refused(words: tuple[str, ...]) -> None:
    failed(*words)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("command", ["tune", "bench", "explain", "report"])
def test_a_team_that_no_call_gets_is_refused(command: str, shapes: str) -> None:
    work = {
        "explain": LINE.split(),
        "report": ["--network", "mnist_cnn"],
    }.get(command, ["--shapes", shapes])
    assert "a call that asks for 99999 threads gets" in failed(command, *work, "--threads", "99999")


@pytest.mark.usefixtures("measured")
def test_a_database_to_compare_with_must_be_one(tmp_path: Path, shapes: str) -> None:
    assert "does not exist" in failed("report", "--against", str(tmp_path / "TYPO"))
    assert "is a directory" in failed("report", "--against", str(tmp_path))
    assert "is not a tuning database" in failed("report", "--against", shapes)
    assert "is not a tuning database" in failed("report", "--network", "mnist_cnn", "--against", shapes)


def test_databases_that_share_nothing_do_not_agree(measured: Path, tmp_path: Path) -> None:
    other, odd = tmp_path / "other", tmp_path / "odd"
    Database(other).merge(measured)
    assert "no problem was measured in both" not in run("report", "--against", str(other))
    run("db", "prune", "--kernel", "f32")
    assert "no problem was measured in both" in failed("report", "--against", str(other))
    shutil.copy(other, odd)
    assert "none of these layers" in failed("report", "--network", "mnist_cnn", "--against", str(odd))


def test_the_layers_of_a_network_can_be_compared(database: Path, tmp_path: Path) -> None:
    run("tune", "--network", "mnist_cnn", "--threads", "1", "--layout", "NCHW", "--per-shape", "50ms")
    tune_problem(PROBLEM, 1, budget=0.05)
    other = tmp_path / "other"
    Database(other).merge(database)
    told = run("report", "--network", "mnist_cnn", "--threads", "1", "--layout", "NCHW", "--against", str(other))
    assert "over the selector" in told
    assert "2 problems: 2 choices equal" in told
    assert "3 problems: 3 choices equal" in run("report", "--against", str(other))


# Files of shapes


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("packed=false", {"packed": False}),
        ("packed=0 bias=no residual=off", {"packed": False}),
        ("packed=yes bias=true", {"bias": True}),
        ("padding=1,2", {"pad_top": 1, "pad_bottom": 1, "pad_left": 2, "pad_right": 2}),
        ("padding=0,1,2,3", {"pad_bottom": 1, "pad_left": 2, "pad_right": 3}),
        ("padding=same dilation=2,1", {"pad_top": 2, "pad_bottom": 2, "pad_left": 1, "pad_right": 1, "dilation_h": 2}),
        ("stride=2,1 layout=NCHW dtype=float64", {"stride_h": 2, "dtype": "float64"}),
        ("activation=relu", {"epilogue": "clamp"}),
        ("activation=none # a café", {}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_line_says_what_it_means(tmp_path: Path, words: str, fields: dict[str, Any], encoding: str) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text(f"{LINE} {words}\r\n", encoding=encoding)
    assert arguments.shapes_file(path) == [PROBLEM.replace(**fields)]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"{LINE} packed=maybe", "packed: 'maybe' is not one of"),
        (f"{LINE} padding=1,2,3", "padding: '1,2,3' is neither"),
        (f"{LINE} stride=0", "stride must be at least 1"),
        (f"{LINE} colour=red", "'colour=red' is not of the form"),
        (f"{LINE} stride=1 stride=2", "stride is given twice"),
        (f"{LINE} groups=3", "groups=3"),
        ("0x8x10x10 16x8x3x3", "at least 1"),
        (str(PROBLEM.replace(n=0)), "a batch of 0"),
        ("99999999999x8x10x10 16x8x3x3", "99999999999x8x10x10"),
    ],
)
def test_a_line_that_means_nothing_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text(f"{LINE}\n{line}\n")
    for command in ("tune", "bench"):
        told = failed(command, "--shapes", str(path))
        assert "line 2" in told
        assert why in told


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "words", [("tune", "--shapes"), ("bench", "--shapes"), ("tune", "--from-misses"), ("db", "import"), ("db", "merge")]
)
def test_a_folder_is_no_file_to_read(words: tuple[str, ...], tmp_path: Path) -> None:
    assert "is a directory" in failed(*words, str(tmp_path)).lower()


@pytest.mark.usefixtures("database")
def test_a_file_without_shapes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text("# nothing\n")
    assert "has no shapes" in failed("tune", "--shapes", str(path))


# Files that are written


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("place", "why"),
    [("missing/file", "No such file or directory"), ("", "Is a directory"), ("/dev/full", "No space left on device")],
)
def test_an_export_is_whole_or_not_there(place: str, why: str, tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    target = folder / place
    told = failed("db", "export", str(target))
    assert f"{target}: {why}" in told
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("measured")
def test_a_failing_export_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "exports" / "trials.jsonl"
    target.parent.mkdir()
    run("db", "export", str(target), "--contended")
    target.chmod(0o640)
    before = target.read_text()
    assert len(before.splitlines()) > 2

    def full(self: Database, stream: Any, **keywords: Any) -> Any:
        stream.write("half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Database, "export", full)
        assert "No space left on device" in failed("db", "export", str(target))
    assert target.read_text() == before
    run("db", "export", str(target), "--contended")
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in target.parent.iterdir()] == ["trials.jsonl"]


@pytest.mark.usefixtures("measured")
def test_a_minus_is_standard_output_and_input(tmp_path: Path) -> None:
    told = process("db", "export", "-", "--contended", cwd=tmp_path)
    assert told.returncode == 0
    assert not (tmp_path / "-").exists()
    assert json.loads(told.stdout.splitlines()[0])["convkit"] == "trials"
    exported = tmp_path / "trials.jsonl"
    exported.write_bytes(told.stdout)
    with exported.open("rb") as stream:
        found = process("db", "import", "-", stdin=stream, env={"CONVKIT_DB": str(tmp_path / "other")})
    assert b"0 sessions" not in found.stdout
    assert Database(tmp_path / "other").counts()["trials"] > 0


@pytest.mark.usefixtures("measured")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk is tried with /dev/full")
@pytest.mark.parametrize(
    "words", [("db", "export"), ("db", "show"), ("info",), ("db", "path"), ("explain", str(PROBLEM))]
)
def test_a_full_disk_behind_standard_output(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = process(*words, stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode().strip() == "Error: No space left on device"


@pytest.mark.usefixtures("measured")
def test_a_page_is_tried_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the page needs it")
    monkeypatch.setattr("convkit.report.summary.summarise", lambda **_: pytest.fail("it began"))
    for target, why in ((tmp_path / "missing" / "page.html", "No such file"), (tmp_path, "Is a directory")):
        assert f"{target}: {why}" in failed("report", "--html", str(target))


@pytest.mark.usefixtures("measured")
def test_an_unwritable_file_is_tried_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the page needs it")
    target = tmp_path / "page.html"
    target.write_text("old")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert f"{target}: Permission denied" in failed("report", "--html", str(target))
    assert target.read_text() == "old"


def test_a_package_file_is_whole_or_not_there(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.tuner.evidence.shipped.DIRECTORY", str(tmp_path / "data"))
    assert "No such file or directory" in failed("db", "export", "--package")
    (tmp_path / "data").mkdir()
    run("db", "export", "--package")
    assert all(not path.name.startswith(".") for path in (tmp_path / "data").iterdir())


def test_merging_with_a_wrong_file_merges_none(measured: Path, tmp_path: Path, shapes: str) -> None:
    other = tmp_path / "other"
    Database(other).merge(measured)
    run("db", "prune", "--kernel", "f32")
    assert "is not a tuning database" in failed("db", "merge", str(other), shapes)
    assert Database(measured).counts()["trials"] == 0


@pytest.mark.usefixtures("database")
def test_the_demo_tries_its_folder_and_its_photograph_before_it_tunes(
    tmp_path: Path, shapes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the demo draws")
    monkeypatch.setattr("convkit.commands.tune.tune_all", lambda *_, **__: pytest.fail("it began"))
    assert "File exists" in failed("demo", "--output", shapes)
    assert "No such file or directory" in failed("demo", "--output", "/proc/nowhere")
    assert "is a directory" in failed("demo", "--image", str(tmp_path))
    assert "cannot identify image file" in failed("demo", "--image", shapes, "--output", str(tmp_path / "demo"))
    assert "99999 threads" in failed("demo", "--threads", "99999")
    assert "budget" in failed("demo", "--budget", "soon")
    monkeypatch.setattr("convkit.commands.outputs.os.replace", lambda *_: _refuse(tmp_path))
    folder = tmp_path / "pictures"
    assert "Permission denied" in failed("demo", "--output", str(folder))
    assert list(folder.iterdir()) == []


def _refuse(path: Path) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_an_import_that_fails_makes_no_database(database: Path, tmp_path: Path, shapes: str) -> None:
    assert "not an export" in failed("db", "import", shapes)
    assert "No such file" in failed("db", "import", str(tmp_path / "missing"))
    broken = tmp_path / "broken"
    broken.write_bytes(b"\xff\xfe")
    assert "not an export" in failed("db", "import", str(broken))
    assert not database.exists()


def test_a_frozen_copy_is_whole_or_not_there(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Database, other: Path) -> Any:
        self.path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Database, "merge", full)
    assert "No space left on device" in failed("db", "freeze", str(tmp_path / "frozen"))
    assert not (tmp_path / "frozen").exists()


# Measurements that nobody would remember


@pytest.mark.parametrize("place", [":memory:", "/proc/nowhere/trials.sqlite"])
def test_tuning_that_would_be_forgotten_does_not_begin(
    place: str, database: Path, shapes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVKIT_DB", place)
    monkeypatch.setattr("convkit.tuner.tune_problem", lambda *_, **__: pytest.fail("it began"))
    failed("tune", "--shapes", shapes)


def test_a_calibration_that_cannot_be_kept_does_not_begin(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.calibration.calibrate", lambda *_, **__: pytest.fail("it began"))
    monkeypatch.setenv("CONVKIT_DB", "/proc/nowhere/trials.sqlite")
    failed("calibrate")
    monkeypatch.setenv("CONVKIT_DB", str(database))
    database.with_suffix(".calibration.json").mkdir()
    assert "Is a directory" in failed("calibrate")
    for budget in ("0", "nan", "50ms", "inf"):
        failed("calibrate", "--budget", budget)


# Variables, versions, encodings


@pytest.mark.parametrize("variable", ["CONVKIT_ISA", "CONVKIT_NUM_THREADS", "CONVKIT_MODE"])
def test_a_wrong_variable_is_named(variable: str) -> None:
    done = process("info", env={variable: "nonsense"})
    assert done.returncode == 2
    assert variable in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_tilde_in_the_path_is_the_home(tmp_path: Path) -> None:
    for entry, expected in (("~/trials.sqlite", tmp_path / "trials.sqlite"), (":memory:", "none: CONVKIT_DB asks")):
        done = process("db", "path", env={"HOME": str(tmp_path), "CONVKIT_DB": f"{entry}:~/site.sqlite"})
        first, second = done.stdout.decode().splitlines()
        assert first.startswith(str(expected))
        assert second == f"site: {tmp_path / 'site.sqlite'}"
    done = process("db", "path", env={"CONVKIT_DB": "~no-such-user/trials.sqlite"})
    assert b"home directory that is not known" in done.stdout


def test_version_and_short_help() -> None:
    assert run("--version") == f"convkit {convkit.__version__}\n"
    for words in ((), ("tune",), ("db",), ("db", "prune")):
        assert run(*words, "-h") == run(*words, "--help")


@pytest.mark.usefixtures("measured")
def test_every_text_can_be_spelled_in_ascii() -> None:
    for words in (("db", "show"), ("explain", str(PROBLEM)), ("report",), ("--help",), ("explain", "vgg9", "conv1")):
        done = process(*words, env={"PYTHONIOENCODING": "ascii"})
        assert done.returncode == (2 if "vgg9" in words else 0), done.stderr
        assert b"Traceback" not in done.stderr
        assert (done.stdout + done.stderr).isascii()
    assert b" us " in process("db", "show", env={"PYTHONIOENCODING": "ascii"}).stdout


# Pruning


def test_pruning_joins_its_options_with_and(measured: Path) -> None:
    whole = Database(measured).counts()
    before = measured.read_bytes()
    kernels = {trial.kernel for trial in Database(measured).trials()}
    kernel = sorted(kernels)[0]
    count = sum(kernel in trial.kernel for trial in Database(measured).trials())
    assert 0 < count < whole["trials"]
    told = run("db", "prune", "--kernel", kernel, "--machine", "no such machine", "--dry-run")
    assert f"of a kernel with '{kernel}' {count} of {whole['trials']} trials" in " ".join(told.split())
    assert f"would delete 0 of {whole['trials']} trials and 0 of {whole['sessions']} sessions" in told
    assert "deleted 0 of" in run("db", "prune", "--kernel", kernel, "--machine", "no such machine")
    assert f"would delete {count} of" in run("db", "prune", "--kernel", kernel, "--dry-run")
    assert measured.read_bytes() == before
    assert f"deleted {count} of {whole['trials']} trials and 0 of" in run("db", "prune", "--kernel", kernel)
    assert Database(measured).counts()["trials"] == whole["trials"] - count
    for words in (("--older", "x"), ("--older", "100000000"), ("--dry-run",)):
        failed("db", "prune", *words)
    assert "would delete 0 of" in run("db", "prune", "--older", "99999", "--dry-run")

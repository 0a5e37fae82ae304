"""Help of every command wherever it is printed: a pipe, 40 columns, no colour, no terminal, an ASCII locale."""

from __future__ import annotations

import importlib
import inspect
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shims import fresh

from convkit.commands import SUMMARIES, app

COMMANDS = [(), *((name,) for name in SUMMARIES), ("db", "prune"), ("db", "shipped")]

ATTRIBUTE = re.compile(r"\x1b\[[0-9;]*m")
COLOURED = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3|4|9)[0-9]")  # bold and dim are no colours


def helped(*words: str, **environment: str) -> bytes:
    """What a process without a terminal prints."""
    done = subprocess.run(
        [sys.executable, "-m", "convkit", *words, "--help"],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def in_terminal(*words: str, columns: int, **environment: str) -> bytes:
    """What a terminal of this width gets to show."""
    ours, theirs = pty.openpty()
    environment |= {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "convkit", *words], env=os.environ | environment, stdin=theirs, stdout=theirs,
        stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            part = b""
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=300) == 0
    return shown


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "convkit")
def test_help_is_there_in_a_pipe_and_in_ascii(words: tuple[str, ...]) -> None:
    told = helped(*words, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", NO_COLOR="1")
    assert told.isascii()
    assert b"\x1b" not in told
    assert b"Usage:" in told
    assert b"--help" in told


def test_help_fits_a_narrow_terminal() -> None:
    for words in ((), ("db", "prune")):
        shown = in_terminal(*words, "--help", columns=40, NO_COLOR="1").decode()
        assert "Usage:" in shown
        assert not COLOURED.search(shown)
        assert max(map(len, ATTRIBUTE.sub("", shown).splitlines())) <= 40


def test_a_report_fits_a_narrow_terminal(tmp_path: Path) -> None:
    for words in (("info",), ("db", "shipped"), ("db", "path")):
        shown = in_terminal(*words, columns=40, NO_COLOR="1", CONVKIT_DB=str(tmp_path / "trials")).decode()
        assert "Traceback" not in shown
        assert not COLOURED.search(shown)


def test_whoever_reads_no_further_stops_it_quietly() -> None:
    command = f"{sys.executable} -m convkit info --kernels | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=300, check=False)
    assert done.stdout.startswith(b"convkit")
    assert b"Traceback" not in done.stderr


def test_the_list_says_what_each_command_says_of_itself() -> None:
    for name, summary in SUMMARIES.items():
        module = importlib.import_module(f"convkit.commands.{name}")
        own = module.app.info.help if name == "db" else inspect.getdoc(getattr(module, name))
        assert own is not None
        assert summary == own.partition("\n")[0]


def test_help_imports_no_other_command() -> None:
    script = """
        import sys
        from convkit.commands import SUMMARIES, app
        words = sys.argv[1:]
        try:
            app([*words, "--help"])
        except SystemExit:
            pass
        loaded = {name for name in SUMMARIES if f"convkit.commands.{name}" in sys.modules}
        assert loaded <= {*words[:1], *(["tune"] if words[:1] == ["explain"] else [])}, loaded
        for heavy in ("matplotlib", "sqlite3", "rich.progress", "convkit.contest.layers", "convkit.tuner.evidence"):
            assert heavy not in sys.modules, heavy
    """
    for words in ((), ("info",), ("bench",), ("demo",), ("tune",), ("db",)):
        fresh(script, *words)


def test_a_command_that_is_not_there_is_named() -> None:
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["tunee"])
    assert result.exit_code == 2
    assert "tunee" in result.output

"""Modes against the real core: what a call may learn, what it may write, and that no database fails it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_database import UNUSABLE, filled, held

import convkit as ck
from convkit import _core
from convkit.problem import of_call
from convkit.tuner import NotMeasuredError, choose, explain_problem, is_complete, tune_problem
from convkit.tuner.evidence.database import Database
from convkit.tuner.modes import MODES, parse_budget, settings

X = np.random.default_rng(0).standard_normal((1, 4, 10, 10), np.float32)
W = np.random.default_rng(1).standard_normal((6, 4, 3, 3), np.float32)
PROBLEM = of_call(X, W, padding=1)[0]


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh process: its standard output, and its standard error, where the log goes."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


CONVOLVE = """
    import numpy as np, convkit as ck
    x = np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8) % 7
    w = np.arange(5 * 3 * 3 * 3, dtype=np.float32).reshape(5, 3, 3, 3) % 5
    y = ck.conv2d(x, w, padding=1)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    reference = sum(
        np.einsum("nchw,oc->nohw", padded[:, :, i : i + 8, j : j + 8], w[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_allclose(y, reference, rtol=1e-4)
"""


@pytest.mark.parametrize("lock", ["exclusive", "directory"])
def test_a_locked_database_holds_no_convolution(tmp_path: Path, lock: str) -> None:
    path = filled(tmp_path / "trials").path
    code = textwrap.dedent(CONVOLVE) + textwrap.dedent("""
        for mode in ("replay", "off", "online", "tune"):
            for height in range(3, 9):
                with ck.tuning(mode=mode, budget="10ms"):
                    ck.conv2d(x[:, :, :height], w)
        best = ck.BestOf("either", [("one", lambda a: a), ("other", lambda a: a + 0)], store=True)
        for _ in range(40):
            best(x)
        assert best.settled(x)
    """)
    with held(path, lock):
        result = run(code, CONVKIT_DB=str(path))
    assert result.returncode == 0, result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2
    assert "locked by another process" in result.stderr


def test_replay_times_nothing_and_makes_no_file(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "Runner", None)
    ck.conv2d(X, W, padding=1)
    explain_problem(PROBLEM, 1)
    with ck.tuning(mode="off"):
        ck.conv2d(X, W, padding=1)
    with ck.tuning(mode="require"), pytest.raises(NotMeasuredError, match="convkit tune"):
        ck.conv2d(X, W, padding=1)
    assert not database.exists()


def test_tune_measures_once_and_another_process_replays_it(database: Path) -> None:
    with ck.tuning(mode="tune", budget="300ms"):
        first = ck.conv2d(X, W, padding=1, num_threads=1)
        ck.reload()
        ck.conv2d(X, W, padding=1, num_threads=1)
    assert database.exists()
    code = f"""
        import convkit as ck, numpy as np
        from convkit.problem import Problem
        from convkit.tuner import choose
        from convkit import _core
        _core.Runner = None
        choice = choose(Problem.parse({str(PROBLEM)!r}), 1)
        print(choice.tier, choice.kernel)
    """
    result = run(code)
    assert result.stdout.split() == ["user", choose(PROBLEM, 1).kernel], result.stderr
    with ck.tuning(mode="require"):
        np.testing.assert_array_equal(ck.conv2d(X, W, padding=1, num_threads=1), first)


def test_tune_problem_stores_and_completes(database: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    choice = tune_problem(PROBLEM, 1, budget=0.5, progress=lambda *step: steps.append(step))
    assert choice.tier == "user"
    assert choice.measured
    assert steps[-1][0] == sum(row.measured for row in explain_problem(PROBLEM, 1).rows)
    assert {row.verdict for row in explain_problem(PROBLEM, 1).rows if row.verdict == "chosen"}
    assert is_complete(PROBLEM, 1) is not choice.stale
    assert database.exists()
    np.testing.assert_array_equal(
        ck.conv2d(X, W, padding=1, num_threads=1), ck.conv2d(X, W, padding=1, num_threads=1, algorithm=choice)
    )


def test_killed_in_a_race_only_that_problem_is_lost(database: Path) -> None:
    code = f"""
        from convkit.problem import Problem
        from convkit.tuner import tune_problem
        problem = Problem.parse({str(PROBLEM)!r})
        tune_problem(problem, 1, budget=0.05)
        print("first", flush=True)
        tune_problem(problem.replace(h=12), 1, budget=100, progress=lambda *_: print("racing", flush=True))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(6)] == ["first\n", *["racing\n"] * 5]
        process.kill()
    stored = Database(database)
    assert stored.verify() == []
    assert {trial.problem for trial in stored.trials()} == {str(PROBLEM)}
    assert stored.counts()["sessions"] == 1
    assert choose(PROBLEM, 1).tier == "user"


def test_what_a_budget_leaves_out_is_replayed(database: Path) -> None:
    with ck.tuning(mode="tune", budget=0):
        ck.conv2d(X, W, padding=1)
    assert not database.exists()


def test_settings_nest_and_follow_the_context(database: Path) -> None:
    seen: list[str] = []
    with ck.tuning(mode="off", accuracy="strict"):
        with ck.tuning(budget="2s"):
            assert (settings().mode, settings().accuracy, settings().budget) == ("off", "strict", 2.0)
            thread = threading.Thread(target=lambda: seen.append(settings().mode))
            thread.start()
            thread.join()
        assert settings().budget is None
    assert settings().mode == "replay"
    # Python's own rule: a thread may begin with the context that it was started in (free-threaded 3.14).
    assert seen == ["off" if getattr(sys.flags, "thread_inherit_context", False) else "replay"]


def test_accuracy_of_a_block_reaches_the_choice(database: Path) -> None:
    kernels = {kernel["index"]: kernel for kernel in _core.kernels()}
    from convkit.tuner.modes import chooser

    for accuracy in ("strict", "fast"):
        with ck.tuning(accuracy=accuracy):
            index, _, settle, *_ = chooser(PROBLEM.replace(h=64, w=64, c=64, o=64).to_core(), 1, None, None, None)
        assert settle is None
        assert kernels[index]["direct"] or accuracy == "fast"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("CONVKIT_MODE", "fastest", "replay, online, tune"),
        ("CONVKIT_ACCURACY", "-1", "strict, standard, fast"),
        ("CONVKIT_VERBOSE", "yes", "0, 1, 2"),
    ],
)
def test_bad_environment_raises_at_first_use(name: str, value: str, allowed: str) -> None:
    result = run("import convkit as ck; print('imported')\n" + textwrap.dedent(CONVOLVE), **{name: value})
    assert result.returncode == 1
    assert result.stdout == "imported\n"
    assert allowed in result.stderr
    assert name in result.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("10m", 600), ("1h", 3600), (2, 2), ("7", 7)]
)
def test_budgets(text: Any, seconds: float) -> None:
    assert parse_budget(text) == seconds


def test_bad_settings_name_the_allowed() -> None:
    with pytest.raises(ValueError, match="replay, online, tune, require, off"):
        ck.tuning(mode="fast")
    with pytest.raises(ValueError, match="budget"):
        ck.tuning(budget="soon")
    with pytest.raises(ValueError, match="strict, standard, fast"):
        ck.tuning(accuracy="good")


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("mode", ["replay", "tune"])
def test_no_file_fails_a_convolution(tmp_path: Path, kind: str, mode: str) -> None:
    path = tmp_path / "trials"
    UNUSABLE[kind](path)
    result = run(CONVOLVE, CONVKIT_DB=str(path), CONVKIT_MODE=mode)
    assert result.returncode == 0, result.stderr
    assert len(result.stderr.strip().splitlines()) <= (1 if mode == "replay" else 2)


def test_no_home_fails_a_convolution(tmp_path: Path) -> None:
    for home in ("/nonexistent", "relative", "/proc"):
        result = run(CONVOLVE, HOME=home, XDG_DATA_HOME="", CONVKIT_MODE="tune")
        assert result.returncode == 0, result.stderr
        assert len(result.stderr.strip().splitlines()) <= 1


HOMELESS = """
    import os, sys
    for name in ("HOME", "XDG_DATA_HOME", "CONVKIT_DB"):
        os.environ.pop(name, None)
    if sys.argv[1:] == ["setuid"]:
        import convkit as ck, numpy as np, numpy.testing, logging, io, contextlib
        # The interpreter's own files may be this user's alone: what is needed is imported before.
        with ck.tuning(mode="tune", budget=0.01):
            ck.conv2d(np.ones((1, 2, 9, 9)), np.ones((3, 2, 3, 3)))
        with ck.tuning(mode="online"):
            ck.conv2d(np.ones((1, 2, 9, 9)), np.ones((3, 2, 3, 3)))
        with contextlib.redirect_stdout(io.StringIO()):
            ck.show_config()
        os.setuid(54321)
        ck.reload()
    else:
        os.getuid = lambda: 54321
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["setuid", "unknown"])
def test_a_user_without_home_or_name_convolves(mode: str, how: str) -> None:
    if how == "setuid" and os.geteuid():
        pytest.skip("becoming another user needs root")
    code = textwrap.dedent(HOMELESS) + textwrap.dedent(CONVOLVE if mode != "require" else "")
    result = run(code + "\nck.show_config()" * (mode != "require"), how, CONVKIT_MODE=mode)
    assert result.returncode == 0, result.stderr
    notices = result.stderr.strip().splitlines()
    assert len(notices) == (mode == "tune")
    assert all("memory only" in line and "set HOME" in line for line in notices)
    assert mode == "require" or "there is no absolute home directory" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["db", "path"], 0, "set HOME"),
        (["db", "ls"], 2, "set HOME"),
        (["info"], 0, "set HOME"),
        (["explain", "forward-float32-NCHW-n1c4h9w9-o4k3x3-s1x1-p0,0,0,0-d1x1-g1-none-cold"], 0, "memory only"),
    ],
)
def test_commands_of_a_user_without_home_say_what_to_do(arguments: list[str], status: int, text: str) -> None:
    pytest.importorskip("typer")
    code = (
        textwrap.dedent(HOMELESS)
        + f"""
sys.argv[1:] = {arguments}
from convkit.cli import main
main()
"""
    )
    result = run(code, "unknown")
    assert result.returncode == status, result.stdout + result.stderr
    assert text in " ".join((result.stdout + result.stderr).split())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_read_only_mount_and_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    try:
        path = filled(mount / "trials", 1).path
        with contextlib.suppress(OSError), open(mount / "filler", "wb", buffering=0) as stream:
            while stream.write(bytes(4096)):
                pass
        full = run(CONVOLVE, CONVKIT_DB=str(path), CONVKIT_MODE="tune")
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        sealed = run(CONVOLVE, CONVKIT_DB=str(path), CONVKIT_MODE="tune")
    finally:
        subprocess.run(["umount", mount], check=True)
    for result in (full, sealed):
        assert result.returncode == 0, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert "memory only" in result.stderr


def test_import_and_replay_touch_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    lazy = ("sqlite3", "logging", "platformdirs", "convkit.tuner.choosing.selector", "statistics")
    code = f"import sys, convkit\nassert not {set(lazy)} & set(sys.modules)\n"
    for mode in ("replay", "off"):
        result = run(
            code + textwrap.dedent(CONVOLVE), HOME=str(home), XDG_DATA_HOME=str(home / "data"), CONVKIT_MODE=mode
        )
        assert result.returncode == 0, result.stderr
    assert list(home.iterdir()) == []


def test_show_config_names_what_a_report_needs(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ck.show_config()
    text = capsys.readouterr().out
    for word in ("convkit", "isa", "machine class", "threads", "mode", "user database", "kernels", str(database)):
        assert word in text


def test_children_of_a_fork_choose_and_write(database: Path) -> None:
    code = """
        import os, convkit as ck
        from convkit.problem import Problem
        from convkit.tuner import tune_problem, choose
        problem = Problem(n=1, c=4, h=10, w=10, o=6, kh=3, kw=3)
        tune_problem(problem, 1, budget=0.1)
        child = os.fork()
        if not child:
            assert choose(problem, 1).tier == "user"
            tune_problem(problem.replace(h=12), 1, budget=0.1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ck.reload()
        assert choose(problem.replace(h=12), 1).tier == "user"
    """
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_verbosity_tells_choices(tmp_path: Path) -> None:
    lines = [
        len(run(CONVOLVE, CONVKIT_VERBOSE=level, CONVKIT_DB=str(tmp_path / "none")).stderr.splitlines())
        for level in ("0", "1", "2")
    ]
    assert lines[:2] == [0, 1]
    assert lines[2] > 5


def test_site_databases_and_frozen_choices(tmp_path: Path, database: Path) -> None:
    choice = tune_problem(PROBLEM, 1, budget=0.2)
    frozen = tmp_path / "frozen.sqlite"
    from convkit.tuner.evidence.database import open_user

    open_user().freeze(frozen)
    code = f"""
        from convkit.problem import Problem
        from convkit.tuner import choose, tune_problem
        problem = Problem.parse({str(PROBLEM)!r})
        first = choose(problem, 1)
        tune_problem(problem.replace(h=12), 1, budget=0.05)
        print(first.tier, first.kernel, ",".join(map(str, first.parameters)))
    """
    before = frozen.read_bytes()
    for paths, tier in ((f":memory:{os.pathsep}{frozen}", "site"), (f"{tmp_path}/new{os.pathsep}{frozen}", "site")):
        result = run(code, CONVKIT_DB=paths)
        assert result.stdout.split()[:2] == [tier, choice.kernel], result.stderr
    assert (tmp_path / "new").exists()
    assert frozen.read_bytes() == before


def test_a_child_finds_no_lock_held(database: Path) -> None:
    code = """
        import os, threading, signal, warnings
        warnings.simplefilter("ignore")  # newer Pythons warn about forking with threads, which is the point here
        from convkit.problem import Problem
        from convkit.tuner import tune_problem, choose
        problem = Problem(n=1, c=4, h=10, w=10, o=6, kh=3, kw=3)
        held, release = threading.Event(), threading.Event()
        def hold():
            from convkit.tuner.measuring.tune import _racing
            with _racing:
                held.set()
                release.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if not child:
            signal.alarm(30)
            tune_problem(problem, 1, budget=0.05)
            os._exit(0 if choose(problem, 1).measured else 1)
        release.set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_explain_knows_the_gradients() -> None:
    x, w = np.ones((1, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    for op in ("forward", "input_grad", "weight_grad"):
        by_array = ck.explain(x, w, padding=1, op=op, packed=True)
        by_shape = ck.explain(x.shape, w.shape, padding=1, op=op, packed=True, dtype=np.float32)
        assert by_array.problem == by_shape.problem
        assert by_array.problem.op == op
        assert by_array.problem.packed is (op != "weight_grad")
        assert by_array.rows
    with pytest.raises(ValueError, match="op must be one of"):
        ck.explain(x, w, op="backward")
    with pytest.raises(ValueError, match="bias must be None"):
        ck.explain(x, w, np.ones(4, np.float32), op="input_grad")

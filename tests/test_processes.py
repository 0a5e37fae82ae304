"""Forked and spawned processes. Each test has a process of its own: a fork is not undone."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from calls import normal

import convkit as ck

PREAMBLE = """
import os, sys
import numpy as np
import convkit as ck
from convkit import _core

def child_says(work):
    # The exit status of a child that runs `work`; a hang is killed by an alarm and counts as a failure.
    import signal
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

x = np.random.default_rng(0).standard_normal((2, 16, 40, 40)).astype(np.float32)
w = np.random.default_rng(1).standard_normal((24, 16, 3, 3)).astype(np.float32)
"""


def run(script: str, *arguments: str) -> str:
    """Run a script in a fresh interpreter; its standard output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_child_forked_after_a_team_calls() -> None:
    run("""
        conv = ck.Conv2d(w, num_threads=2)
        y, z = ck.conv2d(x, w, num_threads=2), conv(x)
        assert _core.counters()["teams_started"] > 0
        def work():
            again = ck.Conv2d(w)(x)
            return (np.array_equal(ck.conv2d(x, w, num_threads=2), y) and np.array_equal(conv(x), z)
                    and again.shape == y.shape)
        assert child_says(work) == 0
        assert np.array_equal(conv(x), z)
    """)


def test_a_child_forked_before_any_call_starts_teams() -> None:
    run("""
        def work():
            ck.conv2d(x, w, num_threads=2)
            return _core.counters()["teams_started"] > 0
        assert child_says(work) == 0
    """)


def test_children_forked_while_other_threads_call() -> None:
    run("""
        import threading
        y = ck.conv2d(x, w, num_threads=2)
        stop = threading.Event()
        conv = ck.Conv2d(w)
        def call():
            while not stop.is_set():
                ck.conv2d(x, w, num_threads=2)
                conv(x)
                ck.clear_workspaces()
        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 frowns upon forks with threads
        def work():
            return np.array_equal(ck.conv2d(x, w), y) and conv(x).shape == y.shape
        statuses = [child_says(work) for _ in range(8)]
        stop.set()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 8, statuses
    """)


def test_a_child_keeps_no_free_memory_of_its_parent() -> None:
    run("""
        big = np.ones((1, 1, 2048, 2112), np.float32)
        y = ck.conv2d(big, np.ones((2, 1, 1, 1), np.float32))
        del y
        counters = _core.counters()
        assert counters["free_output_bytes"] > 0
        def work():
            now = _core.counters()
            return now["free_output_bytes"] == 0 and now["free_workspace_bytes"] == 0
        assert child_says(work) == 0
        assert _core.counters()["free_output_bytes"] == counters["free_output_bytes"]
    """)


def test_layers_travel_to_other_processes(tmp_path: Path) -> None:
    x, w, bias = normal(1, 3, 9, 9), normal(4, 3, 3, 3), normal(4)
    conv = ck.Conv2d(w, bias, padding=1, activation="relu", accuracy="strict")
    y = conv(x)
    with (tmp_path / "layer.pickle").open("wb") as file:
        pickle.dump((conv, x, y), file)
    run(
        """
        import pickle
        with open(sys.argv[1], "rb") as file:
            conv, x, y = pickle.load(file)
        assert np.array_equal(conv(x), y)
        with open(sys.argv[2], "wb") as file:
            pickle.dump(conv, file)
        """,
        str(tmp_path / "layer.pickle"),
        str(tmp_path / "back.pickle"),
    )
    with (tmp_path / "back.pickle").open("rb") as file:
        assert np.array_equal(pickle.load(file)(x), y)


def test_multiprocessing_pools() -> None:
    run("""
        import multiprocessing
        y = ck.conv2d(x, w, num_threads=2)
        conv = ck.Conv2d(w)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for result in pool.map(conv, [x, x, x], chunksize=1):
                assert np.allclose(result, y, atol=1e-3)
    """)


def test_importing_is_cheap_and_quiet() -> None:
    out = run("""
        heavy = {"sqlite3", "logging", "platformdirs", "typer", "rich", "matplotlib", "asyncio"}
        print(sorted(heavy & set(sys.modules)))
    """)
    assert out.strip() in ("[]", "['logging']"), out  # NumPy itself may import logging


@pytest.mark.parametrize("name", ["avx512", "avx2", "portable"])
def test_a_forced_instruction_set_answers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from convkit import _core

    if name not in _core.usable_isas():
        pytest.skip(f"this machine does not run {name}")
    monkeypatch.setenv("CONVKIT_ISA", name)
    run(
        """
        assert _core.active_isa() == sys.argv[1]
        assert ck.conv2d(x, w).shape == (2, 24, 38, 38)
        """,
        name,
    )


def test_an_unknown_instruction_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVKIT_ISA", "mmx")
    run("""
        for call in (lambda: ck.conv2d(x, w), lambda: ck.Conv2d(w)(x), _core.kernels, _core.active_isa):
            try:
                call()
            except ValueError as error:
                assert "CONVKIT_ISA" in str(error) and "avx2" in str(error), error
            else:
                raise AssertionError("not refused")
    """)


def test_results_do_not_depend_on_the_process() -> None:
    x, w = normal(2, 16, 40, 40), normal(24, 16, 3, 3)
    y = ck.conv2d(x, w)
    out = run("""
        x = np.random.default_rng([0, 2, 16, 40, 40]).standard_normal((2, 16, 40, 40)).astype(np.float32)
        w = np.random.default_rng([0, 24, 16, 3, 3]).standard_normal((24, 16, 3, 3)).astype(np.float32)
        import hashlib
        print(hashlib.sha256(ck.conv2d(x, w)).hexdigest())
    """)
    import hashlib

    assert out.strip() == hashlib.sha256(np.ascontiguousarray(y)).hexdigest()

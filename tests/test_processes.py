"""Forked and spawned processes. Each test has a process of its own: a fork is not undone."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import textwrap
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import normal
from shims import compiled, fresh, preloaded

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


def run(script: str, *arguments: str, **environment: str) -> str:
    """Run a script in a fresh interpreter; its standard output."""
    return fresh(PREAMBLE + textwrap.dedent(script), *arguments, flags=("-W", "error"), **environment)


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


SERVICE = """
import hashlib, json, os, time
import numpy as np
import convkit as ck
from convkit import _core

x = np.random.default_rng(0).standard_normal((2, 16, 40, 40)).astype(np.float32)
w = np.random.default_rng(1).standard_normal((24, 16, 3, 3)).astype(np.float32)

def answer():
    before = _core.counters()["teams_started"]
    result = hashlib.sha256(ck.conv2d(x, w, num_threads=2, algorithm="im2col")).hexdigest()
    return {"pid": os.getpid(), "result": result, "team": _core.counters()["teams_started"] - before}

at_start = answer()

def application(environ, start_response):
    time.sleep(0.05)  # meanwhile the next request goes to another worker
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([at_start, answer()]).encode()]
"""


def test_a_server_that_loads_before_it_forks(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "service.py").write_text(SERVICE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "4", "--bind"]
        server = subprocess.Popen(
            [*command, f"fd://{listening.fileno()}", "service:application"],
            cwd=tmp_path, pass_fds=(listening.fileno(),), stderr=subprocess.DEVNULL,
        )  # fmt: skip

        def ask(_: int) -> tuple[dict[str, Any], dict[str, Any]]:
            with urllib.request.urlopen(url, timeout=120) as response:
                at_start, now = json.load(response)
                return at_start, now

        try:
            workers: set[int] = set()
            with ThreadPoolExecutor(4) as clients:
                for _ in range(100):
                    for at_start, now in clients.map(ask, range(4)):
                        assert now["result"] == at_start["result"]
                        assert now["team"] == at_start["team"] == 1
                        workers.add(now["pid"])
                    if len(workers) == 4:
                        break
            assert len(workers) == 4
        finally:
            server.kill()  # its workers notice
            server.wait()


def test_memory_is_freed_without_a_lock_that_a_fork_waits_for(tmp_path: Path) -> None:
    # Here whoever unmaps a large block forks, which takes the locks of the pools.
    library = compiled(
        tmp_path,
        """
            #define _GNU_SOURCE
            #include <stddef.h>
            #include <sys/syscall.h>
            #include <sys/wait.h>
            #include <unistd.h>
            static int forks, forking;
            int count_forks(int on) { int before = forks; forking = on; forks = 0; return before; }
            int munmap(void *start, size_t size) {
              if (forking && size >= 200 << 10) {
                int status;
                forking = 0;
                pid_t child = fork();
                if (child == 0) _exit(0);
                waitpid(child, &status, 0);
                forking = 1;
                ++forks;
              }
              return syscall(SYS_munmap, start, size);
            }
        """,
    )
    run(
        """
        import ctypes, signal
        signal.alarm(60)  # a lock that is held is waited for for ever
        count_forks = ctypes.CDLL(sys.argv[1]).count_forks
        x, w = np.ones((1, 1, 256, 257), np.float32), np.ones((1, 1, 1, 1), np.float32)
        results = [ck.conv2d(x, w) for _ in range(36)]
        count_forks(1)
        del results  # more than the pool keeps
        assert count_forks(1) == 4
        assert _core.counters()["free_output_bytes"] > 32 * x.nbytes
        ck.clear_workspaces()
        assert count_forks(1) >= 32
        ck.conv2d(x, w)
        def work():  # whatever the child frees, it has freed before this
            return count_forks(0) >= 1
        count_forks(1)
        assert child_says(work) == 0
        """,
        library,
        **preloaded(library),
    )


SUB_INTERPRETER = """
try:
    import convkit
except ImportError as error:
    print(type(error).__name__, error)
else:
    print("imported")
"""


@pytest.mark.parametrize("first", ["import convkit", "pass"])
def test_a_sub_interpreter_is_refused_in_one_sentence(first: str) -> None:
    script = f"""
    import sys
    {first}
    try:
        import _interpreters as interpreters  # from Python 3.13 on
    except ImportError:
        import _xxsubinterpreters as interpreters
    if sys.version_info >= (3, 13):
        created = [interpreters.create(kind) for kind in ("legacy", "isolated")]
    elif sys.version_info >= (3, 12):
        created = [interpreters.create(isolated=isolated) for isolated in (False, True)]
    else:
        created = [interpreters.create()]
    execute = getattr(interpreters, "exec", None) or interpreters.run_string
    for interpreter in created:
        for _ in range(2):
            assert execute(interpreter, {SUB_INTERPRETER!r}) is None
    import convkit
    print(len(created))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    *refusals, created = done.stdout.splitlines()
    assert len(refusals) == 2 * int(created) > 0
    assert len(set(refusals)) == 1
    assert refusals[0].startswith("ImportError convkit cannot be imported in a sub-interpreter:")


def test_another_python_is_refused_in_one_sentence() -> None:
    script = """
    import sys
    sys.implementation.name = "pypy"
    try:
        import convkit
    except ImportError as error:
        print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("convkit needs CPython: "), done.stderr
    assert done.stdout.count("\n") == 1


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

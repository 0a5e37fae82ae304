"""A fork while another thread looks for a kernel: no child hangs. Each test has a process of its own."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from shims import compiled, fresh, preloaded

PREAMBLE = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")  # newer Pythons warn about forks with threads, which are the point here
import numpy as np
import convkit as ck

def child_says(work):
    # The exit status of a child that runs `work`; a hang is ended by an alarm and counts as a failure.
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def ones(*shape):
    return np.ones(shape, np.float32)

def call(height=9, **options):
    return ck.conv2d(ones(1, 3, height, 11), ones(2, 3, 3, 3), num_threads=1, **options)
"""


def run(script: str, path: Path | str = ":memory:", **environment: str) -> str:
    """Run a script in a fresh interpreter; its standard output."""
    return fresh(PREAMBLE + textwrap.dedent(script), CONVKIT_DB=str(path), **environment)


TUNE = "with ck.tuning(mode='tune', budget='20ms'): call()"
ONLINE = "with ck.tuning(mode='online'): call(15); call(15)"
TRAIN = """
with ck.tuning(mode='online'):
    plan = ck.TrainingConv2d(num_threads=1)
    plan.backward(plan.forward(ones(1, 3, 9, 9), ones(2, 3, 3, 3)))
"""
BEST = """
best = ck.BestOf('either', [('one', lambda a: a), ('other', lambda a: a + 0)], store=True)
[best(ones(3)) for _ in range(40)]
"""
IMPORTS = {
    "convkit.tuner.modes": "call()",
    "convkit.tuner.choosing.selector": "call()",
    "convkit.tuner.evidence.shipped": "call()",
    "platformdirs": "call()",
    "sqlite3": "call()",
    "logging": "call()",
    "convkit.tuner.choosing.explanation": "call()",
    "convkit.tuner.measuring.tune": TUNE,
    "convkit.tuner.measuring.online": ONLINE,
    "convkit.best_of.selector": BEST,
    "convkit.best_of.store": BEST,
    "convkit.training.pipeline": TRAIN,
    "convkit.profiling": "ck.profile",
    "convkit.config": "ck.show_config",
    "convkit.tuner.choosing.neighbours": "ck.explain((1, 3, 9, 9), (2, 3, 3, 3), dtype=np.float32)",
}


@pytest.mark.parametrize("module", IMPORTS)
def test_a_fork_waits_for_an_import(module: str, tmp_path: Path) -> None:
    database = tmp_path / "trials"
    run(TUNE, database)
    code = f"""
        import importlib.abc, time
        class Slow(importlib.abc.MetaPathFinder):
            # Says that the import has begun, and gives a fork the time to happen in the middle of it.
            def find_spec(self, name, path=None, target=None):
                if name == {module!r} and not begun.is_set() and threading.current_thread() is thread:
                    begun.set()
                    time.sleep(0.5)
        def work():
            exec({IMPORTS[module]!r}, globals())
            done.append(True)
        begun, done = threading.Event(), []
        for name in [n for n in sys.modules if n.split(".")[0] == {module!r}]:
            del sys.modules[name]
        assert {module!r} not in sys.modules
        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=work)
        thread.start()
        assert begun.wait(60)
        assert child_says(work) == 0
        thread.join()
        assert done
    """
    environment = {"CONVKIT_VERBOSE": "2"}
    if module == "platformdirs":
        run("import os; os.environ.pop('CONVKIT_DB')\n" + textwrap.dedent(code), **environment)
    else:
        run(code, database, **environment)


def test_children_of_a_process_that_plans_all_the_time(tmp_path: Path) -> None:
    database = tmp_path / "trials"
    run(TUNE, database)
    code = """
        stop = threading.Event()
        def plan(first):
            height = first
            while not stop.is_set():
                height += 1
                call(height)
                if height % 40 == 0:
                    height = first
                    ck.reload()
        threads = [threading.Thread(target=plan, args=(first,)) for first in (300, 400)]
        for thread in threads:
            thread.start()
        statuses = [child_says(lambda: call(9 + number)) for number in range(60)]
        stop.set()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 60, statuses
    """
    run(code, database)


def test_everything_that_calls_import_is_imported_under_the_lock(tmp_path: Path) -> None:
    code = f"""
        import importlib.abc
        from convkit.tuner.process import planning
        found = []
        class Watch(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if not planning.held:
                    found.append(name)
        def opened(event, arguments):
            if event == "sqlite3.connect" and not planning.held:
                found.append(event)
        import copy, pickle, numpy.ma
        sys.meta_path.insert(0, Watch())
        sys.addaudithook(opened)
        call()
        for mode in ("off", "replay", "tune", "online"):
            with ck.tuning(mode=mode, accuracy="fast"):
                for _ in range(40 if mode == "online" else 2):
                    call(20)
                    ck.grad.conv2d_input((1, 3, 9, 9), ones(2, 3, 3, 3), ones(1, 2, 7, 7))
                    ck.grad.conv2d_weight(ones(1, 3, 9, 9), (2, 3, 3, 3), ones(1, 2, 7, 7))
                ck.Conv2d(ones(2, 3, 3, 3))(ones(1, 3, 9, 9))
                ck.conv_transpose2d(ones(1, 2, 9, 9), ones(2, 3, 3, 3))
                plan = ck.TrainingConv2d()
                for _ in range(20):
                    plan.backward(plan.forward(ones(1, 3, 9, 9), ones(2, 3, 3, 3)))
                copy.deepcopy(plan)
            ck.reload()
        with ck.tuning(mode="require"):
            try:
                call(77)
            except LookupError:
                pass
        try:
            call(algorithm="nonsense")
        except ck.UnsupportedAlgorithmError:
            pass
        exec({BEST!r})
        str(best.report()), best.to_json(), repr(best)
        with ck.profile() as p, p.label("x"):
            call()
        p.table(), p.to_csv({str(tmp_path / "csv")!r}), p.to_chrome_trace({str(tmp_path / "trace")!r})
        explained = ck.explain((1, 3, 9, 9), (2, 3, 3, 3), dtype=np.float32)
        str(explained), explained.to_json()
        explained.choice.candidate
        ck.show_config()
        ck.clear_workspaces()
        assert not found, found
    """
    run(code, tmp_path / "trials", CONVKIT_VERBOSE="2")


def test_a_fork_within_a_choice() -> None:
    run("""
        from convkit.tuner.process import planning
        with planning:
            assert child_says(call) == 0
            call(12)
        assert child_says(call) == 0
        call(13)
        def other():
            with planning:
                done.append(True)
        done = []
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(60)
        assert done
    """)


def test_a_fork_does_not_wait_for_ever() -> None:
    run("""
        from convkit.tuner import process
        process._LONGEST_FORK_WAIT = 0.1
        held, release = threading.Event(), threading.Event()
        def hold():
            with process.planning:
                held.set()
                release.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        assert child_says(call) == 0
        release.set()
        thread.join()
        call(12)
        assert child_says(call) == 0
    """)


def test_measuring_and_log_handlers_hold_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trials"
    path.write_text("not a database")
    code = """
        import logging
        from convkit.problem import Problem
        from convkit.tuner import tune_problem
        from convkit.tuner.process import planning
        seen = []
        class Handler(logging.Handler):
            def emit(self, record):
                seen.append(record.getMessage())
                assert not planning.held
        logging.getLogger("convkit").addHandler(Handler())
        problem = Problem(n=1, c=4, h=10, w=10, o=6, kh=3, kw=3)
        def progress(done, total, text):
            assert not planning.held
            if not statuses:
                statuses.append(child_says(lambda: tune_problem(problem, 1, budget=0.02)))
        statuses = []
        thread = threading.Thread(target=tune_problem, args=(problem, 1), kwargs=dict(budget=0.1, progress=progress))
        thread.start()
        thread.join()
        call()
        assert statuses == [0], statuses
        assert seen
    """
    run(code, path, CONVKIT_VERBOSE="1")


def test_a_signal_handler_in_the_middle_of_a_choice_measures_nothing(tmp_path: Path) -> None:
    database = tmp_path / "trials"
    run(
        """
        from convkit.tuner.process import planning
        from convkit.tuner.measuring import tune
        held, release = threading.Event(), threading.Event()
        def race():
            with tune._racing:
                held.set()
                release.wait()
                with planning:
                    pass
        thread = threading.Thread(target=race)
        thread.start()
        held.wait()
        def handle(number, frame):
            with ck.tuning(mode="tune"):
                call(12)
            with ck.tuning(mode="online"):
                call(13)
            release.set()
        signal.signal(signal.SIGALRM, handle)
        with planning:
            signal.raise_signal(signal.SIGALRM)
        thread.join(60)
        assert not thread.is_alive()
        """,
        database,
    )
    assert not database.exists()


def test_a_plan_that_another_thread_was_running_serves_the_child() -> None:
    run("""
        plan = ck.TrainingConv2d(num_threads=1)
        best = ck.BestOf("either", [("one", lambda a: a), ("other", lambda a: a + 0)])
        best(ones(3))
        (problem,) = best._problems.values()
        rounds = problem.rounds
        from convkit.training import pipeline
        held, release = threading.Event(), threading.Event()
        def hold():
            with pipeline._Alone(plan._busy), rounds.lock:
                held.set()
                release.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        def work():
            with ck.tuning(mode="online"):
                plan.backward(plan.forward(ones(1, 3, 9, 9), ones(2, 3, 3, 3)))
                best(ones(3))
        assert child_says(work) == 0
        release.set()
        thread.join()
        with rounds.lock:
            assert child_says(work) == 0
    """)


def test_a_child_has_only_the_profiles_of_the_thread_that_forked() -> None:
    run("""
        from convkit import _core
        begun, end, found = threading.Event(), threading.Event(), []
        def profile():
            with ck.profile() as p:
                begun.set()
                assert end.wait(60)
            found.extend(p.records)
        thread = threading.Thread(target=profile)
        thread.start()
        assert begun.wait(60)
        def outside():
            call()
            assert _core.profile_position() == 0
            with ck.profile() as p:
                call()
            assert len(p.records) == 1 and _core.profile_position() == 0
        assert child_says(outside) == 0
        with ck.profile() as own:
            call()
            def inside():
                call()
                own.__exit__(None, None, None)
                assert len(own.records) == 2 and _core.profile_position() == 0
            assert child_says(inside) == 0
        end.set()
        thread.join()
        assert len(own.records) == len(found) == 1
    """)


# Makes what a process finds out or makes at first use take long, once it is armed: (1) reading CONVKIT_ISA, (2)
# registering for forks.
SLOW_FIRST_USE = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <string.h>
    #include <unistd.h>
    volatile int armed = 0, begun = 0;
    static void linger(int kind) {
      if (armed != kind) return;
      armed = 0;
      begun = 1;
      usleep(1000000);
    }
    char* getenv(const char* name) {
      if (!strcmp(name, "CONVKIT_ISA")) linger(1);
      return ((char* (*)(const char*))dlsym(RTLD_NEXT, "getenv"))(name);
    }
    int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void* object) {
      linger(2);
      return ((int (*)(void (*)(void), void (*)(void), void (*)(void), void*))dlsym(RTLD_NEXT, "__register_atfork"))(
          prepare, parent, child, object);
    }
"""
FIRST_USES = {
    1: "images.pool(ones(1, 64, 64, 64), 2, 2, 1, 0, (32, 32), num_threads=1)",
    2: "ndimage.correlate(image, ones(1, 3), output=result, num_threads=1)",
}


@pytest.mark.parametrize("kind", FIRST_USES, ids=["instruction set", "pools of memory"])
def test_a_fork_while_another_thread_uses_something_for_the_first_time(kind: int, tmp_path: Path) -> None:
    slow = compiled(tmp_path, SLOW_FIRST_USE)
    run(
        f"""
        import ctypes, time
        from convkit import images, ndimage
        shim = ctypes.CDLL({slow!r})
        armed, begun = (ctypes.c_int.in_dll(shim, name) for name in ("armed", "begun"))
        image, result = ones(140, 140), ones(140, 140)
        def work():
            {FIRST_USES[kind]}
        thread = threading.Thread(target=work)
        armed.value = {kind}
        thread.start()
        while thread.is_alive() and not begun.value:
            time.sleep(0.001)
        assert child_says(work) == 0
        thread.join()
        """,
        **preloaded(slow),
    )

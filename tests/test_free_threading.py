"""Threads that no interpreter's lock keeps apart: first calls, updates, profiles and reloads beside calls.

Ordinary interpreters run these too, with a switch of threads after every few instructions. Each test has a process
of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap

import pytest
from shims import fresh

FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

PREAMBLE = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")  # newer Pythons warn about forks with threads
sys.setswitchinterval(1e-6)
import numpy as np
import convkit as ck
from convkit import _core

rng = np.random.default_rng(0)

def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)

def at_once(*works):
    # Runs each work in a thread of its own; they start together, and what one of them raises is raised.
    together, failures = threading.Barrier(len(works)), []
    def run(work):
        try:
            together.wait()
            work()
        except BaseException as failure:
            failures.append(failure)
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
"""


def run(script: str, **environment: str) -> str:
    """Run a script in a fresh interpreter; its standard output."""
    return fresh(PREAMBLE + textwrap.dedent(script), **({"CONVKIT_DB": ":memory:"} | environment))


@pytest.mark.skipif(not FREE, reason="this interpreter has a lock")
def test_importing_convkit_does_not_bring_the_lock_back() -> None:
    # Without -X gil=0, which would overrule a module that says nothing.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import convkit._core, sys; assert not sys._is_gil_enabled()"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_first_calls_of_one_shape_and_of_many() -> None:
    run("""
        w, b = normal(8, 4, 3, 3), normal(8)
        images = [normal(1, 4, 7 + size, 9) for size in range(12)]
        exact = [ck.conv2d(x, w, b, padding=1, num_threads=1) for x in images]
        _core.clear_plans()
        before = _core.counters()
        def work(first):
            def calls():
                for i in range(60):
                    which = (i * first) % len(images)
                    y = ck.conv2d(images[which], w, b, padding=1, num_threads=1)
                    assert np.array_equal(y, exact[which])
            return calls
        at_once(*map(work, range(8)))
        after = _core.counters()
        assert after["calls"] - before["calls"] == 480
        assert after["plan_hits"] + after["plan_misses"] - before["plan_hits"] - before["plan_misses"] == 480
        assert _core.plan_count() == len(images)
    """)


def test_a_layer_under_updates_clearing_and_limits() -> None:
    run("""
        x, w, b = [normal(1, 24, 6 + 9 * i, 12) for i in range(3)], normal(24, 24, 3, 3), normal(24)
        scales = [np.full(24, number, np.float32) for number in (1, 2)]
        layer = ck.Conv2d(w, b, padding=1, num_threads=1, scale=scales[0])
        once = [layer(image) for image in x]
        right = [(y, 2 * y, -y + 2 * b[:, None, None], 2 * (-y + 2 * b[:, None, None])) for y in once]
        def call():
            for i in range(40):
                y = layer(x[i % 3])
                assert any(np.allclose(y, one, atol=1e-3) for one in right[i % 3])
                repr(layer), layer.nbytes, layer.packed_nbytes, layer.weight, layer.bias
        def flip():
            for i in range(40):
                layer.update(*((-w, b) if i % 2 else (w, b)))
        def rescale():
            for i in range(40):
                layer.update(w, b, scale=scales[i % 2])
        def clear():
            for i in range(40):
                _core.clear_plans()
                ck.clear_workspaces()
                _core.set_workspace_limit(_core.workspace_limit())
        at_once(call, call, call, flip, rescale, clear)
    """)


def test_an_update_keeps_what_another_one_gave() -> None:
    run("""
        w, x = normal(8, 8, 3, 3), normal(1, 8, 9, 9)
        layer = ck.Conv2d(w, scale=1.0, shift=0.0)
        def scale():
            for number in range(200):
                layer.update(w, scale=float(number))
        def shift():
            for number in range(200):
                layer.update(w, shift=float(number))
        at_once(scale, shift)
        assert np.array_equal(layer(x), ck.Conv2d(w, scale=199.0, shift=199.0)(x))
    """)


def test_results_that_die_in_other_threads() -> None:
    run("""
        import queue
        w, sizes = normal(4, 4, 1, 1), (1, 3, 9, 40, 90)
        images = [normal(1, 4, size, size) for size in sizes]
        exact = [ck.conv2d(x, w) for x in images]
        results = queue.SimpleQueue()
        def make():
            for i in range(200):
                results.put((i % len(sizes), ck.conv2d(images[i % len(sizes)], w)))
        def check():
            for _ in range(200):
                which, y = results.get()
                assert np.array_equal(y, exact[which])
        def clear():
            for _ in range(100):
                ck.clear_workspaces()
        at_once(make, check, make, check, make, check, clear)
    """)


def test_profiles_beside_calls() -> None:
    run("""
        x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
        ck.conv2d(x, w)
        def profiled():
            for _ in range(10):
                with ck.profile() as p:
                    for _ in range(5):
                        ck.conv2d(x, w)
                own = [record for record in p.records if record.thread == threading.get_ident()]
                assert len(own) == 5 and all(record.problem.o == 4 for record in p.records)
        def call():
            for _ in range(100):
                ck.conv2d(x, w)
        at_once(profiled, profiled, profiled, call, call)
    """)


def test_training_online_and_reloading_beside_calls() -> None:
    run("""
        x, w = normal(2, 4, 9, 9), normal(6, 4, 3, 3)
        exact = ck.conv2d(x, w, algorithm="direct")
        def train():
            with ck.tuning(mode="online"):
                plan = ck.TrainingConv2d(num_threads=1)
                for _ in range(12):
                    y = plan.forward(x, w)
                    dx, dw, _ = plan.backward(np.ones_like(y))
                    assert np.allclose(y, exact, atol=1e-3) and dx.shape == x.shape and dw.shape == w.shape
        def online():
            with ck.tuning(mode="online"):
                for _ in range(60):
                    assert np.allclose(ck.conv2d(x, w, num_threads=1), exact, atol=1e-3)
        def choose():
            best = ck.BestOf("either", [("one", lambda a: a + 1), ("other", lambda a: 1 + a)])
            at_once(*[lambda: [best(x) for _ in range(30)] for _ in range(3)])
            assert len(best.report().problems) == 1
        def reload():
            for _ in range(20):
                ck.reload()
                _core.context()
                ck.explain(x, w)
        at_once(train, train, online, online, choose, reload)
    """)


def test_choosers_that_change_beside_calls() -> None:
    run("""
        from convkit.tuner.modes import chooser
        x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
        exact = ck.conv2d(x, w, algorithm="direct")
        def change():
            for _ in range(60):
                _core.set_chooser(lambda *call: chooser(*call))
        def call():
            for _ in range(60):
                assert np.allclose(ck.conv2d(x, w), exact, atol=1e-4)
        at_once(change, call, call, call)
    """)


def test_children_of_a_process_whose_threads_call() -> None:
    run("""
        x, w = [normal(1, 16, 8 + 30 * i, 40) for i in range(3)], normal(16, 16, 3, 3)
        layer = ck.Conv2d(w, num_threads=1)
        exact = [layer(image) for image in x]
        stop = threading.Event()
        def call():
            while not stop.is_set():
                for image, y in zip(x, exact):
                    assert np.array_equal(layer(image), y)
                    ck.conv2d(image, w, num_threads=1)
        def change():
            while not stop.is_set():
                layer.update(w)
                _core.clear_plans()
        def fork():
            try:
                for _ in range(20):
                    child = os.fork()
                    if not child:
                        signal.alarm(60)
                        right = all(np.array_equal(layer(image), y) for image, y in zip(x, exact))
                        ck.clear_workspaces()
                        os._exit(0 if right else 1)
                    assert os.waitpid(child, 0)[1] == 0
            finally:
                stop.set()
        at_once(call, call, change, fork)
    """)


@pytest.mark.skipif(not FREE, reason="only where pybind11 has mutexes of its own")
def test_a_child_finds_no_mutex_of_pybind11_held() -> None:
    run("""
        import ctypes
        python = ctypes.pythonapi
        python.PyInterpreterState_Get.restype = ctypes.c_void_p
        python.PyInterpreterState_GetDict.argtypes = [ctypes.c_void_p]
        python.PyInterpreterState_GetDict.restype = ctypes.py_object
        python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        python.PyCapsule_GetPointer.restype = ctypes.c_void_p
        python.PyMutex_Lock.argtypes = python.PyMutex_Unlock.argtypes = [ctypes.c_void_p]
        state = python.PyInterpreterState_GetDict(python.PyInterpreterState_Get())
        (capsule,) = [value for name, value in state.items() if str(name).startswith("__pybind11_internals")]
        # The first members of its state are its mutex and that of its translators of exceptions.
        mutex = ctypes.c_void_p.from_address(python.PyCapsule_GetPointer(capsule, None)).value
        x, w = normal(1, 16, 8, 8), normal(16, 16, 3, 3)
        exact = ck.conv2d(x, w)
        python.PyMutex_Lock(mutex)
        child = os.fork()
        if not child:
            signal.alarm(20)
            ck.clear_workspaces()
            _core.clear_plans()
            os._exit(0 if np.array_equal(ck.conv2d(x, w), exact) else 1)
        status = os.waitpid(child, 0)[1]
        python.PyMutex_Unlock(mutex)
        assert status == 0, status
    """)

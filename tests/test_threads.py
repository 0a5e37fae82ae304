"""Many threads at once, and teams of any size: the same bits."""

from __future__ import annotations

import sysconfig
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from calls import Array, check, normal

import convkit as ck
from convkit import _core

THREADS = 8


def at_once(work: Callable[[int], None]) -> None:
    """Run `work` in threads that start together; raise what one of them raised."""
    barrier = threading.Barrier(THREADS)
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def operands(size: int) -> tuple[Array, Array, Array]:
    """Input, weights and bias of one of several sizes, small enough to keep the GIL and large enough to release it."""
    return normal(1 + size % 2, 16, 8 + 12 * size, 9 + 12 * size), normal(24, 16, 3, 3), normal(24)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_functions_and_layers_from_many_threads(num_threads: int) -> None:
    sizes = [operands(size) for size in range(4)]
    serial = [ck.conv2d(x, w, b, padding=1, activation="relu", num_threads=num_threads) for x, w, b in sizes]
    _, w, b = sizes[0]
    conv = ck.Conv2d(w, b, padding=1, activation="relu", num_threads=num_threads)
    layer_serial = [ck.Conv2d(w, b, padding=1, activation="relu", num_threads=num_threads)(x) for x, _, _ in sizes]
    _core.clear_plans()

    def work(index: int) -> None:
        for i in range(24):
            which = (i + index) % len(sizes)
            x, weights, bias = sizes[which]
            y = ck.conv2d(x, weights, bias, padding=1, activation="relu", num_threads=num_threads)
            assert np.array_equal(y, serial[which])
            assert np.array_equal(conv(x), layer_serial[which])

    at_once(work)


def test_strided_operands_from_many_threads() -> None:
    x, w, b = operands(2)
    view = np.asfortranarray(x)
    exact = ck.conv2d(view, w, b, num_threads=2)

    def work(_: int) -> None:
        out = np.empty((*exact.shape[:3], 2 * exact.shape[3]), np.float32)[..., ::2]
        for _ in range(10):
            ck.conv2d(view, w, b, num_threads=2, out=out)
            assert np.array_equal(out, exact)

    at_once(work)


def test_updates_and_clearing_while_others_call() -> None:
    x, w, b = operands(2)
    conv = ck.Conv2d(w, b)
    once, twice = conv(x).copy(), ck.Conv2d(2 * w, 2 * b)(x)

    def work(index: int) -> None:
        for i in range(20):
            if index == 0:
                conv.update(*((w, b) if i % 2 else (2 * w, 2 * b)))
            elif index == 1:
                _core.clear_plans()
                ck.clear_workspaces()
            else:
                y = conv(x)
                assert np.array_equal(y, once) or np.array_equal(y, twice)

    at_once(work)


def many_channels(taps: int) -> tuple[Array, Array, Array]:
    """Operands whose sums a kernel may cut, by the number of tiles that a member has."""
    return normal(1, 208, 26, 13), normal(72, 208, taps, taps), normal(72)


def test_a_result_does_not_depend_on_the_team() -> None:
    for x, w, b in (*map(operands, range(4)), many_channels(3), many_channels(5)):
        for arguments in ((x, w, b), (x.astype(np.float64), w.astype(np.float64), b.astype(np.float64))):
            for name in {kernel["family"] for kernel in _core.kernels()}:
                results = []
                for threads in (1, 2, 3):
                    try:
                        results.append(ck.conv2d(*arguments, padding=1, algorithm=name, num_threads=threads))
                    except ck.UnsupportedAlgorithmError:
                        break
                for y in results[1:]:
                    assert np.array_equal(y, results[0]), f"{name}: other bits with another team"
                if results:
                    check(results[0], *arguments, padding=1)


def test_a_team_is_started_when_asked_for() -> None:
    x, w, b = operands(3)
    before = _core.counters()["teams_started"]
    ck.conv2d(x, w, b, num_threads=2)
    assert _core.counters()["teams_started"] > before
    before = _core.counters()["teams_started"]
    ck.conv2d(x, w, b, num_threads=1)
    assert _core.counters()["teams_started"] == before


def test_absurd_team_sizes_are_bounded() -> None:
    x, w, b = operands(3)
    y = ck.conv2d(x, w, b, num_threads=1, algorithm="im2col")
    assert np.array_equal(ck.conv2d(x, w, b, num_threads=2**31 - 1, algorithm="im2col"), y)


def test_limits_of_threadpoolctl_are_kept() -> None:
    threadpoolctl: Any = pytest.importorskip("threadpoolctl")
    ck.conv2d(*operands(0))
    if not _core.thread_runtime():
        pytest.skip("threadpoolctl knows nothing of convkit's own threads")
    with threadpoolctl.threadpool_limits(1):
        assert _core.default_threads() == 1


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this interpreter has no lock")
def test_the_gil_is_released_while_a_large_kernel_runs() -> None:
    x, w = normal(4, 64, 96, 96), normal(64, 64, 3, 3)
    conv = ck.Conv2d(w, padding=1, num_threads=1)
    conv(x)
    running = threading.Event()
    finished = threading.Event()
    seen = 0

    def run() -> None:
        running.set()
        for _ in range(5):
            conv(x)
        finished.set()

    thread = threading.Thread(target=run)
    thread.start()
    running.wait()
    while not finished.is_set():
        seen += 1
        finished.wait(0.0005)
    thread.join()
    assert seen > 5, "the main thread got no turn while the kernel ran"

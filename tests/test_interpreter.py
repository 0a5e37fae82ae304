"""The interpreter around the calls: its lock, its end, and arguments that change while they are read.

What could hang or crash has a process of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from calls import normal
from shims import fresh

import convkit as ck
from convkit import _core

X, W = normal(1, 3, 8, 8), normal(4, 3, 3, 3)


def run(script: str) -> str:
    """Run a script in a fresh interpreter, in which warnings are errors; its standard output."""
    return fresh(script, flags=("-W", "error"))


def test_first_calls_of_many_threads_on_a_subclass() -> None:
    """No thread may wait for another's import while it holds the GIL."""
    for _ in range(5):
        run("""
            import sys, threading
            sys.setswitchinterval(1e-6)
            import numpy as np
            import convkit as ck
            class Image(np.ndarray):
                pass
            x, w = np.ones((1, 3, 8, 8), np.float32).view(Image), np.ones((4, 3, 3, 3), np.float32).view(Image)
            together = threading.Barrier(8)
            def call():
                together.wait()
                ck.conv2d(x, w)
            threads = [threading.Thread(target=call) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        """)


WORK_THAT_RELEASES_THE_GIL = {
    "conv2d": "lambda: ck.conv2d(x, w, padding=1)",
    "Conv2d": "lambda: layer(x)",
    "packing": "lambda: ck.Conv2d(wide)(pixel)",
    "conv_transpose2d": "lambda: ck.conv_transpose2d(x, w)",
    "conv2d_weight": "lambda: ck.grad.conv2d_weight(x, w.shape, y)",
    "transpose": "lambda: ck.nchw_to_nhwc(x)",
    "fma_peak": "lambda: _core.fma_peak('float32', 1, 0.001)",
    "tune": "lambda: tune_problem(Problem(n=1, c=8, h=20, w=20, o=8, kh=3, kw=3), 1, budget=0.05)",
    "chooser": "lambda: (_core.clear_plans(), ck.conv2d(x[:, :, :9, :9], w))",
}


@pytest.mark.parametrize("work", WORK_THAT_RELEASES_THE_GIL.values(), ids=WORK_THAT_RELEASES_THE_GIL)
def test_the_interpreter_ends_while_a_daemon_thread_works(work: str) -> None:
    for _ in range(4):
        run(f"""
            import os, threading, time
            os.environ["CONVKIT_DB"] = ":memory:"
            import numpy as np
            import convkit as ck
            from convkit import _core
            from convkit.problem import Problem
            from convkit.tuner import tune_problem
            x, w = np.ones((1, 16, 60, 60), np.float32), np.ones((16, 16, 3, 3), np.float32)
            wide, pixel = np.ones((128, 128, 3, 3), np.float32), np.ones((1, 128, 3, 3), np.float32)
            y, layer = ck.conv2d(x, w), ck.Conv2d(w)
            work = {work}
            started = threading.Event()
            def forever():
                while True:
                    work()
                    started.set()
            for _ in range(2):
                threading.Thread(target=forever, daemon=True).start()
            started.wait()
            class Slow:
                # Finalization that gives the threads time to ask for the GIL.
                def __del__(self, sleep=time.sleep):
                    sleep(0.05)
            slow = Slow()
        """)


class _Emptying:
    """An integer whose conversion empties the list that it came from."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __index__(self) -> int:
        self.items.clear()
        self.items.extend(object() for _ in range(8))
        return 1


def _pair() -> list[Any]:
    items: list[Any] = []
    items.extend((_Emptying(items), _Emptying(items)))
    return items


def _numbers(*last: int) -> list[Any]:
    items: list[Any] = []
    items.extend((_Emptying(items), *last))
    return items


def test_lists_that_change_while_they_are_parsed() -> None:
    exact = ck.conv2d(X, W, padding=1)
    for _ in range(50):
        np.testing.assert_array_equal(ck.conv2d(X, W, stride=_pair(), padding=_pair(), dilation=_pair()), exact)
        np.testing.assert_array_equal(ck.conv2d(X, W, padding=[_pair(), _pair()]), exact)
        outer: list[Any] = []
        outer.extend(([_Emptying(outer), 1], [1, 1]))
        np.testing.assert_array_equal(ck.conv2d(X, W, padding=outer), exact)
        clip: list[Any] = ["clip"]

        class Bound(float):
            def __float__(self, items: list[Any] = clip) -> float:
                items.clear()
                return 0.0

        clip.extend((Bound(), Bound(1)))
        ck.conv2d(X, W, activation=clip)
        assert ck.grad.conv2d_input(_numbers(3, 8, 8), W, normal(1, 4, 6, 6)).shape == X.shape
        with pytest.raises(ValueError, match="weight_size"):
            ck.grad.conv2d_weight(X, _numbers(3, 3, 3), normal(1, 4, 6, 6))
        with pytest.raises(ValueError, match="axes must name"):
            ck.transpose(X, _numbers(2, 1, 0))
        with pytest.raises(ValueError, match="impossible problem"):
            _core.applies(0, _numbers(*[0] * 22))


def become_int8(x: Any) -> None:
    """Set the dtype in place, which NumPy 2.5 advises against."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        x.dtype = np.dtype("int8")


def test_an_array_that_changes_while_its_convolution_is_planned() -> None:
    from convkit.tuner.modes import chooser

    changes: dict[str, Callable[[Any], None]] = {
        "shape": lambda x: x.resize((1, 3, 2, 2), refcheck=False),
        "dimensions": lambda x: x.resize(12, refcheck=False),
        "dtype": become_int8,
    }
    for change in changes.values():
        x = normal(1, 3, 17, 17).copy()

        def choose_and_change(*call: Any, x: Any = x, change: Any = change) -> Any:
            answer = chooser(*call)
            change(x)
            return answer

        _core.set_chooser(choose_and_change)
        try:
            with pytest.raises(RuntimeError, match="changed its shape, strides or dtype while"):
                ck.conv2d(x, W)
        finally:
            _core.set_chooser(chooser)

    class Stride:
        def __init__(self, x: Any) -> None:
            self.x = x

        def __index__(self) -> int:
            become_int8(self.x)
            return 1

    x = normal(1, 3, 17, 17).copy()
    with pytest.raises(TypeError, match="x has dtype int8; convkit supports float32"):
        ck.conv2d(x, W, stride=Stride(x))


def test_overlaps_are_found_whatever_a_subclass_says() -> None:
    class Denying(np.ndarray):
        def __array_function__(self, *_: Any, **__: Any) -> bool:
            return False

    memory = normal(2, 3, 8, 8)
    x, out = memory[:1].view(Denying), np.ndarray.__getitem__(memory.view(Denying), (slice(0, 1), slice(0, 3)))
    with pytest.raises(ValueError, match="out shares memory with x"):
        ck.conv2d(x, normal(3, 3, 3, 3), padding=1, out=out)


def test_one_packing_for_threads_that_meet() -> None:
    run("""
        import sys, threading
        sys.setswitchinterval(1e-6)
        import numpy as np
        import convkit as ck
        rng = np.random.default_rng(0)
        w, x = rng.standard_normal((128, 128, 3, 3)).astype("f"), rng.standard_normal((1, 128, 4, 4)).astype("f")
        exact, alone = ck.Conv2d(w)(x), ck.Conv2d(w)
        alone(x)
        for _ in range(20):
            layer, results, together = ck.Conv2d(w), [], threading.Barrier(8)
            def call():
                together.wait()
                results.append(layer(x))
            threads = [threading.Thread(target=call) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(results) == 8 and all(np.array_equal(y, exact) for y in results)
            assert layer.packed_nbytes == alone.packed_nbytes > 0
    """)


def test_a_child_does_not_wait_for_a_packing_of_its_parent() -> None:
    run("""
        import os, signal, threading, warnings
        import numpy as np
        import convkit as ck
        warnings.simplefilter("ignore")  # newer Pythons warn about forking with threads, which is the point here
        w, x = np.ones((256, 256, 3, 3), np.float32), np.ones((1, 256, 3, 3), np.float32)
        ck.Conv2d(w, num_threads=1)(x)
        for _ in range(10):
            layer, stop = ck.Conv2d(w, num_threads=1), threading.Event()
            def pack():
                while not stop.is_set():
                    layer.update(w)
                    layer(x)
            thread = threading.Thread(target=pack)
            thread.start()
            child = os.fork()
            if not child:
                signal.alarm(20)
                os._exit(0 if layer(x).shape == (1, 256, 1, 1) else 1)
            status = os.waitpid(child, 0)[1]
            stop.set()
            thread.join()
            assert status == 0, status
    """)

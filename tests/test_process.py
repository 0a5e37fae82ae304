"""Process state: made at first use, replaced whole by `reload`; settings of blocks, their budgets and their tokens."""

from __future__ import annotations

import threading
from contextvars import Context
from pathlib import Path

import numpy as np
import pytest
from shims import fresh

import convkit as ck
from convkit import _core
from convkit.problem import Problem
from convkit.training import pipeline
from convkit.tuner import modes
from convkit.tuner.choosing.selector import selector
from convkit.tuner.measuring.online import online
from convkit.tuner.process import Slot

X, W = np.ones((1, 3, 9, 9), np.float32), np.ones((2, 3, 3, 3), np.float32)


def test_a_slot_is_made_once_and_anew_after_reload() -> None:
    made = []

    @Slot
    def inner() -> list[int]:
        """Of which the outer one knows."""
        made.append("inner")
        return []

    @Slot
    def outer() -> tuple[list[int], int]:
        made.append("outer")
        return inner(), len(made)

    assert inner.__doc__ == "Of which the outer one knows."
    assert outer()[0] is inner()
    assert outer() is outer()
    assert made == ["outer", "inner"]
    held = inner()
    ck.reload()
    assert inner() is not held
    assert outer()[0] is inner()
    assert made == ["outer", "inner", "inner", "outer"]


def test_a_slot_is_made_once_by_many_threads() -> None:
    made = []

    @Slot
    def slow() -> object:
        made.append(threading.get_ident())
        return object()

    gate = threading.Barrier(8)
    found = []

    def ask() -> None:
        gate.wait()
        found.append(slow())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(set(map(id, found))) == 1


@pytest.mark.parametrize("name", ["planning", "lock"])
def test_an_interrupt_at_the_end_of_a_block_leaves_no_lock_held(name: str) -> None:
    fresh(
        """
        import _thread, collections, signal, sys, threading
        from convkit.tuner.process import ForkSafeLock, planning
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
        lock, done = {"planning": planning, "lock": ForkSafeLock()}[sys.argv[1]], []
        def elsewhere():
            with lock:
                done.append(1)
        try:
            with lock:
                planning.later(lambda: done.append(2))
                # Comes without a call, after which Python would look for Ctrl-C: it is seen at the end of the block.
                collections.defaultdict(_thread.interrupt_main)[0]
        except KeyboardInterrupt:
            assert not lock.held
            thread = threading.Thread(target=elsewhere, daemon=True)
            thread.start()
            thread.join(60)
            planning.later(lambda: done.append(3))
        assert sorted(done) == [1, 2, 3], done
        """,
        name,
    )


def test_reload_replaces_what_every_layer_knows(database: Path) -> None:
    plan = ck.TrainingConv2d(padding=1, num_threads=1)
    with ck.tuning(mode="online"):
        plan.backward(plan.forward(X, W))
        ck.conv2d(X, W, num_threads=1)
    before = selector(), online(), pipeline._selectors()
    assert online().reports()
    assert pipeline._selectors()
    ck.reload()
    assert all(new is not old for new, old in zip((selector(), online(), pipeline._selectors()), before, strict=True))
    assert not online().reports()
    assert not pipeline._selectors()
    assert _core.plan_count() == 0


def test_tokens_outlive_a_reload_and_are_never_given_out_twice(database: Path) -> None:
    seen = set()
    for number in range(600):  # more than are remembered
        with ck.tuning(mode="off", budget=number):
            token = _core.context()
            assert token not in seen
            seen.add(token)
            if number % 100 == 0:
                ck.reload()
                assert _core.context() == token
                assert modes.settings() == ("off", number, None)
                with ck.tuning(accuracy="fast"):
                    assert _core.context() not in seen
    assert _core.context() == 0
    assert len(modes._tokens) < 600


def test_equal_settings_share_plans() -> None:
    with ck.tuning(mode="off", accuracy=0.125):
        first = _core.context()
    with ck.tuning(mode="off", accuracy=0.125):
        assert _core.context() == first


def test_one_object_in_two_threads_keeps_them_apart() -> None:
    block = ck.tuning(mode="off")
    inside, leave = threading.Event(), threading.Event()
    found = []

    def work() -> None:
        with ck.tuning(mode="require"):
            with block:
                inside.set()
                leave.wait()
            found.append(modes.settings().mode)
        found.append(modes.settings().mode)

    # In a context of its own: free-threaded 3.14 starts threads in that of who starts them.
    thread = threading.Thread(target=Context().run, args=(work,))
    with block:
        thread.start()
        inside.wait()
    assert modes.settings().mode == "replay"
    leave.set()
    thread.join()
    assert found == ["require", "replay"]


def test_an_inner_block_spends_the_outer_ones_budget() -> None:
    with ck.tuning(mode="tune", budget=10):
        with modes.measuring() as left:
            assert left == 10
        with ck.tuning(accuracy="fast"):
            assert modes.settings().budget == 10
            modes._block.get().budget.spent = 4.0  # type: ignore[union-attr]
            with ck.tuning(budget=3), modes.measuring() as own:
                assert own == 3
        with modes.measuring() as left:
            assert left == pytest.approx(6.0)
    with modes.measuring() as unlimited:
        assert unlimited is None


def test_what_is_measured_at_first_sight_shares_the_blocks_budget(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans for training, too: each used to get the whole budget anew."""
    clock = [0.0]
    monkeypatch.setattr(modes.time, "perf_counter", lambda: clock[0])
    passes = []

    def forward(current: object) -> object:
        clock[0] += 1.0
        passes.append(current)
        return X

    monkeypatch.setattr(
        pipeline, "_STAGES", {name: (forward, lambda current, dy: (None, W)) for name in pipeline.PIPELINES}
    )
    with ck.tuning(mode="tune", budget=3):
        for height in (9, 10, 11):
            ck.TrainingConv2d(padding=1, num_threads=1).forward(np.ones((1, 3, height, 9), np.float32), W)
    assert len(passes) == 3 + 3  # three seconds of measuring, and each call's own


def test_a_problem_is_tried_once_until_reload(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: list[Problem] = []
    monkeypatch.setattr("convkit.tuner.measuring.tune.tune_problem", lambda problem, *_, **__: tuned.append(problem))
    with ck.tuning(mode="tune"):
        for accuracy in ("fast", "strict", "fast"):
            ck.conv2d(X, W, accuracy=accuracy, num_threads=1)
            _core.clear_plans()
        assert len(tuned) == 1
        ck.reload()
        ck.conv2d(X, W, num_threads=1)
    assert len(tuned) == 2

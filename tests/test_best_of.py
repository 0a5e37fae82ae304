"""BestOf: settling, pipelines, nesting, failures, threads, persistence. Time is made up."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import convkit as ck
from convkit.best_of import BestOf
from convkit.tuner.measuring.rounds import Rounds


class Clock:
    """Time that alternatives spend by calling `work`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float, result: Any = None) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            self.now += seconds
            return args[0] if result is None and args else result

        return run


def make(clock: Clock, times: dict[str, float], **options: Any) -> BestOf:
    alternatives = [(name, clock.work(name, seconds)) for name, seconds in times.items()]
    return BestOf("made up", alternatives, threads=lambda: 1, clock=clock, **options)


def test_it_settles_on_the_fastest_and_every_call_runs_one() -> None:
    clock = Clock()
    best = make(clock, {"slow": 3.0, "fast": 1.0, "middle": 1.2})
    for number in range(40):
        assert best(number % 2 + 5) == number % 2 + 5
        assert len(clock.calls) == number + 1
    assert best.settled(5) == "fast"
    assert best.settled(6) == "fast"
    assert clock.calls[-9:] == ["fast"] * 9
    assert clock.calls.count("slow") <= 2 * 2


def test_keys_are_sizes_dtypes_values_and_threads() -> None:
    clock = Clock()
    threads = [1]
    best = BestOf(
        "made up", [("a", clock.work("a", 1.0)), ("b", clock.work("b", 2.0))], threads=lambda: threads[0], clock=clock
    )
    for call in (
        lambda: best(np.zeros((2, 3))),
        lambda: best(np.zeros((2, 3), np.float32)),
        lambda: best(np.zeros((3, 2))),
        lambda: best(7, axis=1),
        lambda: best([1, 2], {"list": 1}),
        # Another library's tensor: its dtype has no number.
        lambda: best(SimpleNamespace(shape=(2, 3), dtype="float32")),
    ):
        call()
    threads[0] = 2
    best(np.zeros((2, 3)))
    assert len(best.report().problems) == 7
    assert {problem.threads for problem in best.report().problems} == {1, 2}


@pytest.mark.parametrize(("args", "kwargs"), [((7,), {}), ((7,), {"axis": 1}), (([1, 2], {"list": 1}), {})])
def test_settled_calls_run_the_winner_whatever_their_arguments(args: Any, kwargs: Any) -> None:
    clock = Clock()
    best = make(clock, {"slow": 2.0, "fast": 1.0})
    for _ in range(20):
        assert best(*args, **kwargs) == args[0]
    assert best.settled(*args, **kwargs) == "fast"
    assert clock.calls[-5:] == ["fast"] * 5
    assert len(best.report().problems) == 1


@pytest.mark.parametrize("kind", [KeyError, TypeError])
def test_what_the_winner_raises_goes_to_the_caller_and_it_ran_once(kind: type[Exception]) -> None:
    calls = []

    def picky(x: int) -> int:
        calls.append(x)
        if x < 0:
            raise kind("made up")
        return x

    best = BestOf("picky", [("only", picky)], threads=lambda: 1, key=lambda x: 0)
    plain = BestOf("picky", [("only", picky)], threads=lambda: 1)
    for one in (best, plain):
        one(1)
        one.settled(-1)
        calls.clear()
        with pytest.raises(kind, match="made up"):
            one(-1)
        assert calls == [-1]


def test_an_own_key_replaces_the_default() -> None:
    clock = Clock()
    best = make(clock, {"a": 1.0, "b": 2.0}, key=lambda x: x.shape[0])
    for columns in range(1, 12):
        best(np.zeros((4, columns)))
    assert best.settled(np.zeros((4, 99))) == "a"
    assert len(best.report().problems) == 1


def test_an_alternative_that_raises_is_dropped_and_another_answers() -> None:
    clock = Clock()

    def broken(x: int) -> int:
        clock.calls.append("broken")
        raise RuntimeError("made-up failure")

    best = BestOf("made up", [("broken", broken), ("works", clock.work("works", 1.0))], threads=lambda: 1, clock=clock)
    assert [best(3) for _ in range(10)] == [3] * 10
    assert clock.calls.count("broken") == 1
    assert best.settled(3) == "works"
    assert "made-up failure" in str(best.report())


def test_bad_arguments_blame_the_caller() -> None:
    best = BestOf("made up", [("a", lambda x: 1 / x), ("b", lambda x: 2 / x)], threads=lambda: 1, key=lambda x: 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            best(0)
    for _ in range(30):
        best(2)
    assert best.settled(2) is not None
    with pytest.raises(ZeroDivisionError):
        best(0)
    assert best(1) in (1, 2)
    assert {row.name for row in best.report().problems[0].alternatives if row.samples} == {"a", "b"}


def test_bad_arguments_of_a_pipeline_blame_the_caller() -> None:
    pipes = [(str(factor), [lambda x, f=factor: f / x, lambda y: y]) for factor in (1, 2)]
    best = BestOf("pipes", pipes, threads=lambda: 1, key=lambda x: 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            best.start(0)(0)
    for _ in range(30):
        run = best.start(2)
        run(run(2))
    assert best.settled(2) is not None
    assert {row.name for row in best.report().problems[0].alternatives if row.samples} == {"1", "2"}


def test_an_interrupted_call_leaves_no_round_open() -> None:
    interrupted = iter([True, False] * 3)

    def work(x: int) -> int:
        if next(interrupted, False):
            raise KeyboardInterrupt
        return x

    best = BestOf("made up", [("a", work), ("b", lambda x: x)], threads=lambda: 1)
    for _ in range(40):
        with contextlib.suppress(KeyboardInterrupt):
            best(3)
    assert best.settled(3) is not None


def test_pipelines_are_timed_as_a_whole() -> None:
    clock = Clock()
    quick_forward = [clock.work("qf", 1.0), clock.work("qb", 9.0)]
    balanced = [clock.work("bf", 3.0), clock.work("bb", 3.0)]
    best = BestOf("pipes", [("quick", quick_forward), ("balanced", balanced)], threads=lambda: 1, clock=clock)
    for _ in range(12):
        run = best.start(8)
        assert run(8) == 8
        run(8)
        with pytest.raises(RuntimeError, match="all 2 stages"):
            run(8)
        assert run.alternative[0] == clock.calls[-2][0] == clock.calls[-1][0]
    assert best.settled(8) == "balanced"
    with pytest.raises(TypeError, match="start"):
        best(8)


def test_abandoned_and_failing_passes_do_not_stop_a_pipeline() -> None:
    clock = Clock()

    def fails(x: int) -> int:
        raise RuntimeError("second stage")

    best = BestOf(
        "pipes",
        [("a", [clock.work("a0", 1.0), clock.work("a1", 1.0)]), ("b", [clock.work("b0", 2.0), clock.work("b1", 2.0)])],
        threads=lambda: 1,
        clock=clock,
    )
    for _ in range(5):
        best.start(1)(1)
    for _ in range(12):
        run = best.start(1)
        run(1)
        run(1)
    assert best.settled(1) == "a"

    shaky = BestOf("pipes", [("fails", [clock.work("f", 1.0), fails])], threads=lambda: 1, clock=clock)
    run = shaky.start(1)
    run(1)
    with pytest.raises(RuntimeError, match="second stage"):
        run(1)


def test_a_parent_counts_only_what_ran_with_settled_children() -> None:
    clock = Clock()
    child = make(clock, {"child slow": 50.0, "child fast": 1.0})

    def with_child(x: int) -> int:
        clock.now += 1.0
        return int(child(x))

    parent = BestOf(
        "parent", [("nested", with_child), ("plain", clock.work("plain", 4.0))], threads=lambda: 1, clock=clock
    )
    for _ in range(60):
        parent(1)
    assert child.settled(1) == "child fast"
    assert parent.settled(1) == "nested"
    (problem,) = parent.report().problems
    nested = next(row for row in problem.alternatives if row.name == "nested")
    assert nested.seconds == 2.0
    (below,) = parent.report().children["nested"]
    assert below.name == "made up"
    assert "within nested" in str(parent.report())
    (_, within) = parent.report().__rich__().children
    assert within.label == "within nested"
    assert [child.label.label for child in within.children] == ["[bold]made up"]


def test_the_report_is_json_text_and_rich() -> None:
    clock = Clock()
    best = make(clock, {"a": 1.0, "b": 2.0})
    for _ in range(20):
        best(1)
    value = json.loads(best.to_json())
    assert value["problems"][0]["settled"] == "a"
    assert len(value["problems"][0]["history"]) > 3
    assert value["problems"][0]["lost"] == pytest.approx(sum(s - 1 for _, s in value["problems"][0]["history"]))
    console = pytest.importorskip("rich.console").Console(record=True, width=120)
    console.print(best.report())
    assert "made up" in console.export_text()


def test_many_threads_settle_and_each_call_runs_once() -> None:
    counts: dict[str, int] = {"a": 0, "b": 0, "c": 0}
    lock = threading.Lock()

    def alternative(name: str) -> Callable[[int], int]:
        def run(x: int) -> int:
            with lock:
                counts[name] += 1
            return x

        return run

    best = BestOf("threads", [(name, alternative(name)) for name in counts], threads=lambda: 1)
    results: list[int] = []

    def work() -> None:
        for i in range(100):
            results.append(best(i % 3))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 800
    assert sum(counts.values()) == 800
    assert all(best.settled(i) for i in range(3))


def test_settled_results_come_back_from_the_database(database: Path) -> None:
    clock = Clock()
    best = make(clock, {"slow": 2.0, "fast": 1.0}, store=True)
    for _ in range(20):
        best(5)
    ck.reload()
    clock.calls.clear()
    again = make(clock, {"fast": 1.0, "slow": 2.0}, store=True)
    again(5)
    assert clock.calls == ["fast"]
    assert "from the database" in str(again.report())
    grown = make(clock, {"fast": 1.0, "slow": 2.0, "newer": 0.5}, store=True)
    for _ in range(20):
        grown(5)
    assert grown.settled(5) == "newer"
    from convkit.tuner.evidence.database import Database

    assert Database(database).verify() == []


def test_alternatives_must_be_sound() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BestOf("empty", [])
    with pytest.raises(ValueError, match="differ"):
        BestOf("twice", [("a", abs), ("a", abs)])
    with pytest.raises(ValueError, match="equally many"):
        BestOf("uneven", [("a", [abs, abs]), ("b", [abs])])


def test_only_one_alternative_is_settled_from_the_start() -> None:
    best = BestOf("one", [("only", abs)], threads=lambda: 1)
    assert best(-3) == 3
    assert best.settled(-3) == "only"


def test_rounds_end_although_a_thread_still_runs() -> None:
    rounds = Rounds(["a", "b"])
    first, second = rounds.next(), rounds.next()
    assert rounds.next()[1] == -1
    rounds.add(*first, 1.0)
    rounds.add(*second, 2.0)
    while not rounds.settled:
        index, number = rounds.next()
        rounds.add(index, number, 1.0 + index)
    assert rounds.winner == 0


def test_nested_kernels_in_forward_and_backward_pipelines(database: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 8, 12, 12), np.float32)
    w = generator.standard_normal((8, 8, 3, 3), np.float32)

    def with_algorithm(name: str) -> Callable[..., Any]:
        return lambda x, w: ck.conv2d(x, w, padding=1, algorithm=name)

    def gradients(x: Any, w: Any, dy: Any) -> Any:
        return ck.grad.conv2d_input(x.shape, w, dy, padding=1), ck.grad.conv2d_weight(x, w.shape, dy, padding=1)

    winograd = BestOf("winograd", [(name, with_algorithm(name)) for name in ("winograd2", "winograd4")])
    layer = BestOf("layer", [("gemm", [with_algorithm("conv_gemm"), gradients]), ("winograd", [winograd, gradients])])
    for _ in range(80):
        step = layer.start(x, w)
        y = step(x, w)
        dx, dw = step(x, w, y)
        assert y.shape == dx.shape == x.shape
        assert dw.shape == w.shape
    assert layer.settled(x, w) in ("gemm", "winograd")
    assert winograd.settled(x, w) in ("winograd2", "winograd4")
    assert "within winograd" in str(layer.report())


def _twice(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda best: pickle.loads(pickle.dumps(best))])
def test_copies_measure_anew(twin: Any) -> None:
    best = BestOf("double", [("one", _twice), ("two", _twice)], key=_twice, rounds=3)
    for _ in range(20):
        assert best(4) == 8
    assert best.settled(4)
    other = twin(best)
    assert other.alternatives == best.alternatives
    assert other.settled(4) is None
    assert other.report().problems[0].alternatives[0].samples == 0
    for _ in range(20):
        assert other(4) == 8
    assert other.settled(4)

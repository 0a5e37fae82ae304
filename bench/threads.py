"""Threads beside threads: convkit in turns with PyTorch, and called from many threads at once.

    python bench/threads.py [--threads 2]

Prints medians of 200: a convolution and an operation of PyTorch one after the other, beside the sum of both alone. Then
calls a second from one thread and from eight, with teams of one and of `--threads`.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np

import convkit as ck
from convkit import _core

Call = Callable[[], object]
ROUNDS = 200
CALLERS = 8


def median(call: Call) -> float:
    """Median seconds of a call that follows another of the same kind at once."""
    for _ in range(20):
        call()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def neighbours(threads: int) -> dict[str, Call]:
    """Operations of PyTorch that use all threads."""
    import torch

    torch.set_num_threads(threads)
    images, rows = torch.randn(64, 112, 112), torch.randn(256, 1024)
    weight = torch.randn(1024, 1024)
    return {
        "relu 64x112x112": lambda: torch.relu(images),
        "max-pool 64x112x112": lambda: torch.nn.functional.max_pool2d(images, 2),
        "linear 256x1024": lambda: torch.nn.functional.linear(rows, weight),
    }


def in_turns(threads: int) -> None:
    """One loop of convkit and PyTorch beside both alone."""
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 64, 56, 56)).astype(np.float32)
    conv = ck.Conv2d(random.standard_normal((64, 64, 3, 3)).astype(np.float32), padding=1, num_threads=threads)

    def convolution() -> object:
        return conv(x)

    calls = neighbours(threads)
    convolution()
    print(f"runtime: {_core.thread_runtime() or 'convkit'}; {threads} threads")
    print(f"{'in turns with':20} {'convkit':>9} {'torch':>9} {'in turns':>9} {'/ sum':>7}")
    for name, other in calls.items():

        def both(other: Call = other) -> None:
            convolution()
            other()

        # Halves before and after, so that a drift of the clock is in both.
        first = (median(convolution), median(other))
        together = median(both)
        alone = [min(a, b) for a, b in zip(first, (median(convolution), median(other)), strict=True)]
        print(
            f"{name:20} {1e3 * alone[0]:7.3f}ms {1e3 * alone[1]:7.3f}ms {1e3 * together:7.3f}ms "
            f"{together / sum(alone):7.3f}"
        )


def many_callers(threads: int, seconds: float = 2.0) -> None:
    """Calls a second from one thread and from several."""
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 64, 56, 56)).astype(np.float32)
    w = random.standard_normal((64, 64, 3, 3)).astype(np.float32)
    for team in sorted({1, threads}):
        conv = ck.Conv2d(w, padding=1, num_threads=team)
        conv(x)
        rates = []
        for callers in (1, CALLERS, 1, CALLERS):
            counts = [0] * callers
            end = time.perf_counter() + seconds

            def call(index: int, counts: list[int] = counts, end: float = end, conv: ck.Conv2d = conv) -> None:
                while time.perf_counter() < end:
                    conv(x)
                    counts[index] += 1

            workers = [threading.Thread(target=call, args=(index,)) for index in range(callers)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            rates.append(sum(counts) / seconds)
        one, many = max(rates[::2]), max(rates[1::2])
        print(
            f"teams of {team}: {one:.0f} calls a second from one thread, {many:.0f} from {CALLERS}: {many / one:.2f}x"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=_core.available_cpus())
    threads = parser.parse_args().threads
    try:
        in_turns(threads)
    except ImportError:
        print("PyTorch is not installed: no turns with it")
    many_callers(threads)


if __name__ == "__main__":
    main()

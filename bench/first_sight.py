"""The first sight of a shape in a warm process, and what the process keeps of it.

    python bench/first_sight.py [--shapes 100000] [--call conv2d] [--warm 2000]

Every call has a shape that the process has not seen: it is chosen for and then run, which takes little. Nothing is
measured, and the database is empty.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Iterator

os.environ["CONVKIT_DB"] = ":memory:"

import numpy as np

import convkit as ck

W = np.ones((4, 3, 3, 3), np.float32)
PLAN = ck.TrainingConv2d(num_threads=1)
LARGEST = 400
MEMORY = np.ones(3 * LARGEST * LARGEST, np.float32)


def conv2d(x: np.ndarray) -> None:
    """One convolution."""
    ck.conv2d(x, W, num_threads=1)


def training(x: np.ndarray) -> None:
    """One pass of a plan for training: three problems."""
    PLAN.backward(PLAN.forward(x, W))


CALLS = {"conv2d": conv2d, "training": training}


def images() -> Iterator[np.ndarray]:
    """Images of different sizes, the smallest first."""
    for total in range(8, 2 * LARGEST):
        for rows in range(max(3, total - LARGEST), min(LARGEST, total - 3) + 1):
            yield MEMORY[: 3 * rows * (total - rows)].reshape(1, 3, rows, total - rows)


def resident() -> int:
    """Bytes of this process."""
    gc.collect()
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    """Call, and print quantiles and growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=100_000)
    parser.add_argument("--warm", type=int, default=2000)
    parser.add_argument("--call", default="conv2d", choices=CALLS)
    arguments = parser.parse_args()
    call, shapes = CALLS[arguments.call], images()
    for _ in range(arguments.warm):
        call(next(shapes))
    times = np.zeros(arguments.shapes)
    before = resident()
    for number in range(arguments.shapes):
        x = next(shapes)
        begin = time.perf_counter()
        call(x)
        first = time.perf_counter()
        call(x)
        times[number] = first - begin - (time.perf_counter() - first)
    grown = (resident() - before) / arguments.shapes
    median, most = np.quantile(times, (0.5, 0.95))
    print(f"{arguments.call}: {arguments.shapes} shapes; a first sight takes {1e3 * median:.3f} ms more than the "
          f"second, the median, {1e3 * most:.3f} the 95th percentile; it leaves {grown:.0f} bytes")  # fmt: skip


if __name__ == "__main__":
    main()

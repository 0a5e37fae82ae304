"""What subnormal numbers cost: kernels with subnormal weights, inputs or products beside normal ones, in turns.

    python bench/subnormals.py

Prints the ratios of medians, flushed (accuracy "fast") and not (accuracy "strict", direct kernels only).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import convkit as ck

CASES = (
    ("3x3, 64 channels", (1, 64, 56, 56), (64, 64, 3, 3), ("direct", "im2col", "winograd4")),
    ("1x1, 256 channels", (1, 256, 28, 28), (256, 256, 1, 1), ("direct", "pointwise")),
    ("3x3 depthwise", (1, 128, 56, 56), (128, 1, 3, 3), ("depthwise",)),
)
ROUNDS = 31
SCALES = {"normal": (1, 1), "weights": (1, 1e-40), "inputs": (1e-40, 1), "products": (1e-20, 1e-19)}


def medians(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure and print."""
    random = np.random.default_rng(0)
    print(f"{'convolution':20} {'algorithm':10} {'accuracy':8} {'ms':>7}   ratios: weights, inputs, products subnormal")
    for title, x_shape, w_shape, algorithms in CASES:
        x, w = (random.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape))
        for algorithm in algorithms:
            for accuracy in ("fast", "strict"):
                if accuracy == "strict" and "winograd" in algorithm:
                    continue

                def call(
                    a: NDArray[np.float32], b: NDArray[np.float32], algorithm: str = algorithm, accuracy: str = accuracy
                ) -> Callable[[], object]:
                    padding, groups = b.shape[2] // 2, a.shape[1] // b.shape[1]
                    return lambda: ck.conv2d(
                        a, b, padding=padding, groups=groups, num_threads=1, algorithm=algorithm, accuracy=accuracy
                    )

                found = medians({name: call(x * np.float32(a), w * np.float32(b)) for name, (a, b) in SCALES.items()})
                ratios = ", ".join(f"{found[name] / found['normal']:.2f}" for name in list(SCALES)[1:])
                print(f"{title:20} {algorithm:10} {accuracy:8} {1e3 * found['normal']:7.2f}   {ratios}")


if __name__ == "__main__":
    main()

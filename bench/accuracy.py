"""Errors of the Winograd kernels, as multiples of direct summation's: the table of docs/accuracy.md.

For every Winograd kernel in force, a convolution of every number of channels and kind of data is run in float32 by the
kernel and by direct summation, and both are held against float64. Printed is error / error of direct summation, for the
root mean square and for the largest error over all outputs.

Run it as ``python bench/accuracy.py [--isa avx512] [--channels 16,64,512] [--json FILE]``; it prints Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convkit import _core
from convkit.problem import Problem

Array = NDArray[Any]

DATA: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "uniform": lambda rng, shape: rng.uniform(0.0, 1.0, shape),
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "ReLU": lambda rng, shape: np.maximum(rng.standard_normal(shape), 0.0),
}
# Height, width, stride.
FILTERS = ((3, 3, 1), (5, 5, 1), (1, 3, 1), (3, 1, 1), (1, 7, 1), (7, 1, 1), (3, 3, 2), (4, 4, 2), (5, 5, 2))
SIZE, OUTPUTS = 24, 64


def run(kernel: dict[str, Any], problem: Problem, x: Array, w: Array) -> Array:
    """The kernel's answer with its default parameters, in float64."""
    parameters = _core.candidates(kernel["index"], problem.to_core(), 1)[0]
    dtype = problem.dtype
    runner = _core.Runner(kernel["index"], parameters, problem.to_core(), 1, x.astype(dtype), w.astype(dtype))
    return np.asarray(runner.run(), dtype=np.float64)


def takes(kernel: dict[str, Any], problem: Problem) -> bool:
    return bool(_core.applies(kernel["index"], problem.to_core()))


def errors(y: Array, exact: Array) -> tuple[float, float]:
    """Root mean square and largest error."""
    difference = np.abs(y - exact)
    return float(np.sqrt(np.mean(difference**2))), float(difference.max())


def main() -> None:
    """Print a row for each kernel, filter size and kind of data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", default=_core.active_isa())
    parser.add_argument("--channels", default="16,64,256,512,1024,2048")
    parser.add_argument("--json", type=Path, help="save the table here")
    arguments = parser.parse_args()
    channels = [int(c) for c in arguments.channels.split(",")]
    kernels = [k for k in _core.kernels() if k["isa"] == arguments.isa and k["op"] == "forward"]
    direct = [k for k in kernels if k["direct"]]

    table = [["kernel", "data", *(f"C = {c}" for c in channels)], ["---"] * (2 + len(channels))]
    print(*("| " + " | ".join(row) + " |" for row in table), sep="\n")
    for kernel in kernels:
        if kernel["direct"] or kernel["dtypes"][0] != "float32":
            continue
        for kh, kw, stride in FILTERS:
            cells: dict[str, list[str]] = {kind: [] for kind in DATA}
            for c in channels:
                padding = {"pad_top": kh // 2, "pad_bottom": kh // 2, "pad_left": kw // 2, "pad_right": kw // 2}
                strides = {"stride_h": stride, "stride_w": stride}
                problem = Problem(1, c, SIZE, SIZE, OUTPUTS, kh, kw, layout="NHWC", **strides, **padding)
                if not takes(kernel, problem):
                    break
                double = problem.replace(dtype="float64")
                plain = next(k for k in direct if takes(k, problem))
                exactly = next(k for k in direct if takes(k, double))
                for kind, draw in DATA.items():
                    rng = np.random.default_rng(c)
                    x = draw(rng, (1, SIZE, SIZE, c)).astype(np.float32)
                    w = rng.standard_normal((OUTPUTS, c, kh, kw)).astype(np.float32)
                    exact = run(exactly, double, x, w)
                    rms, largest = errors(run(kernel, problem, x, w), exact)
                    plain_rms, plain_largest = errors(run(plain, problem, x, w), exact)
                    cells[kind].append(f"{rms / plain_rms:.2f} / {largest / plain_largest:.2f}")
            for kind, row in cells.items():
                if row:
                    name = f"`{kernel['name']}`" + (f", {kh}x{kw}" if stride == 2 else "")
                    table.append([name, kind, *row])
                    print("| " + " | ".join(table[-1]) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in table) + "\n]\n")


if __name__ == "__main__":
    main()

"""How the online mode converges: passes over a network's convolutions, from an empty database to settled choices.

    python bench/online.py [--network vgg19] [--passes 60] [--threads 1] [--json FILE]

Every pass calls each layer's convolution once, and every result is checked against a strict call. What exploring cost
is the time of all passes beyond as many of the settled kind.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["CONVKIT_DB"] = ":memory:"

import numpy as np

import convkit as ck
from convkit import networks
from convkit.contest.contestants import Operands

# Of a Winograd kernel under "standard": the largest difference from direct summation, relative to the largest result,
# so that the scale of the operands does not matter.
TOLERANCE = 1e-4


def calls(network: str) -> list[tuple[Callable[..., Any], Any]]:
    """The call of each distinct layer, and its strict result."""
    found = []
    for layer in networks.get(network).unique():
        operands = Operands(layer.problem(1))
        x, w, dy = operands.x, operands.w, operands.dy
        # A transposed layer computes the input gradient of its convolution.
        call = partial(ck.conv2d, x, w) if dy is None else partial(ck.grad.conv2d_input, x.shape, w, dy)
        call = partial(call, **operands.geometry)
        found.append((call, call(accuracy="strict")))
    return found


def main() -> None:
    """Run the passes, print the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="vgg19", choices=networks.names())
    parser.add_argument("--passes", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work = calls(arguments.network)
    passes, wrong = [], 0
    with ck.tuning(mode="online"):
        for _ in range(arguments.passes):
            total = 0.0
            for call, exact in work:
                begin = time.perf_counter()
                y = call(num_threads=arguments.threads)
                total += time.perf_counter() - begin
                wrong += not float(np.abs(y - exact).max()) <= TOLERANCE * float(np.abs(exact).max())
            passes.append(1e3 * total)
    settled = statistics.median(passes[-max(3, len(passes) // 10) :])
    lost = sum(passes) - settled * len(passes)
    for first in range(0, len(passes), 5):
        group = passes[first : first + 5]
        print(f"passes {first + 1:3}-{first + len(group):3}: {statistics.median(group):9.2f} ms")
    print(f"settled {settled:.2f} ms a pass; exploring cost {lost:.0f} ms, {lost / settled:.1f} passes")
    print(f"results checked: {len(passes) * len(work)}, wrong: {wrong}")
    if arguments.json:
        result = {"network": arguments.network, "threads": arguments.threads, "milliseconds": passes, "wrong": wrong}
        arguments.json.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

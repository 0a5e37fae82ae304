"""Where the time of an iteration goes: each layer's forward pass, backward pass and update, as CSV.

Two files, as the thesis on per-layer times of training writes them:

`experiment.csv`, a line for each iteration: network, batch, image, layout, threads, dtype, iteration, seconds,
images_per_second, data_s, forward_s, backward_s, update_s, loss_s, unexplained_s, unexplained_percent.

`layers.csv`, a line for each iteration and layer: network, batch, layout, threads, iteration, layer, kind, forward_s,
backward_s, update_s. A ReLU after a normalisation is part of that layer.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.training.blocks import Block
from examples.training.network import Network

__all__ = ["PHASES", "Experiment", "Iteration", "Stopwatch", "write_experiment", "write_layers"]

PHASES = ("forward", "backward", "update")


@dataclass
class Iteration:
    """Seconds of one iteration: all of it, and by layer and phase."""

    seconds: float = 0.0
    parts: dict[tuple[str, str], float] = field(default_factory=dict)

    def phase(self, phase: str) -> float:
        """Seconds of one phase in all layers."""
        return sum(seconds for (_, of), seconds in self.parts.items() if of == phase)

    @property
    def unexplained(self) -> float:
        """Seconds that no layer and no other part took."""
        return self.seconds - sum(self.parts.values())


class Stopwatch:
    """Times what runs through `run`; what runs inside of that is taken off the outer one's time."""

    def __init__(self) -> None:
        self.iterations: list[Iteration] = []
        self._current = Iteration()
        self._inside = 0.0
        self._begin = 0.0

    def run(self, name: str, phase: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call `work` and count its time for a name and a phase."""
        outer, self._inside = self._inside, 0.0
        begin = time.perf_counter()
        try:
            return work(*arguments)
        finally:
            elapsed = time.perf_counter() - begin
            parts = self._current.parts
            parts[name, phase] = parts.get((name, phase), 0.0) + elapsed - self._inside
            self._inside = outer + elapsed

    def begin(self) -> None:
        """Start an iteration; the layers of all networks report here until it ends."""
        self._current, self._inside = Iteration(), 0.0
        Block.stopwatch = self
        self._begin = time.perf_counter()

    def end(self) -> None:
        """End the iteration."""
        self._current.seconds = time.perf_counter() - self._begin
        Block.stopwatch = None
        self.iterations.append(self._current)

    @staticmethod
    def price(runs: int = 10_000) -> float:
        """Seconds that one `run` takes of itself: around a call that does nothing, the least of five times."""
        watch, times = Stopwatch(), []
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(runs):
                watch.run("layer", "forward", int)
            times.append((time.perf_counter() - begin) / runs)
        return min(times)

    def medians(self) -> Iteration:
        """The median of each part over all iterations."""
        result = Iteration(statistics.median(one.seconds for one in self.iterations))
        for key in self.iterations[0].parts:
            result.parts[key] = statistics.median(one.parts.get(key, 0.0) for one in self.iterations)
        return result

    def unexplained_share(self) -> float:
        """The share of all iterations' time that no part took."""
        return sum(one.unexplained for one in self.iterations) / sum(one.seconds for one in self.iterations)


Experiment = tuple[str, int, Network, Sequence[Iteration]]  # name, batch, network, its iterations


def write_experiment(path: Path, experiments: Sequence[Experiment]) -> None:
    """Write `experiment.csv`."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        parts = ("data", "forward", "backward", "update", "loss")
        out.writerow([
            "network", "batch", "image", "layout", "threads", "dtype", "iteration", "seconds", "images_per_second",
            *(f"{part}_s" for part in parts), "unexplained_s", "unexplained_percent",
        ])  # fmt: skip
        for name, batch, network, iterations in experiments:
            c = network.context
            setting = (name, batch, "x".join(map(str, network.image)), c.layout, c.threads or "", c.dtype)
            for i, one in enumerate(iterations):
                phases = (f"{one.phase(part):.9f}" for part in parts)
                rest = f"{one.unexplained:.9f}", f"{100 * one.unexplained / one.seconds:.3f}"
                out.writerow((*setting, i, f"{one.seconds:.9f}", f"{batch / one.seconds:.3f}", *phases, *rest))


def write_layers(path: Path, experiments: Sequence[Experiment]) -> None:
    """Write `layers.csv`."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(
            ["network", "batch", "layout", "threads", "iteration", "layer", "kind"] + [f"{p}_s" for p in PHASES]
        )
        for name, batch, network, iterations in experiments:
            c = network.context
            kinds = {layer.name: layer.kind for layer in network.layers}
            for i, one in enumerate(iterations):
                for layer in dict.fromkeys(layer for layer, phase in one.parts if phase in PHASES):
                    times = (f"{one.parts.get((layer, phase), 0.0):.9f}" for phase in PHASES)
                    kind = kinds.get(layer) or layer.rstrip("0123456789")
                    out.writerow((name, batch, c.layout, c.threads or "", i, layer, kind, *times))

"""Training steps beside PyTorch's: the same networks, weights and batches, in turns in one process.

    python bench/training_steps.py [--only vgg11,keras-cnn] [--threads 1,2] [--steps 7] [--tune 60s] [--json FILE]

A step is the forward pass, the loss, the backward pass and an update by SGD with momentum and weight decay. PyTorch
runs with contiguous and with channels-last images, and its fused SGD; the faster of the two counts. Medians; ratios are
PyTorch's time over ours. Of ours, the convolutions' share is shown, too; of MobileNet also PyTorch's, by its profiler.
Run it from a clone with the extra `examples` and PyTorch, on a machine that does nothing else; where there is none,
``--threads 1 --clock cpu`` counts processor time, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import convkit as ck
from examples.training import models, schedules, workers
from examples.training.layers import Context, Conv2d
from examples.training.network import Network
from examples.training.optimizers import SGD
from examples.training.timing import Stopwatch
from examples.training.torch_twin import Twin
from examples.training.trainer import Trainer

# Model, batch, and the ratio that is aimed at.
EXPERIMENTS = (
    ("vgg11", 12, 2.0), ("alexnet", 64, 1.5), ("vgg19-cifar", 64, 2.5), ("keras-cnn", 128, 1.0),
    ("resnet34-cifar", 64, 1.3), ("inception", 8, 1.2), ("mobilenet-cifar", 64, 1.2),
)  # fmt: skip
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")
Step = Callable[[], object]


class Ours:
    """A trainer on the batch."""

    def __init__(self, name: str, batch: int, threads: int, layout: str) -> None:
        model = models.get(name)
        self.network = Network(model.table, model.image, Context(layout, "float32", 0, threads))
        self.trainer = Trainer(self.network, SGD(self.network, 0.9, 5e-4), schedules.constant(1e-4))
        rng = np.random.default_rng(0)
        self.images = rng.standard_normal((batch, *model.image), np.float32)
        self.labels = rng.integers(0, self.network.out[0], batch)

    def step(self) -> None:
        """One step."""
        self.trainer.step(self.images, self.labels)

    def convolutions(self, steps: int) -> float:
        """Seconds of a step in convolutions, the middle of some steps."""
        watch = self.trainer.stopwatch = Stopwatch()
        for _ in range(steps):
            self.step()
        self.trainer.stopwatch = None
        names = {layer.name for layer in self.network.layers if isinstance(layer, Conv2d)}
        middle = watch.medians()
        return sum(middle.parts.get((name, phase), 0.0) for name in names for phase in ("forward", "backward"))


class Theirs:
    """PyTorch on the same batch."""

    def __init__(self, ours: Ours, memory: torch.memory_format) -> None:
        self.twin = Twin(ours.network)
        for parameter in self.twin.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=memory)
        self.optimizer = torch.optim.SGD(self.twin.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
        self.images = torch.from_numpy(ours.images).contiguous(memory_format=memory)
        self.labels = torch.from_numpy(ours.labels)

    def step(self) -> None:
        """One step."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(self.twin(self.images), self.labels).backward()
        self.optimizer.step()

    def convolutions(self, steps: int) -> float:
        """Seconds of a step in convolutions, as PyTorch's profiler has it."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for _ in range(steps):
                self.step()
        found = {event.key: event.cpu_time_total for event in profile.key_averages()}
        return sum(found.get(key, 0.0) for key in CONVOLUTIONS) / steps / 1e6


def in_turns(steps: dict[str, Step], count: int, clock: Callable[[], float]) -> dict[str, float]:
    """The middle of each one's times, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for i in range(count + 1):
        for name in order if i % 2 else reversed(order):
            begin = clock()
            steps[name]()
            if i:  # the first is a warm-up
                times[name].append(clock() - begin)
    return {name: statistics.median(found) for name, found in times.items()}


def measure(name: str, batch: int, threads: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One line of the table."""
    torch.set_num_threads(threads)
    workers.set_threads(threads)
    with threadpool_limits(1, user_api="blas"):  # NumPy's; PyTorch brings its own
        ours = Ours(name, batch, threads, arguments.layout)
        tuned = ck.tuning(mode="tune", budget=arguments.tune) if arguments.tune else nullcontext()
        with tuned:
            ours.step()
        formats = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
        theirs = {f"PyTorch {text}": Theirs(ours, memory) for text, memory in formats.items()}
        steps: dict[str, Step] = {"convkit": ours.step} | {text: one.step for text, one in theirs.items()}
        found = in_turns(steps, arguments.steps, time.process_time if arguments.clock == "cpu" else time.perf_counter)
        row: dict[str, Any] = {"network": name, "batch": batch, "threads": threads, "seconds": found}
        row["convolutions"] = ours.convolutions(max(3, arguments.steps // 2))
        best = min(theirs, key=lambda text: found[text])
        row["ratio"] = found[best] / found["convkit"]
        if name.startswith("mobilenet"):
            row["PyTorch convolutions"] = theirs[best].convolutions(3)
            row["ratio of convolutions"] = row["PyTorch convolutions"] / row["convolutions"]
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--layout", default="NHWC", choices=("NCHW", "NHWC"))
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"))
    parser.add_argument("--tune", help="measure kernels first, for as long at most")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else [name for name, _, _ in EXPERIMENTS]
    rows = []
    print(f"torch {torch.__version__}, numpy {np.__version__}, {arguments.layout}", flush=True)
    print(
        f"{'network':16} {'batch':>5} {'threads':>7} {'convkit':>9} {'contig.':>9} {'ch. last':>9}   ratio  aim  (ms)"
    )
    for name, batch, aim in EXPERIMENTS:
        if name not in wanted:
            continue
        for threads in map(int, arguments.threads.split(",")):
            row = measure(name, batch, threads, arguments)
            rows.append(row)
            times = " ".join(f"{1e3 * seconds:9.1f}" for seconds in row["seconds"].values())
            print(f"{name:16} {batch:5} {threads:7} {times}   {row['ratio']:5.2f}  {aim:.1f}", end="")
            print(f"  convolutions {1e3 * row['convolutions']:.1f}", end="")
            if "ratio of convolutions" in row:
                print(
                    f", PyTorch's {1e3 * row['PyTorch convolutions']:.1f}: {row['ratio of convolutions']:.2f}", end=""
                )
            print(flush=True)
            gc.collect()
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

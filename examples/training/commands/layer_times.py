"""Row 5: the time of every layer, forward, backward and update, and what measuring it costs."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from examples.training import models, options, schedules
from examples.training.network import Network
from examples.training.optimizers import SGD
from examples.training.options import Options
from examples.training.timing import PHASES, Experiment, Stopwatch, write_experiment, write_layers
from examples.training.trainer import Trainer
from examples.training.workers import Array

__all__ = ["layer_times"]

EXPERIMENTS = (("alexnet", 64), ("alexnet", 128), ("vgg11", 12))
QUICK = (("alexnet", 8), ("vgg11", 1))


def layer_times(
    quick: options.Quick = False,
    out: options.Out = Path("layer-times"),
    layout: options.LayoutOption = "NHWC",
    threads: options.Threads = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    iterations: Annotated[int, typer.Option(min=0, help="Timed iterations of each kind; 0: the command's own.")] = 0,
    warm_up: Annotated[int, typer.Option(min=1, help="Iterations before, which count for nothing.")] = 2,
) -> None:
    """AlexNet with batches of 64 and 128 and VGG-11 with 12: experiment.csv, layers.csv and stacked bars."""
    with options.options(quick, out, layout, threads, seed, False, mode) as run:
        count = iterations or (4 if quick else 10)
        table = Table(title=f"Per-layer times, {run.layout}, {run.threads} threads")
        for column in ("network", "batch", "ms", "images/s", "profiling costs %", "its calls %", "unexplained %"):
            table.add_column(column, justify="left" if column == "network" else "right")
        done: list[Experiment] = []
        for name, batch in QUICK if quick else EXPERIMENTS:
            measured = None
            with run.keeping():
                measured = _measure(run, name, batch, count, warm_up)
            if measured is None:
                break
            network, watch, plain = measured
            done.append((name, batch, network, watch.iterations))
            with_watch = [one.seconds for one in watch.iterations]
            # In turns: whatever else the machine does falls on both alike.
            cost = statistics.median(a / b for a, b in zip(with_watch, plain, strict=True)) - 1
            middle = statistics.median(with_watch)
            calls = Stopwatch.price() * len(watch.iterations[0].parts) / middle
            share = watch.unexplained_share()
            figures = f"{1e3 * middle:.1f}", f"{batch / middle:.1f}", f"{100 * cost:+.2f}"
            figures = *figures, f"{100 * calls:.3f}", f"{100 * share:.2f}"
            table.add_row(name, str(batch), *figures)
            _plot(run, name, batch, network, watch)
        write_experiment(out / "experiment.csv", done)
        write_layers(out / "layers.csv", done)
        run.say(table)
        run.say("profiling costs: iterations with it against those without, in turns; its calls: what they take alone")
        run.say(f"-> {out / 'experiment.csv'}, {out / 'layers.csv'}, {out}/*.png")


def _measure(run: Options, name: str, batch: int, count: int, warm_up: int) -> tuple[Network, Stopwatch, list[float]]:
    """Iterations with and without the stopwatch in turns."""
    model = models.get(name)
    network = Network(model.table, model.image, run.context())
    trainer = Trainer(network, SGD(network, 0.9, 5e-4), schedules.constant(0.001))
    rng = np.random.default_rng(run.seed)
    images: Array = rng.standard_normal((batch, *model.image), np.float32)
    labels = rng.integers(0, network.out[0], batch)
    for _ in range(warm_up):
        trainer.step(images, labels)
    watch, plain = Stopwatch(), []
    for i in range(2 * count):
        timed = (i + i // 2) % 2 == 0  # AB BA: a drift of the machine favours neither
        trainer.stopwatch = watch if timed else None
        begin = time.perf_counter()
        trainer.step(images, labels)
        if not timed:
            plain.append(time.perf_counter() - begin)
    trainer.stopwatch = None
    return network, watch, plain


def _plot(run: Options, name: str, batch: int, network: Network, watch: Stopwatch) -> None:
    from examples.training import pictures

    middle = watch.medians()
    names = list(dict.fromkeys(layer for layer, phase in middle.parts if phase in PHASES))
    parts = {phase: [middle.parts.get((layer, phase), 0.0) for layer in names] for phase in PHASES}
    title = f"{name}, batch {batch}, {run.threads} threads"
    pictures.stacked_bars(run.out / f"{name}-{batch}.png", title, names, parts)

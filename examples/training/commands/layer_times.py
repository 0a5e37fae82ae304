"""Row 5: the time of every layer, forward, backward and update, and what measuring it costs."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
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
from examples.training.trainer import Trainer, asked_by_interrupt
from examples.training.workers import Array

__all__ = ["layer_times"]

EXPERIMENTS = (("alexnet", 64), ("alexnet", 128), ("vgg11", 12))
QUICK = (("alexnet", 8), ("vgg11", 1))


def layer_times(
    quick: options.Quick = False,
    out: options.Out = Path("layer-times"),
    layout: options.LayoutOption = "NHWC",
    profile: options.Profile = False,
    threads: options.Threads = 0,
    iterations: Annotated[
        int,
        typer.Option(
            "--iterations",
            "--epochs",
            min=0,
            help="Timed iterations, epochs of one batch; 0: the command's own.",
        ),
    ] = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    warm_up: Annotated[int, typer.Option(min=1, help="Iterations before, which count for nothing.")] = 2,
) -> None:
    """AlexNet with batches of 64 and 128 and VGG-11 with 12: experiment.csv, layers.csv and stacked bars.

    It always times every layer; --profile adds every call of convkit.
    """
    with (
        options.options(quick, out, layout, threads, seed, profile, mode) as run,
        asked_by_interrupt(threading.Event()) as asked,
        run.calls(),
    ):
        count = iterations or (4 if quick else 10)
        table = Table(title=f"Per-layer times, {run.layout}, {run.threads} threads")
        for column in ("network", "batch", "ms", "images/s", "profiling costs %", "its calls %", "unexplained %"):
            table.add_column(column, justify="left" if column == "network" else "right")
        done: list[Experiment] = []
        for name, batch in QUICK if quick else EXPERIMENTS:
            network, watch, plain = _measure(run, name, batch, count, warm_up, asked)
            if plain:
                done.append((name, batch, network, watch.iterations))
                table.add_row(name, str(batch), *_figures(batch, watch, plain))
                _plot(run, name, batch, network, watch)
            if asked.is_set():
                run.say("interrupted; what was measured until then is written")
                break
        write_experiment(out / "experiment.csv", done)
        write_layers(out / "layers.csv", done)
        run.say(table)
        run.say("profiling costs: iterations with it against those without, in turns; its calls: what they take alone")
        run.say(f"-> {out / 'experiment.csv'}, {out / 'layers.csv'}, {out}/*.png")


def _figures(batch: int, watch: Stopwatch, plain: Sequence[float]) -> list[str]:
    """The table's cells."""
    # In turns: whatever else the machine does falls on both alike.
    pairs = zip((one.seconds for one in watch.iterations), plain, strict=True)
    cost = statistics.median(a / b for a, b in pairs) - 1
    middle = statistics.median(one.seconds for one in watch.iterations)
    calls = Stopwatch.price() * len(watch.iterations[0].parts) / middle
    return [
        f"{1e3 * middle:.1f}", f"{batch / middle:.1f}", f"{100 * cost:+.2f}", f"{100 * calls:.3f}",
        f"{100 * watch.unexplained_share():.2f}",
    ]  # fmt: skip


def _measure(
    run: Options, name: str, batch: int, count: int, warm_up: int, asked: threading.Event
) -> tuple[Network, Stopwatch, list[float]]:
    """Iterations with and without the stopwatch in turns; as many of both, also when asked to stop."""
    model = models.get(name)
    network = Network(model.table, model.image, run.context())
    trainer = Trainer(network, SGD(network, 0.9, 5e-4), schedules.constant(0.001))
    rng = np.random.default_rng(run.seed)
    images: Array = rng.standard_normal((batch, *model.image), np.float32)
    labels = rng.integers(0, network.out[0], batch)
    watch, plain = Stopwatch(), []
    with run.progress(trainer, f"{name}, batch {batch}", warm_up + 2 * count):
        for _ in range(warm_up):
            trainer.report(trainer.step(images, labels)[0], batch)
        for pair in range(count):
            if asked.is_set():
                break
            for timed in (False, True) if pair % 2 else (True, False):  # AB BA: a drift of the machine favours neither
                trainer.stopwatch = watch if timed else None
                begin = time.perf_counter()
                loss, _ = trainer.step(images, labels)
                if not timed:
                    plain.append(time.perf_counter() - begin)
                trainer.report(loss, batch)
    trainer.stopwatch = None
    return network, watch, plain


def _plot(run: Options, name: str, batch: int, network: Network, watch: Stopwatch) -> None:
    from examples.training import pictures

    middle = watch.medians()
    names = list(dict.fromkeys(layer for layer, phase in middle.parts if phase in PHASES))
    parts = {phase: [middle.parts.get((layer, phase), 0.0) for layer in names] for phase in PHASES}
    title = f"{name}, batch {batch}, {run.threads} threads"
    pictures.stacked_bars(run.out / f"{name}-{batch}.png", title, names, parts)

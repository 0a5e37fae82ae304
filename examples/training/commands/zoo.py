"""Row 2: the models of PyDTNN, at CIFAR's size: each trains for some steps; one of them under nested decisions."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

import convkit as ck
from examples.training import models, options, schedules
from examples.training.data import shapes
from examples.training.layers import Context, Conv2d
from examples.training.network import Network
from examples.training.optimizers import SGD
from examples.training.options import Options
from examples.training.timing import Experiment, Stopwatch, write_experiment, write_layers
from examples.training.trainer import Trainer
from examples.training.workers import Array

__all__ = ["MODELS", "zoo"]

MODELS = (
    "alexnet-cifar", "vgg11-cifar", "vgg16-cifar", "vgg19-cifar", "resnet34-cifar", "resnet50-cifar",
    "googlenet-cifar", "inception-v3-cifar", "densenet121-cifar", "mobilenet-cifar",
)  # fmt: skip


def zoo(
    quick: options.Quick = False,
    out: options.Out = Path("zoo"),
    layout: options.LayoutOption = "NHWC",
    profile: options.Profile = False,
    threads: options.Threads = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    batch: Annotated[int, typer.Option(min=0, help="Images of a batch; 0: the command's own.")] = 0,
    steps: Annotated[int, typer.Option(min=0, help="Steps of each network; 0: the command's own.")] = 0,
    only: Annotated[str, typer.Option(help="Names of models, with commas between; empty: all ten.")] = "",
    nested: Annotated[str, typer.Option(help="The model whose layout and pipelines BestOf decides; empty: none.")] = (
        "vgg11-cifar"
    ),
) -> None:
    """AlexNet, VGG, ResNet, GoogLeNet, Inception v3, DenseNet and MobileNet train on drawn shapes of 32x32."""
    with options.options(quick, out, layout, threads, seed, profile, mode) as run:
        batch = batch or (4 if quick else 64)
        steps = steps or (2 if quick else 10)
        names = tuple(only.split(",")) if only else MODELS
        table = Table(title=f"CIFAR size, batch {batch}, {run.threads} threads, {run.layout}")
        for column in ("network", "convolutions", "parameters", "first loss", "last loss", "ms a step", "images/s"):
            table.add_column(column, justify="left" if column == "network" else "right")
        rows = []
        ran: list[Experiment] = []
        for name in names:
            with run.keeping():
                rows.append(_train(run, name, batch, steps, ran))
            if len(rows) <= names.index(name):
                break
            title, convolutions, parameters, first, last, milliseconds, speed = rows[-1]
            table.add_row(
                title, str(convolutions), f"{parameters:,}", f"{first:.3f}", f"{last:.3f}", f"{milliseconds:.1f}",
                f"{speed:.0f}",
            )  # fmt: skip
            if not options.console.is_terminal:
                run.say(f"{title}: loss {first:.3f} -> {last:.3f}, {milliseconds:.1f} ms a step")
        with (out / "zoo.csv").open("w", newline="", encoding="utf-8") as stream:
            columns = ("network", "convolutions", "parameters", "first_loss", "last_loss", "ms_a_step", "images_per_s")
            csv.writer(stream).writerows([columns, *rows])
        run.say(table)
        run.say(f"-> {out / 'zoo.csv'}")
        if profile:
            write_experiment(out / "experiment.csv", ran)
            write_layers(out / "layers.csv", ran)
            run.say(f"-> {out / 'experiment.csv'}, {out / 'layers.csv'}")
        if nested and len(rows) == len(names):
            _decide(run, nested, batch)


def _trainer(run: Options, name: str, context: Context) -> Trainer:
    model = models.get(name)
    network = Network(model.table, model.image, context)
    return Trainer(network, SGD(network, 0.9, 1e-4), schedules.warmup(10, schedules.constant(0.01)))


def _train(
    run: Options, name: str, batch: int, steps: int, ran: list[Experiment]
) -> tuple[str, int, int, float, float, float, float]:
    trainer = _trainer(run, name, run.context())
    if run.profile:
        trainer.stopwatch = Stopwatch()
        ran.append((name, batch, trainer.network, trainer.stopwatch.iterations))
    data = shapes.load("shapes", 32, 10, batch * min(steps, 8), 0, run.seed)
    times, found = [], []
    with run.progress(trainer, name, steps):
        for i in range(steps):
            chosen = np.arange(batch) + batch * (i % (len(data.train) // batch))
            begin = time.perf_counter()
            loss, _ = trainer.step(data.train[chosen] - np.float32(0.5), data.train_labels[chosen])
            times.append(time.perf_counter() - begin)
            found.append(loss)
            trainer.report(loss, batch)
    middle = statistics.median(times[1:] or times)
    convolutions = sum(isinstance(layer, Conv2d) for layer in trainer.network.layers)
    size = trainer.network.values.size
    return models.get(name).title, convolutions, size, found[0], found[-1], 1e3 * middle, batch / middle


class Deciding:
    """What stands for a layer's `TrainingConv2d`: its two pipelines compete on the training's own passes."""

    def __init__(self, layer: Conv2d) -> None:
        options = {**layer.geometry, **layer.limits, "input_gradient": layer.input_gradient}
        plans = [(name, ck.TrainingConv2d(**options, algorithm=name)) for name in ("kernels", "columns")]
        self.best: Any = ck.BestOf(
            layer.name,
            [(name, [plan.forward, plan.backward]) for name, plan in plans],
            key=lambda x, *_: x.shape,
            threads=lambda: layer.context.threads or 1,
        )
        self.passing: Any = None

    def forward(self, x: Array, w: Array, bias: Array | None) -> Any:
        """The first stage of a pass."""
        self.passing = self.best.start(x)
        return self.passing(x, w, bias)

    def backward(self, dy: Array) -> Any:
        """The second stage."""
        return self.passing(dy)


def _decide(run: Options, name: str, batch: int) -> None:
    """Which layout is faster for a whole step? A step counts once each layer inside has settled on a pipeline."""
    data = shapes.load("shapes", 32, 10, batch, 0, run.seed)
    images = data.train - np.float32(0.5)
    deciding: list[Deciding] = []

    def step_in(layout: str) -> Callable[[], float]:
        trainer = _trainer(run, name, Context(layout, "float32", run.seed, run.threads))
        for layer in trainer.network.layers:
            if isinstance(layer, Conv2d):
                layer.plan = Deciding(layer)
                deciding.append(layer.plan)
        return lambda: trainer.step(images, data.train_labels)[0]

    best: Any = ck.BestOf(
        f"{name} step", [(layout, step_in(layout)) for layout in ("NCHW", "NHWC")], threads=lambda: run.threads
    )
    for _ in range(400):
        best()
        if best.settled():
            break
    report = best.report()
    (run.out / "bestof.txt").write_text(f"{report}\n", encoding="utf-8")
    (run.out / "bestof.json").write_text(report.to_json(), encoding="utf-8")
    found = [(problem.settled, one.best.name) for one in deciding for problem in one.best.report().problems]
    columns = [layer for settled, layer in found if settled == "columns"]
    run.say(
        f"BestOf: a step of {models.get(name).title} in {best.settled() or 'either layout (still exploring)'}; inside, "
        f"{sum(settled is not None for settled, _ in found)} of {len(found)} layers have settled, {len(columns)} of "
        f"them on columns -> {run.out / 'bestof.txt'}"
    )

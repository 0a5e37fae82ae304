"""Row 2: the models of PyDTNN, at CIFAR's size: each trains for some steps; one of them under nested decisions."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

import convkit as ck
from examples.training import models, options, schedules
from examples.training.data import Dataset, shapes
from examples.training.layers import Context, Conv2d
from examples.training.network import Network
from examples.training.optimizers import SGD
from examples.training.options import Options
from examples.training.timing import Experiment
from examples.training.trainer import Trainer
from examples.training.workers import Array

__all__ = ["MODELS", "zoo"]

MODELS = (
    "alexnet-cifar", "vgg11-cifar", "vgg16-cifar", "vgg19-cifar", "resnet34-cifar", "resnet50-cifar",
    "googlenet-cifar", "inception-v3-cifar", "densenet121-cifar", "mobilenet-cifar",
)  # fmt: skip
COLUMNS = ("network", "convolutions", "parameters", "first loss", "last loss", "ms a step", "images a second")


def zoo(
    quick: options.Quick = False,
    out: options.Out = Path("zoo"),
    layout: options.LayoutOption = "NHWC",
    profile: options.Profile = False,
    threads: options.Threads = 0,
    epochs: options.Epochs = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    resume: options.Resume = False,
    batch: Annotated[int, typer.Option(min=0, help="Images of a batch; 0: the command's own.")] = 0,
    only: Annotated[str, typer.Option(help="Names of models, with commas between; empty: all ten.")] = "",
    nested: Annotated[str, typer.Option(help="The model whose layout and pipelines BestOf decides; empty: none.")] = (
        "vgg11-cifar"
    ),
) -> None:
    """AlexNet, VGG, ResNet, GoogLeNet, Inception v3, DenseNet and MobileNet train on drawn shapes of 32x32."""
    with options.options(quick, out, layout, threads, seed, profile, mode) as run:
        batch = batch or (4 if quick else 64)
        names = tuple(only.split(",")) if only else MODELS
        table = Table(title=f"CIFAR size, batch {batch}, {run.threads} threads, {run.layout}")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "network" else "right")
        data = shapes.load("shapes", 32, 10, batch * (2 if quick else 8), batch, seed)
        half = np.float32(0.5)
        data = replace(data, train=data.train - half, test=data.test - half)
        rows = []
        with run.profiling() as ran:
            for name in names:
                rows.append(_train(run, name, data, batch, epochs or (1 if quick else 2), resume, ran))
                title, convolutions, parameters, first, last, milliseconds, speed = rows[-1]
                cells = f"{parameters:,}", f"{first:.3f}", f"{last:.3f}", f"{milliseconds:.1f}", f"{speed:.0f}"
                table.add_row(title, str(convolutions), *cells)
                if not options.console.is_terminal:
                    run.say(f"{title}: loss {first:.3f} -> {last:.3f}, {milliseconds:.1f} ms a step")
        with (out / "zoo.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([COLUMNS, *rows])
        run.say(table)
        run.say(f"-> {out / 'zoo.csv'}")
        for name in names:  # they are for an interrupted command, and large
            _checkpoint(run, name).unlink(missing_ok=True)
        if nested:
            _decide(run, nested, batch)


def _trainer(run: Options, name: str, context: Context) -> Trainer:
    model = models.get(name)
    network = Network(model.table, model.image, context)
    return Trainer(network, SGD(network, 0.9, 1e-4), schedules.warmup(10, schedules.constant(0.01)))


def _checkpoint(run: Options, name: str) -> Path:
    return run.out / f"{name}.npz"


def _train(
    run: Options, name: str, data: Dataset, batch: int, epochs: int, resume: bool, ran: list[Experiment]
) -> tuple[str, int, int, float, float, float, float]:
    """A row of the table; losses and the time of a step are means of the first and the last epoch."""
    trainer = _trainer(run, name, run.context())
    trainer.stopwatch = run.stopwatch(ran, name, batch, trainer.network)
    path = _checkpoint(run, name)
    steps = len(data.train) // batch
    with run.progress(trainer, name, epochs * steps):
        history = trainer.fit(data, epochs, batch, path=path, resume=resume and path.exists())
    seconds = history[-1].seconds / steps
    convolutions = sum(isinstance(layer, Conv2d) for layer in trainer.network.layers)
    sizes = convolutions, trainer.network.values.size
    return models.get(name).title, *sizes, history[0].loss, history[-1].loss, 1e3 * seconds, batch / seconds


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

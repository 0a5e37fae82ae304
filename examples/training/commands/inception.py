"""Row 6: AlexNet and an Inception network on pictures of two classes, 256x256x3, and one picture classified."""

from __future__ import annotations

import csv
from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.table import Table

from examples.training import checkpoints, models, options, schedules
from examples.training.data import Dataset, folder, shapes
from examples.training.layers import Context
from examples.training.network import Network
from examples.training.optimizers import SGD
from examples.training.options import Options
from examples.training.trainer import Epoch, Trainer

__all__ = ["inception"]

SIZE = 256
RATES = {"inception": 0.005, "alexnet": 0.003}


def inception(
    quick: options.Quick = False,
    out: options.Out = Path("inception"),
    layout: options.LayoutOption = "NHWC",
    profile: options.Profile = False,
    threads: options.Threads = 0,
    epochs: options.Epochs = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    resume: options.Resume = False,
    images: Annotated[
        Path | None, typer.Option(help="A folder with a subfolder of pictures for each class; none: drawn shapes.")
    ] = None,
    network: Annotated[Literal["both", "inception", "alexnet"], typer.Option(help="Which network.")] = "both",
    classify: Annotated[Path | None, typer.Option(help="Only classify this picture, by the saved networks.")] = None,
) -> None:
    """Loss, accuracy and learning rate by epoch, time per epoch, and inference of the saved network."""
    names = ("inception", "alexnet") if network == "both" else (network,)
    with options.options(quick, out, layout, threads, seed, profile, mode) as run:
        if classify is not None:
            for name in names:
                _classify(run, name, classify)
            return
        data = _data(run, images)
        runs = {name: _train(run, name, data, epochs or (4 if quick else 6), resume) for name in names}
        _write(run, runs)
        from examples.training import pictures

        picture = out / "picture.png"
        pictures.save_picture(picture, data.test[0])
        for name in names:
            _classify(run, name, picture)


def _data(run: Options, source: Path | None) -> Dataset:
    size = 96 if run.quick else SIZE
    if source is not None:
        return folder.load(source, size, run.seed)
    run.say("No --images: striped squares and discs, drawn by the seed, are the two classes.")
    count = (128, 32) if run.quick else (320, 80)
    return shapes.load("shapes", size, 2, *count, seed=run.seed)


def _network(name: str, classes: int, size: int, context: Context) -> Network:
    table = models.inception(classes) if name == "inception" else models.alexnet(classes, False)
    return Network(table, (3, size, size), context)


def _train(run: Options, name: str, data: Dataset, epochs: int, resume: bool) -> list[Epoch]:
    classes, size, batch = int(data.train_labels.max()) + 1, data.train.shape[2], 16
    network = _network(name, classes, size, run.context())
    run.say(f"{name}: {options.learned(network)}, {len(data.train)} pictures of {size}x{size}")
    steps = epochs * -(-len(data.train) // batch)
    rate = schedules.warmup(min(10, steps // 4), schedules.cosine(RATES[name], steps))
    trainer = Trainer(network, SGD(network, 0.9, 1e-4), rate, group=run.group)
    path = run.out / f"{name}.npz"
    shifted = Dataset(data.name, data.train - 0.5, data.train_labels, data.test - 0.5, data.test_labels)
    with run.progress(trainer, name, steps), run.profiled(trainer, name, batch):
        history = trainer.fit(shifted, epochs, batch, path=path, resume=resume and path.exists())
    if run.first:
        checkpoints.save(run.out / f"{name}-final.npz", network, classes=classes, size=size)
    return history


def _classify(run: Options, name: str, picture: Path) -> None:
    path = run.out / f"{name}-final.npz"
    classes, size = checkpoints.progress(path, "classes", "size")
    network = _network(name, classes, size, run.context())
    checkpoints.load(path, network)
    y = network.forward(network.images(folder.read(picture, size)[None] - np.float32(0.5)))[0]
    shares = np.exp(y - y.max())
    shares /= shares.sum()
    said = ", ".join(f"class {i}: {100 * share:.1f}%" for i, share in enumerate(shares))
    run.say(f"{name} about {picture.name}: {said}")


def _write(run: Options, runs: dict[str, list[Epoch]]) -> None:
    from examples.training import pictures

    table = Table(title=f"Two classes of pictures, {run.threads} threads, {run.layout}")
    for column in ("network", "epoch", "rate", "loss", "accuracy %", "test %", "seconds"):
        table.add_column(column, justify="left" if column == "network" else "right")
    with (run.out / "epochs.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("network", "epoch", "rate", "loss", "accuracy", "error", "seconds"))
        for name, history in runs.items():
            for row in history:
                writer.writerow((name, *astuple(row)))
                percent = f"{100 * row.accuracy:.1f}", f"{100 * (1 - row.error):.1f}"
                table.add_row(
                    name, str(row.epoch), f"{row.rate:.4f}", f"{row.loss:.4f}", *percent, f"{row.seconds:.1f}"
                )
    run.say(table)
    pictures.curves(run.out / "curves.png", runs)
    run.say(f"-> {run.out / 'epochs.csv'}, {run.out / 'curves.png'}")

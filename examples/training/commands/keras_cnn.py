"""Row 4: the Keras study's network on MNIST, Fashion-MNIST and CIFAR-10, alone or data-parallel."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from examples.training import models, options, schedules
from examples.training.data import DataError, Dataset, cifar, digits, idx, shapes
from examples.training.network import Network
from examples.training.optimizers import SGD
from examples.training.options import Options
from examples.training.trainer import Epoch, Trainer
from examples.training.workers import Array

__all__ = ["keras_cnn"]

BATCH, RATE = 64, 0.04


def keras_cnn(
    quick: options.Quick = False,
    out: options.Out = Path("keras-cnn"),
    layout: options.LayoutOption = "NHWC",
    profile: options.Profile = False,
    threads: options.Threads = 0,
    epochs: options.Epochs = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    resume: options.Resume = False,
    data_dir: options.DataDir = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs with seeds of their own, for mean and variance.")] = 5,
) -> None:
    """Train conv 30@5x5, pool, conv 15@3x3, pool, dropout 0.2, dense 128, 50, 10; error by epoch over several seeds."""
    with options.options(quick, out, layout, threads, seed, profile, mode) as run:
        epochs = epochs or (6 if quick else 15)
        seeds = min(seeds, 2) if quick else seeds
        errors: dict[str, Array] = {}
        rows: list[tuple[str, int, Epoch]] = []
        for data in _sets(run, data_dir):
            histories = [_train(run, data, seed + i, epochs, resume) for i in range(seeds)]
            rows += [(data.name, seed + i, row) for i, history in enumerate(histories) for row in history]
            errors[data.name] = np.array([[row.error for row in history] for history in histories])
        if run.first:
            _write(run, errors, rows)


def _sets(run: Options, folder: Path | None) -> list[Dataset]:
    """The study's three sets where their files are; what stands for them where they are not."""
    found = []
    if folder is not None:
        for name in ("mnist", "fashion-mnist", "cifar-10"):
            try:
                found.append(cifar.load(folder) if name == "cifar-10" else idx.load(folder, name))
            except DataError as error:
                run.say(f"without {name}: {error}")
        if not found:
            raise DataError(f"{folder} has none of the three sets")
        return [data.cut(2000, 1000) for data in found] if run.quick else found
    run.say("No --data-dir: scikit-learn's digits at 28x28 and drawn shapes at 32x32 stand for MNIST and CIFAR-10.")
    count = (600, 200) if run.quick else (5000, 1000)
    return [digits.load(), shapes.load("shapes", 32, 10, *count)]


def _train(run: Options, data: Dataset, seed: int, epochs: int, resume: bool) -> list[Epoch]:
    mean, deviation = data.train.mean(), data.train.std()
    data = Dataset(
        data.name, (data.train - mean) / deviation, data.train_labels, (data.test - mean) / deviation, data.test_labels
    )
    network = Network(models.get("keras-cnn").table, data.train.shape[1:], run.context(seed))
    steps = epochs * -(-len(data.train) // BATCH)
    trainer = Trainer(
        network, SGD(network, 0.9, 1e-4), schedules.warmup(20, schedules.cosine(RATE, steps)), group=run.group
    )
    path = run.out / f"{data.name}-{seed}.npz"
    with run.progress(trainer, f"{data.name}, seed {seed}", steps), run.profiled(trainer, "keras-cnn", BATCH):
        history = trainer.fit(data, epochs, BATCH, path=path, resume=resume and path.exists())
    if run.first and not options.console.is_terminal:
        last = history[-1]
        run.say(f"{data.name}, seed {seed}: loss {last.loss:.4f}, error {100 * last.error:.2f}%")
    return history


def _write(run: Options, errors: dict[str, Array], rows: list[tuple[str, int, Epoch]]) -> None:
    with (run.out / "epochs.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [
                ("set", "seed", "epoch", "rate", "loss", "accuracy", "error", "seconds"),
                *((n, s, e.epoch, e.rate, e.loss, e.accuracy, e.error, e.seconds) for n, s, e in rows),
            ]
        )
    processes = f"processes x threads: {run.group.size}x{run.threads}"
    table = Table(title=f"Keras CNN, batch {BATCH}, {processes}, {run.layout}")
    for column in ("set", "epoch", "error %", "variance", "s an epoch"):
        table.add_column(column, justify="left" if column == "set" else "right")
    with (run.out / "error.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("set", "epoch", "seeds", "mean_error", "variance_of_error", "mean_seconds"))
        for name, values in errors.items():
            for i in range(values.shape[1]):
                seconds = np.mean([e.seconds for n, _, e in rows if n == name and e.epoch == i + 1])
                mean, variance = values[:, i].mean(), values[:, i].var()
                writer.writerow((name, i + 1, len(values), mean, variance, seconds))
                if i + 1 in (1, 2, 5, 10, values.shape[1]):
                    percent = f"{100 * mean:.2f}", f"{1e4 * variance:.3f}"
                    table.add_row(name, str(i + 1), *percent, f"{seconds:.2f}")
    run.say(table)
    try:
        from examples.training import pictures
    except ModuleNotFoundError as error:
        run.say(f"no plot: {error.name} is not installed (extra `examples`)")
    else:
        pictures.error_by_epoch(run.out / "error.png", errors)
    run.say(f"-> {run.out / 'error.csv'}, {run.out / 'epochs.csv'}, {run.out / 'error.png'}")

"""Row 7: transfer: the body of MobileNetV2 stays as it is, a new head learns on what it sees."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from examples.training import checkpoints, models, options, schedules
from examples.training.data import Dataset, folder, shapes
from examples.training.network import Network
from examples.training.optimizers import SGD, Adam
from examples.training.options import Options
from examples.training.trainer import Trainer
from examples.training.workers import Array

__all__ = ["transfer"]

BATCH = 32


def transfer(
    quick: options.Quick = False,
    out: options.Out = Path("transfer"),
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
    weights: Annotated[Path | None, typer.Option(help="A checkpoint of the body, body.npz of an earlier run.")] = None,
    pretrain: Annotated[
        int,
        typer.Option(min=-1, help="Epochs in which the body first learns eight other kinds of shapes; -1: 6, quick 0."),
    ] = -1,
) -> None:
    """A frozen MobileNetV2 body of depthwise and pointwise layers, a new dense head."""
    with options.options(quick, out, layout, threads, seed, profile, mode) as run:
        size = 64 if quick else 96
        data = folder.load(images, size, seed) if images else _drawn(run, size)
        body = Network(models.mobilenet_v2(), (3, size, size), run.context())
        if weights is None:
            first = pretrain if pretrain >= 0 else 0 if quick else 6
            run.say(f"No --weights, and none can be had here: random ones, {first} epochs on eight kinds of shapes.")
            _learn_first(run, body, size, first, resume)
            checkpoints.save(out / "body.npz", body)
        else:
            checkpoints.load(weights, body)
        begin = time.perf_counter()
        # Nothing below the head learns, so that each picture goes through the body once.
        seen = [_features(body, part) for part in (data.train, data.test)]
        seconds = time.perf_counter() - begin
        count = len(data.train) + len(data.test)
        run.say(f"body: {options.learned(body)}, {count} pictures in {seconds:.2f} s, {count / seconds:.0f} a second")
        classes = int(data.train_labels.max()) + 1
        mean, deviation = seen[0].mean(axis=0), seen[0].std(axis=0) + 1e-6
        train, test = ((part - mean) / deviation for part in seen)
        head = Network((("dense", classes),), (body.out[0],), run.context())
        rounds = epochs or (15 if quick else 40)
        steps = rounds * -(-len(train) // BATCH)
        trainer = Trainer(head, Adam(head, decay=0.1), schedules.cosine(0.003, steps), group=run.group)
        with run.progress(trainer, "head", steps), run.profiled(trainer, "head", BATCH):
            history = trainer.fit(
                Dataset(data.name, train, data.train_labels, test, data.test_labels), rounds, BATCH,
                path=out / "head.npz",
            )  # fmt: skip
        last = history[-1]
        run.say(
            f"head: {options.learned(head)}; after {rounds} epochs accuracy {100 * last.accuracy:.1f}% in training, "
            f"{100 * (1 - last.error):.1f}% in the test ({100 / classes:.0f}% would be chance)"
        )
        run.say(f"-> {out / 'head.npz'}")


def _drawn(run: Options, size: int) -> Dataset:
    run.say("No --images: striped squares and discs, drawn by the seed, are the classes.")
    return shapes.load("shapes", size, 2, *((240, 80) if run.quick else (600, 200)), seed=run.seed)


def _learn_first(run: Options, body: Network, size: int, epochs: int, resume: bool) -> None:
    """Train the body with a head of its own on kinds of shapes that the later task does not have.

    Without it the features are random, and a head on them can do little more than guess.
    """
    kinds = list(shapes.KINDS)[2:]
    data = shapes.load("other shapes", size, len(kinds), *((320, 80) if run.quick else (1600, 200)), run.seed, kinds)
    whole = Network((*models.mobilenet_v2(), ("dense", len(kinds))), (3, size, size), run.context())
    steps = epochs * -(-len(data.train) // BATCH)
    trainer = Trainer(
        whole, SGD(whole, 0.9, 4e-5), schedules.warmup(20, schedules.cosine(0.02, steps)), group=run.group
    )
    half = np.float32(0.5)
    shifted = Dataset(data.name, data.train - half, data.train_labels, data.test - half, data.test_labels)
    if epochs:
        with run.progress(trainer, "body", steps):
            path = run.out / "body-training.npz"
            last = trainer.fit(shifted, epochs, BATCH, path=path, resume=resume and path.exists())[-1]
        run.say(f"body alone: {100 * (1 - last.error):.1f}% of eight kinds of shapes right in the test")
    else:  # normalisations that have never been trained know nothing of pictures; let them see some
        for first in range(0, len(shifted.train), BATCH):
            whole.forward(whole.images(shifted.train[first : first + BATCH]), training=True)
    body.values[...] = whole.values[: body.values.size]
    for mine, learned in zip(body.buffers().values(), whole.buffers().values(), strict=True):
        mine[...] = learned


def _features(body: Network, images: Array) -> Array:
    parts = [body.forward(body.images(images[i : i + BATCH] - np.float32(0.5))) for i in range(0, len(images), BATCH)]
    return np.concatenate(parts)

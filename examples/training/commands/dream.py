"""Row 7: Deep Dream: the picture changes until an Inception body is excited by it."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from examples.training import checkpoints, models, options
from examples.training.network import Network, Table
from examples.training.normalization import BatchNorm
from examples.training.options import Options
from examples.training.timing import Experiment
from examples.training.trainer import Interrupted, asked_by_interrupt
from examples.training.workers import Array

__all__ = ["dream"]

# The stem and the first block of each kind.
BODY: Table = (*models.inception_stem(False), models.inception_a(32), models.reduction_a(), models.inception_b(128))


def dream(
    quick: options.Quick = False,
    out: options.Out = Path("dream"),
    layout: options.LayoutOption = "NHWC",
    profile: options.Profile = False,
    threads: options.Threads = 0,
    epochs: options.Epochs = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    resume: options.Resume = False,
    steps: Annotated[int, typer.Option(min=0, help="Steps in each size; 0: the command's own.")] = 0,
    image: Annotated[Path | None, typer.Option(help="A photograph; none: matplotlib's sample.", exists=True)] = None,
    weights: Annotated[
        Path | None, typer.Option(help="inception-final.npz of the command `inception`; none: random weights.")
    ] = None,
) -> None:
    """Gradient ascent on a photograph, from a small size to its own: the mean square of a block's output grows.

    An epoch goes through all sizes once.
    """
    with options.options(quick, out, layout, threads, seed, profile, mode) as run:
        photo = _photo(image, 192 if quick else 448)
        sizes = [round(len(photo[0]) * 0.7**i) for i in reversed(range(2 if quick else 4))]
        body = None if weights is None else _body_of(weights, run)
        if body is None:
            run.say("The body has random weights: no trained ones can be had here. --weights takes a checkpoint.")
        path = out / "ascent.npz"
        ascent = Ascent(run, path, photo, steps or (6 if quick else 15), body)
        if resume and path.exists():
            ascent.load()
        with run.profiling() as ran, asked_by_interrupt(ascent.asked):
            for size in sizes * (epochs or 1):
                ascent.climb(size, ran)
        rows = ascent.rows
        change = _resized(ascent.change, len(photo[0]))
        from examples.training import pictures

        with (out / "ascent.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("size", "step", "excitement"), *rows])
        pictures.save_picture(out / "dream.png", photo + change)
        pictures.sheet(out / "before-after.png", {"before": photo[None], "after": (photo + change)[None]})
        size = rows[-1][0]
        found = [excitement for of, _, excitement in rows[-ascent.steps :]]
        run.say(f"{size}x{size}: excitement {found[0]:.4f} -> {found[-1]:.4f} in the last size")
        run.say(f"-> {out / 'dream.png'}, {out / 'before-after.png'}, {out / 'ascent.csv'}")
        path.unlink(missing_ok=True)


class Ascent:
    """What has become of the photograph so far, and the way there: (size, step, excitement)."""

    def __init__(self, run: Options, path: Path, photo: Array, steps: int, body: Network | None) -> None:
        self.run, self.path, self.photo, self.steps, self.body = run, path, photo, steps, body
        self.change = np.zeros((3, 1, 1), np.float32)
        self.rows: list[tuple[int, int, float]] = []
        self.asked = threading.Event()
        self.to_skip = 0  # steps of a run that went on from a checkpoint

    def load(self) -> None:
        """Go on from the checkpoint."""
        arrays, saved = checkpoints.read(self.path)
        settings = self._settings()
        if saved.get("settings") != settings:
            raise checkpoints.CheckpointError(f"{self.path} belongs to another ascent: {saved.get('settings')}")
        self.change = arrays["change"]
        self.rows = [tuple(row) for row in saved["rows"]]
        self.to_skip = len(self.rows)

    def _settings(self) -> list[object]:
        return [list(self.photo.shape), self.steps, self.run.seed, self.body is not None]

    def climb(self, size: int, ran: list[Experiment]) -> None:
        """Steps of one size, all of the same mean length, on a picture that is shifted a little each time."""
        if self.to_skip >= self.steps:
            self.to_skip -= self.steps
            return
        base = _resized(self.photo, size)
        network = self._network(base)
        watch = self.run.stopwatch(ran, f"body at {size}", 1, network)
        if self.change.shape[1] != size:
            self.change = _resized(self.change, size)
        first, self.to_skip = self.to_skip, 0
        for step in range(first, self.steps):
            if watch is not None:
                watch.begin()
            self._step(network, base, step)
            if watch is not None:
                watch.end()
            if self.asked.is_set():
                checkpoints.write(self.path, {"change": self.change}, {"rows": self.rows, "settings": self._settings()})
                raise Interrupted

    def _step(self, network: Network, base: Array, step: int) -> None:
        size = base.shape[1]
        shift = tuple(np.random.default_rng([self.run.seed, len(self.rows)]).integers(-8, 9, 2))
        x = network.images(np.roll(base + self.change, shift, (1, 2))[None] - np.float32(0.5))
        y = network.forward(x, training=True)
        self.rows.append((size, step, float(np.mean(y * y, dtype=np.float64))))
        gradient = network.backward(y * np.float32(2.0 / y.size))
        dx = gradient[0] if network.context.layout == "NCHW" else gradient[0].transpose(2, 0, 1)
        dx = np.roll(dx, tuple(-s for s in shift), (1, 2))
        stepped = base + self.change + np.float32(0.015) * dx / (np.abs(dx).mean() + 1e-12)
        self.change = np.clip(stepped, 0, 1) - base

    def _network(self, base: Array) -> Network:
        """The body for pictures of this size, with statistics that stay as they are."""
        network = Network(BODY, base.shape, self.run.context(), input_gradient=True)
        if self.body is not None:
            for mine, theirs in (
                (network.values, self.body.values),
                *zip(network.buffers().values(), self.body.buffers().values(), strict=True),
            ):
                mine[...] = theirs
        else:
            for _ in range(20):  # normalisations that have never seen a picture get to know this one
                network.forward(network.images(base[None] - np.float32(0.5)), training=True)
        for layer in network.layers:
            if isinstance(layer, BatchNorm):
                layer.frozen = True
        return network


def _photo(path: Path | None, size: int) -> Array:
    from matplotlib import cbook

    from examples.training.data import folder

    return folder.read(path or Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))), size)


def _resized(image: Array, size: int) -> Array:
    """Between pixels, interpolated linearly."""
    old = image.shape[1]
    if old == size:
        return image
    places = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(old))).astype(np.float32)
    return np.asarray(weights @ image @ weights.T)


def _body_of(path: Path, run: Options) -> Network:
    """The body of a whole Inception network: its first parameters and statistics."""
    classes, size = checkpoints.progress(path, "classes", "size")
    whole = Network(models.inception(classes), (3, size, size), run.context())
    checkpoints.load(path, whole)
    body = Network(BODY, (3, size, size), run.context())
    body.values[...] = whole.values[: body.values.size]
    for mine, theirs in zip(body.buffers().values(), whole.buffers().values(), strict=False):
        mine[...] = theirs
    return body

"""Row 7: Deep Dream: the picture changes until an Inception body is excited by it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from examples.training import checkpoints, models, options
from examples.training.network import Network, Table
from examples.training.normalization import BatchNorm
from examples.training.options import Options
from examples.training.workers import Array

__all__ = ["dream"]

# The stem and the first block of each kind.
BODY: Table = (*models.inception_stem(False), models.inception_a(32), models.reduction_a(), models.inception_b(128))


def dream(
    quick: options.Quick = False,
    out: options.Out = Path("dream"),
    layout: options.LayoutOption = "NHWC",
    threads: options.Threads = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    steps: Annotated[int, typer.Option(min=0, help="Steps in each size; 0: the command's own.")] = 0,
    image: Annotated[Path | None, typer.Option(help="A photograph; none: matplotlib's sample.", exists=True)] = None,
    weights: Annotated[
        Path | None, typer.Option(help="inception-final.npz of the command `inception`; none: random weights.")
    ] = None,
) -> None:
    """Gradient ascent on a photograph, from a small size to its own: the mean square of a block's output grows."""
    with options.options(quick, out, layout, threads, seed, False, mode) as run:
        photo = _photo(image, 192 if quick else 448)
        sizes = [round(len(photo[0]) * 0.7**i) for i in reversed(range(2 if quick else 4))]
        body = None if weights is None else _body_of(weights, run)
        if body is None:
            run.say("The body has random weights: no trained ones can be had here. --weights takes a checkpoint.")
        rows: list[tuple[int, int, float]] = []
        change = np.zeros((3, sizes[0], sizes[0]), np.float32)
        with run.keeping():
            for size in sizes:
                change = _resized(change, size)
                base = _resized(photo, size)
                change = _ascend(run, base, change, steps or (6 if quick else 15), body, rows)
        if not rows:
            return
        change = _resized(change, len(photo[0]))
        from examples.training import pictures

        with (out / "ascent.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("size", "step", "excitement"), *rows])
        pictures.save_picture(out / "dream.png", photo + change)
        pictures.sheet(out / "before-after.png", {"before": photo[None], "after": (photo + change)[None]})
        size = rows[-1][0]
        found = [excitement for of, _, excitement in rows if of == size]
        run.say(f"{size}x{size}: excitement {found[0]:.4f} -> {found[-1]:.4f} in the last size")
        run.say(f"-> {out / 'dream.png'}, {out / 'before-after.png'}, {out / 'ascent.csv'}")


def _ascend(
    run: Options, base: Array, change: Array, steps: int, body: Network | None, rows: list[tuple[int, int, float]]
) -> Array:
    """Steps of one size, all of the same mean length, on a picture that is shifted a little each time."""
    size = base.shape[1]
    network = Network(BODY, (3, size, size), run.context(), input_gradient=True)
    if body is not None:
        for mine, theirs in (
            (network.values, body.values),
            *zip(network.buffers().values(), body.buffers().values(), strict=True),
        ):
            mine[...] = theirs
    else:
        for _ in range(20):  # normalisations that have never seen a picture get to know this one
            network.forward(network.images(base[None] - np.float32(0.5)), training=True)
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            layer.frozen = True
    rng = np.random.default_rng([run.seed, size])
    for step in range(steps):
        shift = tuple(rng.integers(-8, 9, 2))
        x = network.images(np.roll(base + change, shift, (1, 2))[None] - np.float32(0.5))
        y = network.forward(x, training=True)
        rows.append((size, step, float(np.mean(y * y, dtype=np.float64))))
        gradient = network.backward(y * np.float32(2.0 / y.size))
        dx = gradient[0] if network.context.layout == "NCHW" else gradient[0].transpose(2, 0, 1)
        dx = np.roll(dx, tuple(-s for s in shift), (1, 2))
        change = np.clip(base + change + np.float32(0.015) * dx / (np.abs(dx).mean() + 1e-12), 0, 1) - base
    return change


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

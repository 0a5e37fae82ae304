"""The demo's pictures: the sample photograph, the contact sheet of the filter bank, the chart of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convkit.contest.results import Report, by_layer
from convkit.pictures.style import GRID, INK, LIMIT, OURS, QUIET, THEIRS
from convkit.problem import Problem
from convkit.tables import threads_text

__all__ = ["contact_sheet", "layer_chart", "load_photo", "square"]

Array = NDArray[Any]


def load_photo(path: Path | None) -> Array:
    """A photograph as float32 of shape (H, W, 3), values 0 to 1; matplotlib's sample for None."""
    from PIL import Image

    if path is None:
        path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    try:
        with Image.open(path) as image:
            image.thumbnail((1600, 1600))
            return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
    except Image.DecompressionBombError as error:
        raise OSError(f"{path}: {error}") from None


def square(photo: Array, size: int) -> Array:
    """The middle square, resized, with each colour at mean 0 and deviation 1: shape (1, size, size, 3)."""
    from PIL import Image

    h, w, _ = photo.shape
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    cropped = np.round(photo[top : top + side, left : left + side] * 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(cropped).resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32)
    normalised = (small - small.mean(axis=(0, 1))) / small.std(axis=(0, 1))
    return np.ascontiguousarray(normalised[None], dtype=np.float32)


def contact_sheet(photo: Array, filtered: Array, names: Sequence[str], path: Path) -> None:
    """The photograph and what each filter made of it, with the gradient's magnitude as the last picture."""
    by_name = dict(zip(names, filtered, strict=True))
    magnitude = np.hypot(by_name["Sobel x"].mean(axis=2), by_name["Sobel y"].mean(axis=2))
    panels = [("Photograph", photo), *((name, _shown(name, picture)) for name, picture in by_name.items())]
    panels.append(("Sobel magnitude", 1.0 - np.clip(magnitude / np.quantile(magnitude, 0.995), 0.0, 1.0)))
    columns = 4
    rows = -(-len(panels) // columns)
    aspect = photo.shape[0] / photo.shape[1]
    figure = Figure(
        figsize=(3.1 * columns, (3.1 * aspect + 0.42) * rows + 0.55), layout="constrained", facecolor="white"
    )
    figure.suptitle("One conv2d: three colours, six filters", fontsize=16, color=INK)
    for axes, (name, picture) in zip(figure.subplots(rows, columns).flat, panels, strict=True):
        axes.imshow(np.clip(picture, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0, interpolation="lanczos")
        axes.set_title(name, fontsize=12, color=INK)
        axes.set_axis_off()
    figure.savefig(path, dpi=110, format="png")


def _shown(name: str, picture: Array) -> Array:
    """Filters whose answers have both signs are shown around a middle grey."""
    if name.startswith(("Sobel", "Laplacian", "Emboss")):
        grey = picture.mean(axis=2)
        return np.asarray(0.5 + 0.5 * grey / np.quantile(np.abs(grey), 0.995))
    return picture


def layer_chart(report: Report, team: int, path: Path) -> None:
    """Speed of every layer beside NumPy's, with the FMA peak as a line; rows come in pairs, ours first."""
    rows = [tuple(pair) for _, pair in by_layer(report.rows)]
    peak = report.peak(team)
    figure = Figure(figsize=(11.5, 7.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    place = np.arange(len(rows))
    ours, theirs = (np.array([pair[which].rate for pair in rows]) / 1e9 for which in (0, 1))
    axes.barh(place - 0.2, ours, 0.4, color=OURS[0], label="convkit, the kernel that was chosen")
    axes.barh(place + 0.2, theirs, 0.4, color=THEIRS["NumPy"], label="NumPy, im2col and matrix product")
    axes.axvline(peak / 1e9, color=LIMIT, linewidth=1.5, label=f"measured FMA peak, {peak / 1e9:.0f} GFLOP/s")
    right = max(float(ours.max()), peak / 1e9)
    for y, (mine, other), speed in zip(place, rows, ours, strict=True):
        inside = speed > 0.42 * right
        axes.annotate(
            f"{1e3 * mine.median:.2f} ms   {other.median / mine.median:.1f}x NumPy",
            (speed, y - 0.2),
            xytext=(-6 if inside else 6, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center_baseline",
            fontsize=8.5,
            color="white" if inside else INK,
        )
    problems = [Problem.parse(mine.problem) for mine, _ in rows]
    labels = [f"{mine.layer}   {p.c}→{p.o} @{p.h}" for (mine, _), p in zip(rows, problems, strict=True)]
    axes.set_yticks(place, labels, fontsize=9.5, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.06 * right)
    axes.set_xlabel("GFLOP/s, operations counted as direct summation does", color=INK)
    total, numpy_total = (sum(pair[which].median for pair in rows) for which in (0, 1))
    axes.set_title(
        f"VGG-19's sixteen convolutions: {1e3 * total:.0f} ms, NumPy {1e3 * numpy_total:.0f} ms",
        fontsize=15,
        color=INK,
        loc="left",
        pad=30,
    )
    axes.text(
        0.0,
        1.015,
        f"one 224x224 photograph, float32, {problems[0].layout}, bias and ReLU fused, {threads_text(team)}, "
        f"{report.machine['cpu']}",
        transform=axes.transAxes,
        fontsize=10,
        color=QUIET,
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    figure.savefig(path, dpi=130, format="png")

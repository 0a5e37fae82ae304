"""The pictures of docs/ndimage.md: matplotlib's sample photograph through the filters of `convkit.ndimage`.

python bench/gallery.py
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from convkit import ndimage
from convkit.pictures.demo import load_photo
from convkit.pictures.style import INK

FOLDER = Path(__file__).parent.parent / "docs" / "gallery"
HEIGHT = 190
"""Of a panel, in pixels."""

Picture = NDArray[Any]
Panels = list[tuple[str, Picture]]


def grey(photo: Picture) -> Picture:
    """The face on the photograph, in shades of grey."""
    return np.ascontiguousarray((photo @ np.array([0.299, 0.587, 0.114], np.float32))[:380, 70:450])


def signed(picture: Picture) -> Picture:
    """Values of both signs around a middle grey."""
    return 0.5 + 0.5 * picture / np.quantile(np.abs(picture), 0.995)


def drawn(picture: Picture) -> Picture:
    """Large values as ink on paper."""
    return 1 - picture / np.quantile(picture, 0.995)


def smoothing(image: Picture) -> Panels:
    """What takes details away."""
    return [
        ("the photograph", image),
        ("gaussian_filter(x, 2)", ndimage.gaussian_filter(image, 2)),
        ("gaussian_filter(x, (0, 8))", ndimage.gaussian_filter(image, (0, 8))),
        ("uniform_filter(x, 15)", ndimage.uniform_filter(image, 15)),
    ]


def edges(image: Picture) -> Panels:
    """What finds edges."""
    return [
        ("sobel(x, axis=0)", signed(ndimage.sobel(image, axis=0))),
        ("laplace(x)", signed(ndimage.laplace(ndimage.gaussian_filter(image, 1)))),
        ("gaussian_laplace(x, 3)", signed(ndimage.gaussian_laplace(image, 3))),
        ("gaussian_gradient_magnitude(x, 2)", drawn(ndimage.gaussian_gradient_magnitude(image, 2))),
    ]


def gabor(angle: float, size: int = 21, wave: float = 7.0) -> Picture:
    """A wave within a Gaussian, complex."""
    y, x = np.mgrid[:size, :size] - size // 2
    along = x * np.cos(angle) + y * np.sin(angle)
    window = np.exp(-(x**2 + y**2) / (2 * (size / 5) ** 2))
    return np.asarray(window * (np.exp(2j * np.pi * along / wave) - np.exp(-2 * (np.pi * size / 5 / wave) ** 2)))


def bank(image: Picture) -> Panels:
    """Four of eight filters that run in one call."""
    angles = np.arange(8) * np.pi / 8
    answers = np.abs(ndimage.correlate_bank(image, np.stack([gabor(angle) for angle in angles]), "complex64"))
    return [(f"correlate_bank(x, gabor)[{k}]", drawn(answers[k])) for k in (0, 2, 4, 6)]


def modes(image: Picture) -> Panels:
    """What lies beyond the edges: a filter of one weight, far from its centre, moves the picture."""
    weights = np.zeros((241, 241))
    weights[0, 0] = 1
    return [
        (f'mode="{mode}"', ndimage.correlate(image, weights, mode=mode, cval=0.85))
        for mode in ("reflect", "nearest", "wrap", "constant")
    ]


SHEETS: dict[str, Callable[[Picture], Panels]] = {
    "smoothing": smoothing, "edges": edges, "bank": bank, "modes": modes,
}  # fmt: skip


def sheet(panels: Panels, path: Path) -> None:
    """Pictures side by side, in 40 shades so that the file is small."""
    dots = 100
    figure = Figure(figsize=(len(panels) * HEIGHT / dots, (HEIGHT + 22) / dots), facecolor="white", dpi=dots)
    grid = {"left": 0, "right": 1, "bottom": 0, "top": 0.91, "wspace": 0.03}
    axes = figure.subplots(1, len(panels), gridspec_kw=grid)
    for place, (name, picture) in zip(axes, panels, strict=True):
        place.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
        place.set_title(name, fontsize=6.4, color=INK, family="monospace", pad=3)
        place.set_axis_off()
    made = io.BytesIO()
    figure.savefig(made, format="png")
    Image.open(made).convert("L").quantize(40).save(path, optimize=True)


def main() -> None:
    """Write all sheets."""
    FOLDER.mkdir(exist_ok=True)
    image = grey(load_photo(None))
    for name, made in SHEETS.items():
        path = FOLDER / f"{name}.png"
        sheet(made(image), path)
        print(f"{path.relative_to(FOLDER.parent.parent)}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()

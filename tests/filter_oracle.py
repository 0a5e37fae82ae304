"""Filters of images in float64 NumPy: every pixel's window looked up place by place, as SciPy defines it."""

from __future__ import annotations

from typing import Any

import numpy as np

MODES = ("reflect", "mirror", "nearest", "wrap", "constant")
# np.pad's names.
_PAD = {"reflect": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap", "constant": "constant"}


def beyond(image: Any, axis: int, before: int, after: int, mode: str, cval: float) -> Any:
    """The image with its axis continued on both sides."""
    sides = [(0, 0)] * image.ndim
    sides[axis] = (before, after)
    if mode == "constant":
        return np.pad(image, sides, constant_values=cval)
    if mode == "mirror" and image.shape[axis] == 1:
        mode = "nearest"
    return np.pad(image, sides, mode=_PAD[mode])  # type: ignore[call-overload]


def windows(image: Any, axis: int, size: int, origin: int, mode: str, cval: float) -> list[Any]:
    """The image as tap 0, 1, ... of a window along the axis meets it."""
    before = size // 2 + origin
    wide = beyond(image, axis, before, size - 1 - before, mode, cval)
    return [np.take(wide, range(k, k + image.shape[axis]), axis) for k in range(size)]


def correlate(image: Any, weights: Any, modes: tuple[str, str], cval: float, origin: tuple[int, int]) -> Any:
    """Sums of weights (height, width) over images (n, height, width), in double."""
    total = np.zeros(image.shape)
    rows = windows(image.astype(np.float64), 1, weights.shape[0], origin[0], modes[0], cval)
    for row, some in zip(rows, weights, strict=True):
        for column, weight in zip(windows(row, 2, len(some), origin[1], modes[1], cval), some, strict=True):
            total += weight * column
    return total


def converted(values: Any, dtype: Any) -> Any:
    """As a C cast does it: fractions are cut off, integers wrap around."""
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return converted(values, np.uint8) != 0
    if dtype.kind in "iu":
        return np.trunc(values).astype(np.int64).astype(dtype)
    return values.astype(dtype)

"""Resize and Upsample, nearest and linear: images by `convkit.images`, others one dimension after the other."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from convkit import images
from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.memory import is_float, pixels

__all__: list[str] = []

_KEPT = 64  # sizes whose tables are kept


@implements("Resize", "Upsample")
def resize(call: Call) -> Compute | None:
    """Resize by nearest neighbours or linearly; cubic, antialiased and cropped ones are the reference's."""
    mode = call.get("mode", "nearest")
    old = call.op == "Upsample" or call.version < 11
    coordinates = "asymmetric" if old else call.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if old else call.get("nearest_mode", "round_prefer_floor")
    if (
        mode not in ("nearest", "linear", "bilinear")
        or call.get("antialias", 0)
        or call.get("exclude_outside", 0)
        or call.get("axes")
        or call.get("keep_aspect_ratio_policy", "stretch") != "stretch"
        or coordinates not in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    ):
        return None

    @lru_cache(_KEPT)
    def tables(shape: tuple[int, ...], sizes: tuple[int, ...], scales: tuple[float, ...], dtype: Any) -> list[Any]:
        at = [_positions(sizes[i], shape[i], scales[i], coordinates) for i in (2, 3)]
        if mode == "nearest":
            positions = [_rounded(at[i], shape[2 + i], rounding).astype(np.int64) for i in range(2)]
            return [*positions, None, None, None, None]
        found = [_between(at[i], shape[2 + i], dtype) for i in range(2)]
        return [np.ascontiguousarray(table) for pair in zip(*found, strict=True) for table in pair]

    def compute(x: Any, *rest: Any) -> Any:
        if not is_float(x):
            return NotImplemented
        scales, sizes = _wanted(call, old, rest)
        if sizes is None:
            sizes = [int(np.floor(size * scale)) for size, scale in zip(x.shape, scales, strict=True)]
        else:
            sizes = [int(size) for size in sizes]
            scales = [new / size for new, size in zip(sizes, x.shape, strict=True)]
        if x.ndim == 4 and x.size and list(x.shape[:2]) == sizes[:2] and all(scale == 1 for scale in scales[:2]):
            if list(x.shape) == sizes and all(scale == 1 for scale in scales):
                return x
            chosen = tables(x.shape, tuple(sizes), tuple(float(scale) for scale in scales), x.dtype)
            tail: Any = (*chosen, call.threads)
            y: Any = images.resample(pixels(x, call.threads), *tail)
            return y.transpose(0, 3, 1, 2)
        for axis in range(x.ndim):
            if sizes[axis] == x.shape[axis] and scales[axis] == 1:
                continue
            at = _positions(sizes[axis], x.shape[axis], float(scales[axis]), coordinates)
            x = _nearest(x, axis, at, rounding) if mode == "nearest" else _linear(x, axis, at)
        return x

    return compute


def _wanted(call: Call, old: bool, rest: tuple[Any, ...]) -> tuple[Any, Any]:
    """Scales and sizes, one of them None: attributes or inputs, wherever this operator set has them."""
    if old:
        return (rest[0] if rest else call.attributes["scales"]), None
    scales = rest[1] if len(rest) > 1 else None
    sizes = rest[2] if len(rest) > 2 else None
    return (None, sizes) if sizes is not None and sizes.size else (scales, None)


def _positions(new: int, size: int, scale: float, coordinates: str) -> Any:
    """Where each output pixel lies in the input; in float32 as ONNX Runtime counts, whose floor we want."""
    i, one = np.arange(new, dtype=np.float32), np.float32(1)
    if coordinates == "align_corners":
        length = size * scale  # what the standard asks: not the number of pixels, which is whole
        return i * np.float32((size - 1) / (length - 1)) if length > 1 else np.zeros_like(i)
    if coordinates == "asymmetric":
        return i / np.float32(scale)
    if coordinates == "pytorch_half_pixel" and new == 1:
        return np.zeros(1, np.float32)
    return (i + one / 2) / np.float32(scale) - one / 2


def _rounded(at: Any, size: int, rounding: str) -> Any:
    if rounding == "floor":
        at = np.floor(at)
    elif rounding == "ceil":
        at = np.ceil(at)
    else:
        at = np.ceil(at - 0.5) if rounding == "round_prefer_floor" else np.floor(at + 0.5)
    return np.clip(at, 0, size - 1).astype(np.intp)


def _nearest(x: Any, axis: int, at: Any, rounding: str) -> Any:
    size = x.shape[axis]
    index = _rounded(at, size, rounding)
    factor = len(index) // size if size else 0
    if factor * size == len(index) and np.array_equal(index, np.repeat(np.arange(size), factor)):
        return _repeated(x, axis, factor)
    return _taken(x, index, axis)


def _repeated(x: Any, axis: int, factor: int) -> Any:
    order = np.argsort([-abs(stride) for stride in x.strides], kind="stable")
    rows = x.transpose(order)
    return np.repeat(rows, factor, axis=int(np.flatnonzero(order == axis)[0])).transpose(np.argsort(order))


def _taken(x: Any, index: Any, axis: int) -> Any:
    """`np.take` that keeps the order of dimensions in memory."""
    order = np.argsort([-abs(stride) for stride in x.strides], kind="stable")
    taken = np.take(x.transpose(order), index, axis=int(np.flatnonzero(order == axis)[0]))
    return taken.transpose(np.argsort(order))


def _between(at: Any, size: int, dtype: Any) -> tuple[Any, Any, Any]:
    """The pixels before and after each position, and the share of the one after."""
    at = np.clip(at, 0, size - 1)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(dtype)


def _linear(x: Any, axis: int, at: Any) -> Any:
    low, high, weight = _between(at, x.shape[axis], x.dtype)
    weight = weight.reshape(-1, *(1,) * (x.ndim - 1 - axis))
    y = _taken(x, high, axis)
    below = _taken(x, low, axis)
    y -= below
    y *= weight
    y += below
    return y

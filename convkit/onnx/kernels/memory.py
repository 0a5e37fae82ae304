"""Images in channels-last memory under the shape (N, C, H, W), which every other operator understands as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import convkit as ck
from convkit import images

__all__ = ["FLOATS", "channels_last", "empty", "flat", "is_float", "like", "pixels", "pixels_in_place"]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def is_float(*arrays: Any) -> bool:
    """Whether all are arrays of one type that our code computes in."""
    dtype = getattr(arrays[0], "dtype", None)
    return dtype in FLOATS and all(getattr(array, "dtype", None) == dtype for array in arrays[1:])


def channels_last(x: Any) -> bool:
    """Whether the channels of neighbouring pixels lie side by side, and not each channel's pixels."""
    return bool(x.ndim > 2 and x.shape[1] > 1 and abs(x.strides[1]) == x.itemsize and x[0, 0].size > 1)


def empty(shape: Sequence[int], like: Any) -> Any:
    """Memory for a result with the type and the order of dimensions of an image."""
    if not channels_last(like):
        return _fresh(tuple(shape), like)
    return np.moveaxis(_fresh((shape[0], *shape[2:], shape[1]), like), -1, 1)


def like(x: Any) -> Any:
    """Memory for a result with the type, the shape and the order of dimensions of an array of floats."""
    if x.flags.c_contiguous:
        return _fresh(x.shape, x)
    if x.ndim == 4 and x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return _fresh((x.shape[0], *x.shape[2:], x.shape[1]), x).transpose(0, 3, 1, 2)
    return np.empty_like(x)


def _fresh(shape: tuple[int, ...], like: Any) -> Any:
    return images.empty(shape, like.dtype) if like.dtype in FLOATS else np.empty(shape, like.dtype)


def pixels(x: Any, threads: int | None) -> Any:
    """Images (N, C, H, W) as (N, H, W, C), contiguous: a view if they lie so, else brought into that order."""
    last = x.transpose(0, 2, 3, 1)
    return last if last.flags.c_contiguous else ck.nchw_to_nhwc(x, num_threads=threads)


def pixels_in_place(x: Any) -> Any:
    """Images (N, C, H, W) as a view (N, H, W, C), if they lie so and not as planes, too; else None."""
    if x.ndim != 4 or x.flags.c_contiguous:
        return None
    last = x.transpose(0, 2, 3, 1)
    return last if last.flags.c_contiguous else None


def flat(x: Any) -> tuple[Any, Callable[[Any], Any]] | None:
    """All elements in the order of memory, as (1, n, 1), and what gives such a result x's shape; None if x has gaps."""
    if x.flags.c_contiguous:
        return x.reshape(1, -1, 1), lambda y: y.reshape(x.shape)
    last = pixels_in_place(x)
    if last is None:
        return None
    return last.reshape(1, -1, 1), lambda y: y.reshape(last.shape).transpose(0, 3, 1, 2)

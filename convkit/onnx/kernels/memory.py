"""Images in channels-last memory under the shape (N, C, H, W), which every other operator understands as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import convkit as ck

__all__ = ["FLOATS", "channels_last", "empty", "is_float", "pixels"]

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
        return np.empty(tuple(shape), like.dtype)
    return np.moveaxis(np.empty((shape[0], *shape[2:], shape[1]), like.dtype), -1, 1)


def pixels(x: Any, threads: int | None) -> Any:
    """Images (N, C, H, W) as (N, H, W, C), contiguous: a view if they lie so, else brought into that order."""
    last = x.transpose(0, 2, 3, 1)
    return last if last.flags.c_contiguous else ck.nchw_to_nhwc(x, num_threads=threads)

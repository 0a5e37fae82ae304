"""Pools: of images by `convkit.images`, of other ranks one dimension after the other, as NumPy is fast on rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from convkit import images
from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.convolutions import sides
from convkit.onnx.kernels.memory import empty, is_float, pixels, pixels_in_place

__all__ = ["channel_means"]

_KEPT = 64  # sizes whose geometry is kept


def _sizes(
    call: Call, spatial: tuple[int, ...]
) -> tuple[list[int], list[int], list[int], list[tuple[int, int]], list[int]]:
    """Window, strides, dilations, padding and output size of each spatial dimension."""
    kernel = list(call.attributes["kernel_shape"])
    n = len(kernel)
    strides, dilations = list(call.get("strides") or [1] * n), list(call.get("dilations") or [1] * n)
    padding = sides(call, spatial, kernel, strides)
    size = []
    for i in range(n):
        room = spatial[i] + sum(padding[i]) - (kernel[i] - 1) * dilations[i] - 1
        count = room // strides[i] + 1
        # A last window over the edge counts if it begins within the image or its padding before it.
        if call.get("ceil_mode", 0) and room % strides[i] and count * strides[i] < spatial[i] + padding[i][0]:
            count += 1
        size.append(count)
    return kernel, strides, dilations, padding, size


def _pool(call: Call, others: Callable[[Any], Any], mean: bool) -> Compute:
    """A pool of signals and images, compiled; `others` does other ranks."""

    @lru_cache(_KEPT)
    def geometry(spatial: tuple[int, ...], dtype: Any) -> tuple[Any, ...] | None:
        kernel, strides, dilations, padding, size = _sizes(call, spatial)
        if min(size) < 1 or any(before < 0 for before, _ in padding):
            return None
        factors = [f.astype(dtype) for f in _shares(call, spatial)] if mean else [None, None]
        given: list[Any] = [kernel, strides, dilations, [before for before, _ in padding], size]
        if len(kernel) == 1:
            given = [[fill, *one] for fill, one in zip((1, 1, 1, 0, 1), given, strict=True)]
            factors = [np.ones(1, dtype), *factors] if mean else factors
        return (*given, *factors)

    def compute(x: Any) -> Any:
        n = len(call.attributes["kernel_shape"])
        if not is_float(x) or x.ndim != 2 + n:
            return NotImplemented
        given = geometry(x.shape[2:], x.dtype) if n < 3 else None
        if given is None or x.size == 0:
            return others(x)
        rest: Any = (*given, call.threads)
        y: Any = images.pool(pixels(x if n == 2 else x[:, :, None], call.threads), *rest)
        y = y.transpose(0, 3, 1, 2)
        return y if n == 2 else y[:, :, 0]

    return compute


def _shares(call: Call, spatial: tuple[int, ...]) -> list[Any]:
    """For each spatial dimension one over the number of pixels in each window, padding counted or not."""
    kernel, strides, dilations, padding, size = _sizes(call, spatial)
    counted = padding if call.get("count_include_pad", 0) else [(0, 0)] * len(kernel)
    return images.window_shares(spatial, kernel, strides, dilations, [before for before, _ in padding], size, counted)


def _along(
    x: Any, axis: int, kernel: int, stride: int, dilation: int, before: int, size: int,
    combine: Callable[..., Any], neutral: float,
) -> Any:  # fmt: skip
    """Combine the windows of one dimension; what lies outside of the image is neutral."""
    shape = list(x.shape)
    shape[axis] = size
    out = empty(shape, x)
    length, first = x.shape[axis], True
    taps = []
    for tap in range(kernel):
        begin = tap * dilation - before
        low = min(max(-(begin // stride), 0), size)
        high = max(min((length - 1 - begin) // stride + 1, size), low)
        if high > low:
            taps.append((begin + low * stride, low, high))
    taps.sort(key=lambda t: t[1] - t[2])  # one that fills every output comes first, and saves filling them
    for start, low, high in taps:
        into = out[(slice(None),) * axis + (slice(low, high),)]
        read = x[(slice(None),) * axis + (slice(start, start + (high - low - 1) * stride + 1, stride),)]
        if first and high - low == size:
            into[...] = read
        else:
            if first:
                out.fill(neutral)
            combine(into, read, out=into)
        first = False
    if first:
        out.fill(neutral)
    return out


@implements("MaxPool")
def max_pool(call: Call) -> Compute | None:
    """MaxPool of any rank, with or without indices."""
    if call.outputs > 1:
        return None if call.get("storage_order", 0) else _with_indices(call)

    def others(x: Any) -> Any:
        kernel, strides, dilations, padding, size = _sizes(call, x.shape[2:])
        for i in range(len(kernel)):
            if (kernel[i], strides[i], padding[i]) != (1, 1, (0, 0)):
                x = _along(x, 2 + i, kernel[i], strides[i], dilations[i], padding[i][0], size[i], np.maximum, -np.inf)
        return x

    return _pool(call, others, mean=False)


def _with_indices(call: Call) -> Compute:
    """Maxima and where they are, counted through the whole array; the first of equals."""

    def compute(x: Any) -> Any:
        if not is_float(x) or x.ndim != 2 + len(call.attributes["kernel_shape"]):
            return NotImplemented
        kernel, strides, dilations, padding, size = _sizes(call, x.shape[2:])
        n = len(kernel)
        ends = [
            max((size[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - x.shape[2 + i] - padding[i][0], 0)
            for i in range(n)
        ]
        widths = [(0, 0), (0, 0), *((padding[i][0], ends[i]) for i in range(n))]
        index = np.pad(np.arange(x.size).reshape(x.shape), widths)
        x = np.pad(x, widths, constant_values=-np.inf)
        best: Any = None
        for tap in np.ndindex(*kernel):
            begins = [t * d for t, d in zip(tap, dilations, strict=True)]
            window: Any = tuple(slice(b, b + s * (o - 1) + 1, s) for b, s, o in zip(begins, strides, size, strict=True))
            values, places = x[(..., *window)], index[(..., *window)]
            if best is None:
                best, where = values.copy(), places.copy()
            else:
                larger = values > best
                np.copyto(best, values, where=larger)
                np.copyto(where, places, where=larger)
        return best, where

    return compute


@implements("AveragePool")
def average_pool(call: Call) -> Compute | None:
    """AveragePool of any rank: the sum over the number of pixels, padding counted or not."""

    def others(x: Any) -> Any:
        kernel, strides, dilations, padding, size = _sizes(call, x.shape[2:])
        shares = _shares(call, x.shape[2:])
        for i in range(len(kernel)):
            x = _along(x, 2 + i, kernel[i], strides[i], dilations[i], padding[i][0], size[i], np.add, 0)
            x *= shares[i].astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 3 - i))
        return x

    return _pool(call, others, mean=True)


@implements("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> Compute:
    """The mean or the maximum of each channel."""

    def compute(x: Any) -> Any:
        if not is_float(x):
            return NotImplemented
        if call.op == "GlobalMaxPool" or x.size == 0:
            reduce = np.max if call.op == "GlobalMaxPool" else np.mean
            return reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True)
        return channel_means(x, call.threads)

    return compute


def channel_means(x: Any, threads: int | None) -> Any:
    """The mean of each channel, all other dimensions 1."""
    n, c = x.shape[:2]
    last = pixels_in_place(x)
    if last is not None:
        means = images.mean_pool(last, threads)
    else:
        means = images.moments(np.ascontiguousarray(x).reshape(n * c, -1, 1), False, threads)
    return means.reshape(n, c, *(1,) * (x.ndim - 2))

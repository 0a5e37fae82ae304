"""Pools, one dimension after the other: maxima and sums over a window are separable, and NumPy is fast on rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.convolutions import sides
from convkit.onnx.kernels.memory import empty, is_float

__all__: list[str] = []


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

    def compute(x: Any) -> Any:
        if not is_float(x) or x.ndim != 2 + len(call.attributes["kernel_shape"]):
            return NotImplemented
        kernel, strides, dilations, padding, size = _sizes(call, x.shape[2:])
        for i in range(len(kernel)):
            if (kernel[i], strides[i], padding[i]) != (1, 1, (0, 0)):
                x = _along(x, 2 + i, kernel[i], strides[i], dilations[i], padding[i][0], size[i], np.maximum, -np.inf)
        return x

    return compute


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

    def compute(x: Any) -> Any:
        if not is_float(x) or x.ndim != 2 + len(call.attributes["kernel_shape"]):
            return NotImplemented
        kernel, strides, dilations, padding, size = _sizes(call, x.shape[2:])
        with_padding = bool(call.get("count_include_pad", 0))
        spatial = x.shape[2:]
        for i in range(len(kernel)):
            x = _along(x, 2 + i, kernel[i], strides[i], dilations[i], padding[i][0], size[i], np.add, 0)
            before, after = padding[i]
            low, high = (-before, spatial[i] + after) if with_padding else (0, spatial[i])
            at = np.arange(size[i])[:, None] * strides[i] - before + np.arange(kernel[i]) * dilations[i]
            count = np.maximum(((at >= low) & (at < high)).sum(1), 1)
            x *= (1 / count).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 3 - i))
        return x

    return compute


@implements("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> Compute:
    """The mean or the maximum of each channel."""
    reduce = np.mean if call.op == "GlobalAveragePool" else np.max

    def compute(x: Any) -> Any:
        return reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True) if is_float(x) else NotImplemented

    return compute

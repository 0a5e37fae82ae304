"""Pooling and upsampling. A window's taps are strided views of the image: no copy, no padding in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from examples.training.layers import Context, Layer, Shape
from examples.training.workers import Array, empty, over_parts

__all__ = ["AveragePool", "GlobalAverage", "MaxPool", "Upsample"]


class _Windows(Layer):
    """Windows of `size` x `size` pixels, every `stride` pixels; those at the edge are cut off there.

    Parameters
    ----------
    ceil : bool
        Windows that reach beyond the end count, too.
    """

    def __init__(self, size: int, stride: int | None = None, *, padding: int = 0, ceil: bool = False) -> None:
        super().__init__()
        self.size, self.stride, self.padding, self.ceil = size, stride or size, padding, ceil

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context = context
        c, h, w = self.shape = shape
        self.out = c, self._count(h), self._count(w)
        if min(self.out) < 1:
            raise ValueError(f"a pool of {self.size}x{self.size} does not fit an image of {h}x{w}")
        return self.out

    def _count(self, size: int) -> int:
        room = size + 2 * self.padding - self.size
        count = (room + (self.stride - 1 if self.ceil else 0)) // self.stride + 1
        return count - (self.ceil and (count - 1) * self.stride >= size + self.padding)

    def _taps(self) -> Iterator[tuple[Any, Any]]:
        """For each place in the window: the outputs that have a pixel there, and these pixels, as indices."""
        _, h, w = self.shape
        _, oh, ow = self.out
        rows = [self._reach(i, oh, h) for i in range(self.size)]
        columns = [self._reach(j, ow, w) for j in range(self.size)]
        for to_rows, from_rows in rows:
            for to_columns, from_columns in columns:
                if self.context.layout == "NHWC":
                    yield (slice(None), to_rows, to_columns), (slice(None), from_rows, from_columns)
                else:
                    yield (..., to_rows, to_columns), (..., from_rows, from_columns)

    def _reach(self, tap: int, outputs: int, inputs: int) -> tuple[slice, slice]:
        s, first = self.stride, tap - self.padding
        begin = max(0, -(first // s))
        end = max(begin, min(outputs, (inputs - 1 - first) // s + 1))
        return slice(begin, end), slice(begin * s + first, (end - 1) * s + first + 1, s)


class MaxPool(_Windows):
    """The largest pixel of each window; its gradient goes to the first of them, row by row."""

    kind = "pool"
    new_output = False  # `backward` looks for it in the input

    def forward(self, x: Array, training: bool) -> Array:
        y = empty(self.context.image(len(x), self.out), x.dtype)
        taps = list(self._taps())
        whole = not self.padding and not self.ceil

        def largest(part: slice) -> None:
            images, pooled = x[part], y[part]
            if not whole:
                pooled.fill(-np.inf)
            for i, (to, source) in enumerate(taps):
                if whole and i < 2:  # the first two begin the maximum
                    if i == 1:
                        np.maximum(images[taps[0][1]], images[source], out=pooled)
                    elif len(taps) == 1:
                        np.copyto(pooled, images[source])
                else:
                    np.maximum(pooled[to], images[source], out=pooled[to])

        over_parts(largest, x)
        self.x, self.y = x, y
        return y

    def backward(self, dy: Array) -> Array:
        x, y = self.x, self.y
        dx = empty(x.shape, x.dtype)
        taps = list(self._taps())
        apart = self.size == self.stride and not self.padding

        def share(part: slice) -> None:
            images, pooled, gradient, to_pixels = x[part], y[part], dy[part], dx[part]
            if not apart or self.shape[1] % self.size or self.shape[2] % self.size:
                to_pixels.fill(0)
            free = np.ones(pooled.shape, bool)
            for to, source in taps:
                hit = images[source] == pooled[to]
                hit &= free[to]
                free[to] ^= hit
                if apart:
                    np.multiply(gradient[to], hit, out=to_pixels[source])
                else:
                    to_pixels[source] += gradient[to] * hit

        over_parts(share, x)
        return dx


class AveragePool(_Windows):
    """The mean of each window, pixels beyond the edge counted as zeros."""

    kind = "average"

    def forward(self, x: Array, training: bool) -> Array:
        y = empty(self.context.image(len(x), self.out), x.dtype)
        taps = list(self._taps())

        def mean(part: slice) -> None:
            images, pooled = x[part], y[part]
            pooled.fill(0)
            for to, source in taps:
                pooled[to] += images[source]
            pooled *= 1.0 / self.size**2

        over_parts(mean, x)
        return y

    def backward(self, dy: Array) -> Array:
        dx = empty(self.context.image(len(dy), self.shape), dy.dtype)
        taps = list(self._taps())

        def share(part: slice) -> None:
            to_pixels, gradient = dx[part], dy[part] * dy.dtype.type(1.0 / self.size**2)
            to_pixels.fill(0)
            for to, source in taps:
                to_pixels[source] += gradient[to]

        over_parts(share, dx)
        return dx


class GlobalAverage(Layer):
    """The mean of each channel over the whole image, as a feature vector."""

    kind = "global_average"

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context, self.shape = context, shape
        return shape[:1]

    def forward(self, x: Array, training: bool) -> Array:
        return np.asarray(x.mean(axis=(2, 3) if self.context.layout == "NCHW" else (1, 2)))

    def backward(self, dy: Array) -> Array:
        _, h, w = self.shape
        gradient = dy * dy.dtype.type(1.0 / (h * w))
        gradient = gradient[:, :, None, None] if self.context.layout == "NCHW" else gradient[:, None, None, :]
        dx = empty(self.context.image(len(dy), self.shape), dy.dtype)
        np.copyto(dx, gradient)
        return dx


class Upsample(Layer):
    """Every pixel as a square of `factor` x `factor` equal ones."""

    kind = "upsample"

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context, self.shape = context, shape
        c, h, w = shape
        return c, h * self.factor, w * self.factor

    def forward(self, x: Array, training: bool) -> Array:
        rows = 2 if self.context.layout == "NCHW" else 1
        return x.repeat(self.factor, axis=rows).repeat(self.factor, axis=rows + 1)

    def backward(self, dy: Array) -> Array:
        c, h, w = self.shape
        f = self.factor
        if self.context.layout == "NCHW":
            return np.asarray(dy.reshape(len(dy), c, h, f, w, f).sum(axis=(3, 5)))
        return np.asarray(dy.reshape(len(dy), h, f, w, f, c).sum(axis=(2, 4)))

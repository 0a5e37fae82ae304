"""Pooling and upsampling."""

from __future__ import annotations

from typing import Any

import numpy as np

import convkit as ck
from convkit import images
from examples.training.layers import Context, Layer, Shape
from examples.training.workers import Array, empty

__all__ = ["AveragePool", "GlobalAverage", "MaxPool", "Upsample"]


class _Windows(Layer):
    """Windows of `size` x `size` pixels, every `stride` pixels; those at the edge are cut off there."""

    ceil = False  # whether windows that reach beyond the end count, too

    def __init__(self, size: int, stride: int | None = None, *, padding: int = 0) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride or size, padding

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


class MaxPool(_Windows):
    """The largest pixel of each window; its gradient goes to the first of them, row by row."""

    kind = "pool"
    new_output = False  # `backward` looks for it in the input

    def __init__(self, size: int, stride: int | None = None, *, padding: int = 0, ceil: bool = False) -> None:
        super().__init__(size, stride, padding=padding)
        self.ceil = ceil

    def forward(self, x: Array, training: bool) -> Array:
        self.x = self._channels_last(x)
        self.y = images.pool(self.x, *self._geometry(), self.out[1:], num_threads=self.context.threads)
        return self._in_layout(self.y)

    def backward(self, dy: Array) -> Array:
        dy = self._channels_last(dy)
        return self._in_layout(images.pool_gradient(dy, self.x, self.y, *self._geometry(), self.context.threads))

    def _geometry(self) -> tuple[int, int, int, int]:
        return self.size, self.stride, 1, self.padding

    # The compiled pools want channels side by side.

    def _channels_last(self, x: Array) -> Array:
        return ck.nchw_to_nhwc(x, num_threads=self.context.threads) if self.context.layout == "NCHW" else x

    def _in_layout(self, x: Array) -> Array:
        return ck.nhwc_to_nchw(x, num_threads=self.context.threads) if self.context.layout == "NCHW" else x


class AveragePool(_Windows):
    """The mean of each window, pixels beyond the edge counted as zeros: a convolution of each channel by itself."""

    kind = "average"

    def build(self, shape: Shape, context: Context) -> Shape:
        out = super().build(shape, context)
        c = shape[0]
        self.weight = np.full((c, 1, self.size, self.size), 1.0 / self.size**2, context.dtype)
        self.options: dict[str, Any] = {
            "stride": self.stride, "padding": self.padding, "groups": c, "layout": context.layout,
            "num_threads": context.threads,
        }  # fmt: skip
        return out

    def forward(self, x: Array, training: bool) -> Array:
        return np.asarray(ck.conv2d(x, self.weight, **self.options))

    def backward(self, dy: Array) -> Array:
        shape = self.context.image(len(dy), self.shape)
        return np.asarray(ck.grad.conv2d_input(shape, self.weight, dy, **self.options))


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

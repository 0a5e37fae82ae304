"""Batch normalization (Ioffe and Szegedy, arXiv 1502.03167)."""

from __future__ import annotations

from typing import Any

import numpy as np

from examples.training import initialisation
from examples.training.layers import Context, Layer, Shape
from examples.training.workers import Array, empty, over_parts

__all__ = ["BatchNorm"]


class BatchNorm(Layer):
    """Every channel of a batch gets mean `shift` and deviation `scale`; in inference the running statistics count.

    Two passes over memory forward and two backward. Statistics come from parts of the batch, each about its own mean,
    so that nothing cancels; they are joined as Chan, Golub and LeVeque did (1979). The normalised input is not kept:
    with it eliminated, output and gradient are ``x * a + b`` and ``dy * a + x * b + c`` with numbers a, b, c for each
    channel.

    Attributes
    ----------
    frozen : bool
        Let the running statistics count in training, too, and leave them as they are.
    """

    kind = "norm"

    def __init__(self, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.frozen = False

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context, self.shape = context, shape
        c = shape[0]
        self.scale = self.declare("scale", (c,), initialisation.ones)
        self.shift = self.declare("shift", (c,), initialisation.zeros)
        self.buffers = {"mean": np.zeros(c, context.dtype), "variance": np.ones(c, context.dtype)}
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        pixels = self._pixels(x)
        if training and not self.frozen:
            self.count = x.size // self.shape[0]
            mean, variance = self._statistics(pixels)
            self._remember(mean, variance)
        else:
            mean, variance = self.buffers["mean"].astype(np.float64), self.buffers["variance"].astype(np.float64)
        self.mean, self.inverse = mean, 1.0 / np.sqrt(variance + self.eps)
        a = self.scale.value * self.inverse
        factor, offset = self._row(a, x), self._row(self.shift.value - mean * a, x)
        y = empty(x.shape, x.dtype)
        out = self._pixels(y)

        def normalise(part: slice) -> None:
            np.multiply(pixels[part], factor, out=out[part])
            out[part] += offset

        over_parts(normalise, pixels)
        self.x = x
        return y

    def backward(self, dy: Array) -> Array:
        x = self._pixels(self.x)
        gradient = self._pixels(dy)
        center = self._row(self.mean, dy)

        def moments(part: slice) -> tuple[Array, Array]:
            return self._sum(gradient[part]), self._sum_of_products(gradient[part], x[part] - center)

        total, along = np.sum(over_parts(moments, gradient), axis=0)
        self.shift.gradient[...] = total
        self.scale.gradient[...] = along * self.inverse
        a = self.scale.value * self.inverse
        # Statistics that the batch did not make do not depend on it.
        b = 0.0 * a if self.frozen else -a * self.inverse**2 * along / self.count
        c = 0.0 * a if self.frozen else -a * total / self.count - b * self.mean
        to_dy, to_x, alone = (self._row(value, dy) for value in (a, b, c))
        dx = empty(dy.shape, dy.dtype)
        out = self._pixels(dx)

        def combine(part: slice) -> None:
            np.multiply(x[part], to_x, out=out[part])
            out[part] += alone
            out[part] += gradient[part] * to_dy

        over_parts(combine, gradient)
        return dx

    def _statistics(self, pixels: Array) -> tuple[Array, Array]:
        parts = over_parts(lambda part: self._about_their_mean(pixels[part]), pixels)
        counts = np.array([count for count, _, _ in parts], np.float64)[:, None]
        means = np.array([mean for _, mean, _ in parts])
        squares = np.array([square for _, _, square in parts])
        mean = (counts * means).sum(axis=0) / self.count
        return mean, (squares + counts * (means - mean) ** 2).sum(axis=0) / self.count

    def _about_their_mean(self, pixels: Array) -> tuple[int, Array, Array]:
        count = pixels.size // self.shape[0]
        mean = (self._sum(pixels) / count).astype(pixels.dtype)
        apart = pixels - self._row(mean, pixels)
        # Rounded to the array's precision, the mean is a little off: what is left is found and added.
        rest = self._sum(apart) / count
        return count, mean + rest, self._sum_of_products(apart, apart) - count * rest**2

    def _remember(self, mean: Array, variance: Array) -> None:
        unbiased = variance * (self.count / max(self.count - 1, 1))
        for name, value in (("mean", mean), ("variance", unbiased)):
            buffer = self.buffers[name]
            buffer += self.momentum * (value - buffer)

    # --- the two layouts: (N, C, pixels), or rows of some pixels' channels, long enough for a vector loop -------------

    def _pixels(self, x: Array) -> Array:
        c = self.shape[0]
        if self.context.layout == "NCHW":
            return x.reshape(len(x), c, -1)
        self.repeats = 1
        while self.repeats * c < 512 and x.size % (2 * self.repeats * c) == 0:
            self.repeats *= 2
        return x.reshape(-1, self.repeats * c)

    def _row(self, values: Any, like: Array) -> Array:
        row = np.asarray(values, like.dtype)
        return row[:, None] if self.context.layout == "NCHW" else np.tile(row, self.repeats)

    def _sum(self, pixels: Array) -> Array:
        if pixels.ndim == 3:
            return np.asarray(pixels.sum(axis=2).sum(axis=0, dtype=np.float64))
        return self._by_channel(np.ones(len(pixels), pixels.dtype) @ pixels)

    def _sum_of_products(self, first: Array, second: Array) -> Array:
        if first.ndim == 3:
            return np.asarray(np.einsum("ncp,ncp->nc", first, second).sum(axis=0, dtype=np.float64))
        return self._by_channel(np.einsum("pc,pc->c", first, second))

    def _by_channel(self, row: Array) -> Array:
        return np.asarray(row.reshape(self.repeats, -1).sum(axis=0, dtype=np.float64))

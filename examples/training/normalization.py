"""Batch normalization (Ioffe and Szegedy, arXiv 1502.03167)."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit import images
from examples.training import initialisation
from examples.training.layers import Context, Layer, Shape
from examples.training.workers import PART, Array

__all__ = ["BatchNorm"]


class BatchNorm(Layer):
    """Every channel of a batch gets mean `shift` and deviation `scale`; in inference the running statistics count.

    Two passes over memory forward and two backward. Statistics come from pieces of the batch, each about its own mean,
    so that nothing cancels; they are joined as Chan, Golub and LeVeque did (1979). Neither the normalised input nor
    what a ReLU made of it is kept: both follow from the input and numbers for each channel. Output and gradient are
    ``relu(x * a + b)`` and ``g * a + x * c + d``, g being `dy` where the ReLU let something through.

    Attributes
    ----------
    activation : str or None
        A ReLU that follows, done in the same passes.
    frozen : bool
        Let the running statistics count in training, too, and leave them as they are.
    """

    kind = "norm"

    def __init__(self, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.activation: Any = None
        self.frozen = False

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context, self.shape = context, shape
        c = shape[0]
        self.scale = self.declare("scale", (c,), initialisation.ones)
        self.shift = self.declare("shift", (c,), initialisation.zeros)
        self.buffers = {"mean": np.zeros(c, context.dtype), "variance": np.ones(c, context.dtype)}
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        pieces = self.x = self._pieces(x)
        if training and not self.frozen:
            self.count = x.size // self.shape[0]
            mean, variance = self._statistics(pieces)
            self._remember(mean, variance)
        else:
            mean, variance = self.buffers["mean"].astype(np.float64), self.buffers["variance"].astype(np.float64)
        self.mean, self.inverse = mean, 1.0 / np.sqrt(variance + self.eps)
        a = self.scale.value * self.inverse
        self.line = self._each(a), self._each(self.shift.value - mean * a)
        y = images.scale_shift(pieces, *self.line, None, self.activation, num_threads=self.context.threads)
        return np.asarray(y.reshape(x.shape))

    def backward(self, dy: Array) -> Array:
        g, threads = self._pieces(dy), self.context.threads
        sums = images.gradient_sums(g, self.x, self._each(self.mean), *self.line, self.activation, threads)
        total, along = (self._by_channel(part).sum(axis=0) for part in sums)
        self.shift.gradient[...] = total
        self.scale.gradient[...] = along * self.inverse
        a = self.scale.value * self.inverse
        # Statistics that the batch did not make do not depend on it.
        c = 0.0 * a if self.frozen else -a * self.inverse**2 * along / self.count
        d = 0.0 * a if self.frozen else -a * total / self.count - c * self.mean
        factors = (self._each(value) for value in (a, c, d))
        dx = images.scale_gradient(
            g, self.x, *factors, *self.line, self.activation, self.in_place_backward, threads
        )  # fmt: skip
        return np.asarray(dx.reshape(dy.shape))

    def _statistics(self, pieces: Array) -> tuple[Array, Array]:
        means, variances = map(self._by_channel, images.moments(pieces, True, self.context.threads))
        mean = means.mean(axis=0)
        return mean, (variances + (means - mean) ** 2).mean(axis=0)

    def _remember(self, mean: Array, variance: Array) -> None:
        unbiased = variance * (self.count / max(self.count - 1, 1))
        for name, value in (("mean", mean), ("variance", unbiased)):
            buffer = self.buffers[name]
            buffer += self.momentum * (value - buffer)

    # --- both layouts as (pieces, pixels, channels); in NCHW each piece is one image's plane of one channel -----------

    def _pieces(self, x: Array) -> Array:
        """Pieces of one size that stay in the cache for a second look at them."""
        c = self.shape[0]
        if self.context.layout == "NCHW":
            return x.reshape(len(x) * c, -1, 1)
        pixels, most = x.size // c, max(1, PART // (c * x.itemsize))
        return x.reshape(-1, next(size for size in range(min(most, pixels), 0, -1) if pixels % size == 0), c)

    def _each(self, values: Any) -> Array:
        """Numbers of the channels for each piece."""
        pieces, _, c = self.x.shape
        return np.tile(np.asarray(values, self.x.dtype), pieces * c // len(values)).reshape(pieces, c)

    def _by_channel(self, found: Array) -> Array:
        return found.reshape(-1, self.shape[0]).astype(np.float64)

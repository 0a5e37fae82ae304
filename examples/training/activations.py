"""Activations: element by element, in place where the layer before does not need its result again."""

from __future__ import annotations

import numpy as np

from convkit import images
from examples.training.layers import Layer
from examples.training.workers import Array, empty, over_parts

__all__ = ["LeakyReLU", "ReLU", "ReLU6", "Sigmoid", "Tanh"]


class Activation(Layer):
    """An activation whose derivative follows from its output."""

    new_output = False  # `backward` looks at it

    def function(self, x: Array, y: Array) -> None:
        """Set `y` to the activation of `x`."""
        raise NotImplementedError

    def derivative(self, y: Array) -> Array:
        """The derivative, given the output."""
        raise NotImplementedError

    def forward(self, x: Array, training: bool) -> Array:
        y = x if self.in_place else empty(x.shape, x.dtype)
        over_parts(lambda part: self.function(x[part], y[part]), x)
        self.y = y
        return y

    def backward(self, dy: Array) -> Array:
        dx = dy if self.in_place_backward else empty(dy.shape, dy.dtype)
        y = self.y
        over_parts(lambda part: np.multiply(dy[part], self.derivative(y[part]), out=dx[part]), dy)
        return dx


class ReLU(Activation):
    """max(x, 0)."""

    kind = "relu"

    def function(self, x: Array, y: Array) -> None:
        np.maximum(x, 0, out=y)

    def backward(self, dy: Array) -> Array:
        dy, y = (np.ascontiguousarray(a).reshape(1, -1, 1) for a in (dy, self.y))
        options = {"activation": self.kind, "in_place": self.in_place_backward, "num_threads": self.context.threads}
        return np.asarray(images.scale_gradient(dy, y, **options).reshape(self.y.shape))


class ReLU6(ReLU):
    """min(max(x, 0), 6)."""

    kind = "relu6"

    def function(self, x: Array, y: Array) -> None:
        np.clip(x, 0, 6, out=y)


class LeakyReLU(Activation):
    """x, or slope * x for negative x."""

    kind = "leaky_relu"

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = slope

    def function(self, x: Array, y: Array) -> None:
        np.maximum(x, self.slope * x, out=y)

    def derivative(self, y: Array) -> Array:
        return np.where(y > 0, y.dtype.type(1), y.dtype.type(self.slope))


class Sigmoid(Activation):
    """1 / (1 + exp(-x)), by tanh, which never overflows."""

    kind = "sigmoid"

    def function(self, x: Array, y: Array) -> None:
        np.multiply(x, 0.5, out=y)
        np.tanh(y, out=y)
        np.add(y, 1, out=y)
        np.multiply(y, 0.5, out=y)

    def derivative(self, y: Array) -> Array:
        return np.asarray(y * (1 - y))


class Tanh(Activation):
    """Hyperbolic tangent."""

    kind = "tanh"

    def function(self, x: Array, y: Array) -> None:
        np.tanh(x, out=y)

    def derivative(self, y: Array) -> Array:
        return np.asarray(1 - y * y)

"""Losses: the number to make small, and its gradient with respect to the network's output.

Both divide by `count`, the images of the joined batch of all processes, so that adding up gives the mean.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from examples.training.workers import Array

__all__ = ["Loss", "mean_squared_error", "softmax_cross_entropy"]


class Loss(Protocol):
    """A loss: the network's output and what it should be give the loss and its gradient."""

    def __call__(self, y: Array, target: Array, count: int) -> tuple[float, Array]:
        """Loss and gradient."""


def softmax_cross_entropy(y: Array, target: Array, count: int) -> tuple[float, Array]:
    """Minus the logarithm of the probability of the right class; `target` holds the classes' numbers."""
    shifted = y - y.max(axis=1, keepdims=True)
    exponents = np.exp(shifted)
    sums = exponents.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = float((np.log(sums[:, 0]) - shifted[rows, target]).sum() / count)
    gradient = exponents / sums
    gradient[rows, target] -= 1
    return loss, np.asarray(gradient * y.dtype.type(1.0 / count))


def mean_squared_error(y: Array, target: Array, count: int) -> tuple[float, Array]:
    """The mean of squared differences, over all elements of all images."""
    elements = count * (y.size // max(len(y), 1))
    difference = y - target
    loss = float((difference * difference).sum() / elements)
    return loss, np.asarray(difference * y.dtype.type(2.0 / elements))

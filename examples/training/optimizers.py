"""Optimizers: how a gradient becomes a step. They work on spans of the network's vectors, one for each layer."""

from __future__ import annotations

import numpy as np

from examples.training.network import Network
from examples.training.workers import Array, over_parts

__all__ = ["SGD", "Adam", "Optimizer"]


class Optimizer:
    """Base of the optimizers.

    Attributes
    ----------
    state : dict of str to ndarray
        What is remembered between steps: vectors as long as the parameters. Checkpoints keep them.
    steps : int
        Steps so far.
    """

    def __init__(self, network: Network, names: tuple[str, ...]) -> None:
        self.network = network
        self.state = {name: np.zeros_like(network.values) for name in names}
        self.steps = 0

    def update(self, span: slice, rate: float) -> None:
        """Move the parameters of a span; `steps` has been counted up for this step."""
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent with momentum and weight decay: v = m v + g + d w, w -= rate v."""

    def __init__(self, network: Network, momentum: float = 0.9, decay: float = 0.0) -> None:
        super().__init__(network, ("velocity",) if momentum else ())
        self.momentum, self.decay = momentum, decay

    def update(self, span: slice, rate: float) -> None:
        values, gradients = self.network.values[span], self.network.gradients[span]
        velocity = self.state["velocity"][span] if self.momentum else None

        def move(part: slice) -> None:
            w, step = values[part], gradients[part]
            change = np.empty_like(w)
            if self.decay:
                step = np.add(step, np.multiply(w, self.decay, out=change), out=change)
            if velocity is not None:
                v = velocity[part]
                v *= self.momentum
                v += step
                step = v
            w -= np.multiply(step, rate, out=change)

        over_parts(move, values)


class Adam(Optimizer):
    """Adam (Kingma and Ba, arXiv 1412.6980), weight decay added to the gradient."""

    def __init__(
        self, network: Network, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, decay: float = 0.0
    ) -> None:
        super().__init__(network, ("mean", "square"))
        self.betas, self.eps, self.decay = betas, eps, decay

    def update(self, span: slice, rate: float) -> None:
        values, gradients = self.network.values[span], self.network.gradients[span]
        means, squares = self.state["mean"][span], self.state["square"][span]
        first, second = self.betas
        scale = rate / (1 - first**self.steps)
        root = (1 - second**self.steps) ** 0.5

        def move(part: slice) -> None:
            w, step, mean, square = values[part], gradients[part], means[part], squares[part]
            if self.decay:
                step = step + self.decay * w
            mean += (1 - first) * (step - mean)
            square *= second
            square += (1 - second) * (step * step)
            below: Array = np.sqrt(square)
            below /= root
            below += self.eps
            w -= scale * (mean / below)

        over_parts(move, values)

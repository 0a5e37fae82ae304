"""Layers made of layers: one after another, beside each other and added, beside each other and concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from examples.training.activations import Activation, ReLU
from examples.training.layers import Context, Layer, Shape
from examples.training.normalization import BatchNorm
from examples.training.pooling import MaxPool
from examples.training.workers import Array, empty, over_parts

__all__ = ["Concatenate", "Residual", "Sequential"]


class Block(Layer):
    """A layer with layers inside; it lets a stopwatch time each of them, if there is one."""

    stopwatch: Any = None

    def run(self, layer: Layer, phase: str, *arguments: Any) -> Any:
        """Call `layer.forward` or `layer.backward`."""
        method = getattr(layer, phase)
        if Block.stopwatch is None:
            return method(*arguments)
        return Block.stopwatch.run(layer.name, phase, method, *arguments)


class Sequential(Block):
    """One layer after another; with none it is the identity."""

    kind = "sequential"

    def __init__(self, layers: Sequence[Layer] = ()) -> None:
        super().__init__()
        self.as_written = list(layers)
        self.layers = list(layers)
        for i in reversed(range(len(self.layers) - 1)):
            norm, activation = self.layers[i : i + 2]
            if isinstance(norm, BatchNorm) and isinstance(activation, ReLU):
                norm.activation = activation.kind
                del self.layers[i + 1]
        for i in range(len(self.layers) - 1):
            # Activations rise with their input: the largest of them is that of the largest input, and fewer to compute.
            if isinstance(self.layers[i], Activation) and isinstance(self.layers[i + 1], MaxPool):
                self.layers[i : i + 2] = self.layers[i + 1], self.layers[i]
        self.new_output = bool(self.layers) and self.layers[-1].new_output
        self.new_gradient = bool(self.layers) and self.layers[0].new_gradient

    def children(self) -> list[Layer]:
        return self.layers

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context = context
        for layer in self.layers:
            shape = layer.build(shape, context)
        for before, after in pairwise(self.layers):
            after.in_place = before.new_output
            before.in_place_backward = after.new_gradient
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        for layer in self.layers:
            x = self.run(layer, "forward", x, training)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.layers):
            dy = self.run(layer, "backward", dy)
        return dy


class Residual(Block):
    """The sum of a body and a shortcut, which is the identity if it has no layers (He et al., arXiv 1512.03385)."""

    kind = "residual"

    def __init__(self, body: Sequential, shortcut: Sequential) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def children(self) -> list[Layer]:
        return [self.body, self.shortcut]

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context = context
        out, other = self.body.build(shape, context), self.shortcut.build(shape, context)
        if out != other:
            raise ValueError(f"{self.name}: the body gives {out}, the shortcut {other}: they cannot be added")
        return out

    def forward(self, x: Array, training: bool) -> Array:
        y, other = self.body.forward(x, training), self.shortcut.forward(x, training)
        return _sum(y, other, y if self.body.new_output else empty(y.shape, y.dtype))

    def backward(self, dy: Array) -> Array:
        dx, other = self.body.backward(dy), self.shortcut.backward(dy)
        return _sum(dx, other, dx if self.body.new_gradient else empty(dx.shape, dx.dtype))


class Concatenate(Block):
    """Branches beside each other, their channels one after another (Szegedy et al., arXiv 1409.4842)."""

    kind = "concatenate"

    def __init__(self, branches: Sequence[Sequential]) -> None:
        super().__init__()
        self.branches = list(branches)

    def children(self) -> list[Layer]:
        return [*self.branches]

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context = context
        shapes = [branch.build(shape, context) for branch in self.branches]
        if len({out[1:] for out in shapes}) != 1:
            raise ValueError(f"{self.name}: branches give images of different sizes: {shapes}")
        ends = np.cumsum([0, *(out[0] for out in shapes)]).tolist()
        self.shares = [slice(first, end) for first, end in pairwise(ends)]
        self.out = (ends[-1], *shapes[0][1:])
        return self.out

    def forward(self, x: Array, training: bool) -> Array:
        y = empty(self.context.image(len(x), self.out), x.dtype)
        for branch, share in zip(self.branches, self.shares, strict=True):
            _copy(branch.forward(x, training), self._channels(y, share))
        return y

    def backward(self, dy: Array) -> Array:
        dx: Array | None = None
        for branch, share in zip(self.branches, self.shares, strict=True):
            theirs = self._channels(dy, share)
            gradient = empty(theirs.shape, dy.dtype)
            _copy(theirs, gradient)
            found = branch.backward(gradient)
            dx = found if dx is None else _sum(dx, found, dx)
        assert dx is not None
        return dx

    def _channels(self, x: Array, share: slice) -> Array:
        return x[:, share] if self.context.layout == "NCHW" else x[..., share]


def _sum(a: Array, b: Array, out: Array) -> Array:
    over_parts(lambda part: np.add(a[part], b[part], out=out[part]), a)
    return out


def _copy(source: Array, to: Array) -> None:
    over_parts(lambda part: np.copyto(to[part], source[part]), to)

"""A network: built from its table, with all parameters in one vector and all gradients in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import convkit as ck
from examples.training import activations, layers, normalization, pooling
from examples.training.blocks import Block, Concatenate, Residual, Sequential
from examples.training.layers import Context, Layer, Parameter, Shape
from examples.training.workers import Array

__all__ = ["Network", "Row", "Table", "assemble", "leaves"]

Row = tuple[Any, ...]
Table = Sequence[Row]

KINDS: dict[str, type[Layer]] = {
    kind.kind: kind
    for kind in (
        layers.Conv2d, layers.DepthwiseConv2d, layers.ConvTranspose2d, layers.Dense, layers.Dropout, layers.Flatten,
        activations.ReLU, activations.ReLU6, activations.LeakyReLU, activations.Sigmoid, activations.Tanh,
        pooling.MaxPool, pooling.AveragePool, pooling.GlobalAverage, pooling.Upsample,
        normalization.BatchNorm,
    )
}  # fmt: skip


class Network:
    """Layers from a table.

    A row is the kind of a layer and its arguments, keywords in a dict at the end: ``("conv", 64, 3, {"stride": 2})``.
    ``("residual", body, shortcut)`` and ``("concatenate", branch, branch, ...)`` have tables inside.

    Parameters
    ----------
    table : sequence of rows
    image : tuple
        Shape of one input, (C, H, W).
    context : Context
        Layout, type, seed and threads.
    input_gradient : bool
        True if somebody needs the gradient with respect to the images.

    Attributes
    ----------
    values, gradients : ndarray
        All parameters, one layer after another, and their gradients. Layers hold views.
    """

    def __init__(self, table: Table, image: Shape, context: Context, *, input_gradient: bool = False) -> None:
        self.table, self.image, self.context = table, image, context
        self.body, self.out = assemble(table, image, context)
        if not input_gradient:
            _without_input_gradient(self.body)
        self.layers = list(leaves(self.body))
        size = sum(parameter.size for _, parameter in self.parameters())
        self.values, self.gradients = np.empty(size, context.dtype), np.zeros(size, context.dtype)
        rng = np.random.default_rng([context.seed, 0])
        self.spans: dict[str, slice] = {}
        place = 0
        for layer in self.layers:
            begin = place
            for parameter in layer.parameters:
                span = slice(place, place := place + parameter.size)
                parameter.value = self.values[span].reshape(parameter.shape)
                parameter.gradient = self.gradients[span].reshape(parameter.shape)
                parameter.value[...] = parameter.first(rng, parameter.shape)
            if layer.parameters:
                self.spans[layer.name] = slice(begin, place)

    def parameters(self) -> Iterator[tuple[Layer, Parameter]]:
        """All parameters with their layers, in order."""
        for layer in self.layers:
            for parameter in layer.parameters:
                yield layer, parameter

    def forward(self, x: Array, training: bool = False) -> Array:
        """Outputs for a batch of images in the network's layout."""
        return self.body.forward(x, training)

    def backward(self, dy: Array) -> Array:
        """Set all gradients; the result is the images' one if it was asked for."""
        return self.body.backward(dy)

    def buffers(self) -> dict[str, Array]:
        """What layers remember beside parameters, by name."""
        return {f"{layer.name}.{name}": buffer for layer in self.layers for name, buffer in layer.buffers.items()}

    def images(self, nchw: Array) -> Array:
        """Images (or feature vectors) in the network's layout and type."""
        x = np.ascontiguousarray(nchw, self.context.dtype)
        stays = self.context.layout == "NCHW" or nchw.ndim == 2
        return x if stays else np.asarray(ck.nchw_to_nhwc(x, num_threads=self.context.threads))

    def __repr__(self) -> str:
        convolutions = sum(isinstance(layer, layers.Conv2d | layers.ConvTranspose2d) for layer in self.layers)
        return f"<Network: {convolutions} convolutions, {self.values.size:,} parameters>"


def assemble(table: Table, image: Shape, context: Context) -> tuple[Sequential, Shape]:
    """The layers of a table, which know their sizes but have no values yet, and the shape of one output."""
    body = _sequential(table, {})
    return body, body.build(image, context)


def leaves(layer: Layer) -> Iterator[Layer]:
    """The layers inside that have none inside themselves, in order."""
    inside = layer.children()
    if not inside and not isinstance(layer, Block):
        yield layer
    for child in inside:
        yield from leaves(child)


def _sequential(table: Table, counts: dict[str, int]) -> Sequential:
    return Sequential([_layer(row, counts) for row in table])


def _layer(row: Row, counts: dict[str, int]) -> Layer:
    kind, *arguments = row
    keywords = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
    keywords = dict(keywords)
    counts[kind] = counts.get(kind, 0) + 1
    name = keywords.pop("name", None) or f"{kind}{counts[kind]}"
    layer: Block | Layer
    if kind == "residual":
        body, shortcut = (_sequential(part, counts) for part in arguments)
        layer = Residual(body, shortcut)
    elif kind == "concatenate":
        layer = Concatenate([_sequential(part, counts) for part in arguments])
    elif kind in KINDS:
        layer = KINDS[kind](*arguments, **keywords)
    else:
        raise ValueError(f"unknown kind of layer {kind!r}; known are residual, concatenate, {', '.join(KINDS)}")
    layer.name = name
    return layer


def _without_input_gradient(layer: Layer) -> bool:
    """Tell the layers that begin the network that nobody needs their input's gradient; whether there was a layer."""
    if isinstance(layer, Sequential):
        return any(_without_input_gradient(child) for child in layer.layers[:1])
    layer.input_gradient = isinstance(layer, Block)
    return True

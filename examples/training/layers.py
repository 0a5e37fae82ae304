"""Layers: each knows its forward pass, its backward pass and its parameters.

A layer is made from its row of a network's table. Then `build` tells it the shape of one input, (C, H, W) or
(features,), and gets the shape of one output. Arrays have the network's layout, NCHW or NHWC; parameters are the same
in both.

`forward` keeps what `backward` needs. `backward` takes the gradient of the loss with respect to the layer's output,
sets the gradients of the parameters and returns the one with respect to the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import convkit as ck
from examples.training import initialisation
from examples.training.workers import Array, product

__all__ = [
    "Context", "Conv2d", "ConvTranspose2d", "Dense", "DepthwiseConv2d", "Dropout", "Flatten", "Layer", "Parameter",
    "Shape",
]  # fmt: skip

Shape = tuple[int, ...]


@dataclass
class Context:
    """What all layers of a network share.

    Attributes
    ----------
    step : int
        Number of the training step: together with the seed it decides all that is drawn at random.
    first, total : int
        Where this process's images lie in the joined batch of all processes; total 0: it has the whole batch.
    """

    layout: str = "NHWC"
    dtype: str = "float32"
    seed: int = 0
    threads: int | None = None
    accuracy: Any = None
    step: int = 0
    first: int = 0
    total: int = 0

    def image(self, n: int, shape: Shape) -> Shape:
        """The shape of a batch of images, or of feature vectors."""
        if len(shape) == 1:
            return (n, *shape)
        c, h, w = shape
        return (n, c, h, w) if self.layout == "NCHW" else (n, h, w, c)

    @property
    def channel_axis(self) -> int:
        """The dimension of channels."""
        return 1 if self.layout == "NCHW" else 3


@dataclass
class Parameter:
    """One array that is learned. `value` and `gradient` are views of the network's two vectors."""

    name: str
    shape: Shape
    first: Callable[[np.random.Generator, Shape], Array]
    value: Any = None
    gradient: Any = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Layer:
    """Base of all layers.

    Attributes
    ----------
    parameters : list of Parameter
        What is learned.
    buffers : dict of str to ndarray
        What is remembered, but not learned: statistics of normalisations.
    new_output, new_gradient : bool
        Whether the result of `forward` (of `backward`) is an array that neither this layer nor another looks at again:
        then the next one may work in place.
    """

    kind = ""
    new_output = True
    new_gradient = True

    def __init__(self) -> None:
        self.name = ""
        self.parameters: list[Parameter] = []
        self.buffers: dict[str, Array] = {}
        self.context = Context()
        self.in_place = False
        self.in_place_backward = False
        self.input_gradient = True

    def build(self, shape: Shape, context: Context) -> Shape:
        """Learn the shape of one input; declare parameters and return the shape of one output."""
        self.context = context
        return shape

    def children(self) -> list[Layer]:
        """Layers inside of this one."""
        return []

    def forward(self, x: Array, training: bool) -> Array:
        """The layer's output."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """The gradient with respect to the input."""
        raise NotImplementedError

    def declare(self, name: str, shape: Shape, first: Callable[..., Array]) -> Parameter:
        """Add a parameter."""
        parameter = Parameter(name, shape, first)
        self.parameters.append(parameter)
        return parameter


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Two of a number."""
    return (value, value) if isinstance(value, int) else value


class Conv2d(Layer):
    """A convolution with its bias, on `convkit.TrainingConv2d`.

    Parameters
    ----------
    channels : int
        Number of filters.
    kernel : int or pair
    padding : int or pair, optional
        By default half the kernel: the image keeps its size at stride 1.
    """

    kind = "conv"

    def __init__(
        self,
        channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.kernel, self.stride = channels, pair(kernel), stride
        self.groups, self.with_bias = groups, bias
        self.padding = (self.kernel[0] // 2, self.kernel[1] // 2) if padding is None else pair(padding)

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context = context
        c, h, w = shape
        if not self.groups:
            self.groups = self.channels = c
        (kh, kw), (ph, pw), s = self.kernel, self.padding, self.stride
        self.weight = self.declare("weight", (self.channels, c // self.groups, kh, kw), initialisation.he)
        self.bias = self.declare("bias", (self.channels,), initialisation.zeros) if self.with_bias else None
        self.geometry: dict[str, Any] = {
            "stride": s,
            "padding": self.padding,
            "groups": self.groups,
            "layout": context.layout,
        }
        self.limits: dict[str, Any] = {"num_threads": context.threads, "accuracy": context.accuracy}
        self.plan: Any = None
        return self.channels, (h + 2 * ph - kh) // s + 1, (w + 2 * pw - kw) // s + 1

    def forward(self, x: Array, training: bool) -> Array:
        bias = None if self.bias is None else self.bias.value
        if not training:
            return np.asarray(ck.conv2d(x, self.weight.value, bias, **self.geometry, **self.limits))
        if self.plan is None:
            self.plan = ck.TrainingConv2d(**self.geometry, **self.limits, input_gradient=self.input_gradient)
        return np.asarray(self.plan.forward(x, self.weight.value, bias))

    def backward(self, dy: Array) -> Any:
        dx, dw, db = self.plan.backward(dy)
        self.weight.gradient[...] = dw
        if self.bias is not None:
            self.bias.gradient[...] = db
        return dx


class DepthwiseConv2d(Conv2d):
    """A convolution of each channel by itself."""

    kind = "depthwise"

    def __init__(self, kernel: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__(0, kernel, stride=stride, groups=0, bias=bias)


class ConvTranspose2d(Layer):
    """The transposed convolution of Keras with padding "same": it enlarges the image by the stride.

    Its forward pass is the input gradient of a convolution and the other way round.
    """

    kind = "deconv"

    def __init__(self, channels: int, kernel: int, *, stride: int = 2) -> None:
        super().__init__()
        self.channels, self.kernel, self.stride = channels, kernel, stride

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context = context
        c, h, w = shape
        self.weight = self.declare("weight", (c, self.channels, self.kernel, self.kernel), initialisation.glorot)
        self.bias = self.declare("bias", (self.channels,), initialisation.zeros)
        # Of the kernel's reach beyond the stride, half is cut off in front and the larger half behind.
        over = self.kernel - self.stride
        if over < 0:
            raise ValueError(f"a transposed convolution needs a kernel of at least its stride, got {self.kernel}")
        self.padding = ((over // 2, over - over // 2),) * 2
        self.geometry: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "layout": context.layout}
        self.limits: dict[str, Any] = {"num_threads": context.threads, "accuracy": context.accuracy}
        return self.channels, h * self.stride, w * self.stride

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        y = ck.conv_transpose2d(x, self.weight.value, self.bias.value, **self.geometry, **self.limits)
        return np.asarray(y)

    def backward(self, dy: Array) -> Array:
        w = self.weight
        w.gradient[...] = ck.grad.conv2d_weight(dy, w.shape, self.x, **self.geometry, **self.limits)
        self.bias.gradient[...] = ck.grad.conv2d_bias(dy, self.context.layout)
        return np.asarray(ck.conv2d(dy, w.value, **self.geometry, **self.limits))


class Dense(Layer):
    """Every output is a weighted sum of all inputs."""

    kind = "dense"

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context = context
        (inputs,) = shape
        self.weight = self.declare("weight", (self.features, inputs), initialisation.he)
        self.bias = self.declare("bias", (self.features,), initialisation.zeros)
        return (self.features,)

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        y = product(x, self.weight.value.T)
        y += self.bias.value
        return y

    def backward(self, dy: Array) -> Array:
        product(dy.T, self.x, out=self.weight.gradient)
        np.sum(dy, axis=0, out=self.bias.gradient)
        return product(dy, self.weight.value) if self.input_gradient else dy


class Flatten(Layer):
    """Images as feature vectors, channels outermost in both layouts, so that dense weights fit both."""

    kind = "flatten"
    new_output = new_gradient = False

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context, self.shape = context, shape
        return (math.prod(shape),)

    def forward(self, x: Array, training: bool) -> Array:
        images = x if self.context.layout == "NCHW" else x.transpose(0, 3, 1, 2)
        return images.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        images = dy.reshape(-1, *self.shape)
        return images if self.context.layout == "NCHW" else np.ascontiguousarray(images.transpose(0, 2, 3, 1))


class Dropout(Layer):
    """Sets a share of the inputs to zero, and scales the others so that the expected sum stays (Hinton et al. 2012).

    The mask is drawn for the joined batch of all processes from the seed and the step's number: neither a restart nor
    the number of processes changes it.
    """

    kind = "dropout"
    new_output = new_gradient = False

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.mask: Any = None

    def build(self, shape: Shape, context: Context) -> Shape:
        self.context, self.shape = context, shape
        return shape

    def forward(self, x: Array, training: bool) -> Array:
        if not training:
            return x
        c = self.context
        words = [c.seed, c.step, *self.name.encode()]
        kept = np.random.default_rng(words).random((c.total or len(x), *self.shape), np.float32) >= self.share
        kept = kept[c.first : c.first + len(x)]
        if c.layout == "NHWC" and len(self.shape) == 3:
            kept = kept.transpose(0, 2, 3, 1)
        self.mask = np.multiply(kept, 1.0 / (1.0 - self.share), dtype=x.dtype)
        return np.asarray(x * self.mask)

    def backward(self, dy: Array) -> Array:
        return np.asarray(dy * self.mask)

"""Layer tables of published networks: every convolution with its sizes, in the order in which the network runs them.

A `Network` also knows its dense layers and normalised channels, so that its totals can be held against the published
parameter and multiply-add counts.

>>> from convkit import networks
>>> vgg = networks.get("vgg19")
>>> len(vgg.layers), vgg.parameters
(16, 143667240)
>>> [layer.name for layer in vgg.unique()][:2]
['conv1_1', 'conv1_2']
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from convkit.problem import Problem

__all__ = ["Layer", "Network", "get", "names"]

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


@dataclass(frozen=True)
class Layer:
    """One convolution of a network.

    Sizes are those of the convolution: input (C, H, W), filters (O, C / groups, KH, KW). A transposed convolution is
    described by the convolution whose input gradient it is, so its own input has O channels and its result C.

    Parameters
    ----------
    name : str
        Unique within the network.
    c, h, w, o, kh, kw : int
        Sizes of the convolution.
    stride, padding, dilation, groups : optional
        As `convkit.conv2d` takes them, spelled out for each direction and side.
    count : int
        How often a layer of this shape occurs.
    bias : bool
        It has one.
    transposed : bool
        It is the transposed convolution.
    """

    name: str
    c: int
    h: int
    w: int
    o: int
    kh: int
    kw: int
    stride: Pair = (1, 1)
    padding: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    count: int = 1
    bias: bool = True
    transposed: bool = False

    @property
    def oh(self) -> int:
        """Height of the convolution's output."""
        return (self.h + sum(self.padding[0]) - self.dilation[0] * (self.kh - 1) - 1) // self.stride[0] + 1

    @property
    def ow(self) -> int:
        """Width of the convolution's output."""
        return (self.w + sum(self.padding[1]) - self.dilation[1] * (self.kw - 1) - 1) // self.stride[1] + 1

    @property
    def weights(self) -> int:
        """Number of filter coefficients of one such layer."""
        return self.o * (self.c // self.groups) * self.kh * self.kw

    @property
    def parameters(self) -> int:
        """Filter coefficients and biases of one such layer."""
        return self.weights + (self.c if self.transposed else self.o) * self.bias

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one such layer for one image."""
        return self.weights * self.oh * self.ow

    def problem(self, batch: int, **fields: Any) -> Problem:
        """The problem of this layer: its sizes with a batch, and whatever other fields are given.

        Parameters
        ----------
        batch : int
            Number of images.
        **fields
            Of `convkit.problem.Problem`. `op` is the forward call of the layer unless it is given, so "input_grad" for
            a transposed convolution.

        Returns
        -------
        Problem
            What the tuner chooses a kernel for.
        """
        (top, bottom), (left, right) = self.padding
        given: dict[str, Any] = {"op": "input_grad" if self.transposed else "forward", **fields}
        return Problem(
            n=batch,
            c=self.c,
            h=self.h,
            w=self.w,
            o=self.o,
            kh=self.kh,
            kw=self.kw,
            stride_h=self.stride[0],
            stride_w=self.stride[1],
            pad_top=top,
            pad_bottom=bottom,
            pad_left=left,
            pad_right=right,
            dilation_h=self.dilation[0],
            dilation_w=self.dilation[1],
            groups=self.groups,
            **given,
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything but name and count: layers of equal shape are the same convolution."""
        return tuple(getattr(self, item.name) for item in fields(self) if item.name not in ("name", "count"))


@dataclass(frozen=True)
class Network:
    """The convolutions of a network, with what else counts towards its published size.

    Parameters
    ----------
    name, title : str
        What `get` and what people call it.
    image : tuple of int
        Channels, height and width of its input.
    layers : tuple of Layer
        In the order in which the network runs them.
    dense : tuple of pairs
        Inputs and outputs of its dense layers.
    norm_channels : int
        Channels that are normalised, with a scale and a shift each.
    """

    name: str
    title: str
    image: tuple[int, int, int]
    layers: tuple[Layer, ...]
    dense: tuple[Pair, ...] = ()
    norm_channels: int = 0

    @property
    def parameters(self) -> int:
        """All trainable parameters: convolutions, dense layers with biases, scale and shift of normalisations."""
        convolutions = sum(layer.parameters * layer.count for layer in self.layers)
        return convolutions + sum(i * o + o for i, o in self.dense) + 2 * self.norm_channels

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the convolutions and dense layers for one image."""
        convolutions = sum(layer.multiply_adds * layer.count for layer in self.layers)
        return convolutions + sum(i * o for i, o in self.dense)

    def unique(self) -> tuple[Layer, ...]:
        """Count layers of equal shape together.

        Returns
        -------
        tuple of Layer
            Those that differ in shape, in order of first appearance.
        """
        first: dict[tuple[object, ...], Layer] = {}
        for layer in self.layers:
            seen = first.get(layer.shape)
            first[layer.shape] = replace(seen, count=seen.count + layer.count) if seen else layer
        return tuple(first.values())


@dataclass
class _Trace:
    """Runs a network's construction on sizes alone: where the image is now, and the convolutions so far."""

    c: int
    h: int
    w: int
    norm: bool = False  # convolutions are followed by a normalisation and have no bias
    layers: list[Layer] = field(default_factory=list)
    norm_channels: int = 0

    def conv(
        self, name: str, o: int, kernel: int | Pair, stride: int = 1, pad: int | None = None, groups: int = 1
    ) -> _Trace:
        """Append a convolution; `pad` None keeps the size at stride 1."""
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        ph, pw = (kh // 2, kw // 2) if pad is None else (pad, pad)
        strides, pads = (stride, stride), ((ph, ph), (pw, pw))
        bias = not self.norm
        layer = Layer(name, self.c, self.h, self.w, o, kh, kw, strides, pads, groups=groups, bias=bias)
        self.layers.append(layer)
        self.c, self.h, self.w = o, layer.oh, layer.ow
        self.norm_channels += o * self.norm
        return self

    def pool(self, size: int, stride: int, pad: int = 0, ceil: bool = False) -> None:
        """Apply a pooling layer's change of size."""
        up = stride - 1 if ceil else 0
        self.h = (self.h + 2 * pad - size + up) // stride + 1
        self.w = (self.w + 2 * pad - size + up) // stride + 1

    def branch(self) -> _Trace:
        """Start a parallel path from here that records into the same table."""
        return _Trace(self.c, self.h, self.w, self.norm, self.layers)

    def concatenate(self, *branches: _Trace) -> None:
        """Continue with the channels of all branches."""
        self.norm_channels += sum(branch.norm_channels for branch in branches)
        self.c, self.h, self.w = sum(branch.c for branch in branches), branches[0].h, branches[0].w

    def add(self, *branches: _Trace) -> None:
        """Continue with the sum of branches of equal shape."""
        self.norm_channels += sum(branch.norm_channels for branch in branches)
        self.c, self.h, self.w = branches[0].c, branches[0].h, branches[0].w

    def network(self, name: str, title: str, image: int, dense: tuple[Pair, ...]) -> Network:
        """Close the trace."""
        return Network(name, title, (self.layers[0].c, image, image), tuple(self.layers), dense, self.norm_channels)


def _vgg(name: str, depth: int, image: int) -> Network:
    """Simonyan & Zisserman, arXiv 1409.1556, configurations A, D and E; on CIFAR-10 with dense layers of 512."""
    counts = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    trace = _Trace(3, image, image)
    for stage, (count, o) in enumerate(zip(counts, (64, 128, 256, 512, 512), strict=True), start=1):
        for i in range(1, count + 1):
            trace.conv(f"conv{stage}_{i}", o, 3)
        trace.pool(2, 2)
    dense = ((512 * trace.h * trace.w, 4096), (4096, 4096), (4096, 1000))
    if image == 32:
        dense = ((512, 512), (512, 512), (512, 10))
    return trace.network(name, f"VGG-{depth}", image, dense)


def _alexnet(name: str, image: int) -> Network:
    """Krizhevsky, arXiv 1404.5997 (one tower), with the layer sizes that torchvision made common."""
    trace = _Trace(3, image, image)
    trace.conv("conv1", 64, 11, 4, 2)
    trace.pool(3, 2)
    trace.conv("conv2", 192, 5)
    trace.pool(3, 2)
    trace.conv("conv3", 384, 3)
    trace.conv("conv4", 256, 3)
    trace.conv("conv5", 256, 3)
    return trace.network(name, "AlexNet", image, ((256 * 6 * 6, 4096), (4096, 4096), (4096, 1000)))


def _resnet(name: str, depth: int, image: int) -> Network:
    """He et al., arXiv 1512.03385, stride in the 3x3 of a bottleneck; on CIFAR-10 the stem is a 3x3 without pooling."""
    counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    bottleneck = depth >= 50
    trace = _Trace(3, image, image, norm=True)
    if image == 32:
        trace.conv("conv1", 64, 3)
    else:
        trace.conv("conv1", 64, 7, 2)
        trace.pool(3, 2, 1)
    for stage, (count, width) in enumerate(zip(counts, (64, 128, 256, 512), strict=True), start=2):
        o = width * 4 if bottleneck else width
        for i in range(1, count + 1):
            stride = 2 if i == 1 and stage > 2 else 1
            block = f"conv{stage}_{i}"
            shortcut, path = trace.branch(), trace.branch()
            if trace.c != o or stride != 1:
                shortcut.conv(f"{block}_shortcut", o, 1, stride)
            if bottleneck:
                path.conv(f"{block}_a", width, 1).conv(f"{block}_b", width, 3, stride).conv(f"{block}_c", o, 1)
            else:
                path.conv(f"{block}_a", o, 3, stride).conv(f"{block}_b", o, 3)
            trace.add(path, shortcut)
    return trace.network(name, f"ResNet-{depth}", image, ((trace.c, 10 if image == 32 else 1000),))


def _googlenet(name: str, image: int) -> Network:
    """Szegedy et al., arXiv 1409.4842, without the auxiliary classifiers."""
    trace = _Trace(3, image, image)
    trace.conv("conv1", 64, 7, 2)
    trace.pool(3, 2, ceil=True)
    trace.conv("conv2_reduce", 64, 1)
    trace.conv("conv2", 192, 3)
    trace.pool(3, 2, ceil=True)
    for block, (one, reduce3, three, reduce5, five, pool) in {
        "3a": (64, 96, 128, 16, 32, 32),
        "3b": (128, 128, 192, 32, 96, 64),
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
        "5a": (256, 160, 320, 32, 128, 128),
        "5b": (384, 192, 384, 48, 128, 128),
    }.items():
        if block in ("4a", "5a"):
            trace.pool(3, 2, ceil=True)
        trace.concatenate(
            trace.branch().conv(f"{block}_1x1", one, 1),
            trace.branch().conv(f"{block}_3x3_reduce", reduce3, 1).conv(f"{block}_3x3", three, 3),
            trace.branch().conv(f"{block}_5x5_reduce", reduce5, 1).conv(f"{block}_5x5", five, 5),
            trace.branch().conv(f"{block}_pool", pool, 1),
        )
    return trace.network(name, "GoogLeNet", image, ((1024, 1000),))


def _inception_v3(name: str, image: int) -> Network:
    """Szegedy et al., arXiv 1512.00567, without the auxiliary classifier."""
    trace = _Trace(3, image, image, norm=True)
    trace.conv("conv1", 32, 3, 2, 0)
    trace.conv("conv2", 32, 3, 1, 0)
    trace.conv("conv3", 64, 3)
    trace.pool(3, 2)
    trace.conv("conv4", 80, 1)
    trace.conv("conv5", 192, 3, 1, 0)
    trace.pool(3, 2)

    def path(prefix: str, *steps: tuple[int, int | Pair]) -> _Trace:
        branch = trace.branch()
        for i, (o, kernel) in enumerate(steps, start=1):
            branch.conv(f"{prefix}_{i}", o, kernel)
        return branch

    for block, pool in (("5b", 32), ("5c", 64), ("5d", 64)):
        trace.concatenate(
            path(f"{block}_1x1", (64, 1)),
            path(f"{block}_5x5", (48, 1), (64, 5)),
            path(f"{block}_3x3", (64, 1), (96, 3), (96, 3)),
            path(f"{block}_pool", (pool, 1)),
        )
    pooled = trace.c
    trace.concatenate(
        trace.branch().conv("6a_3x3", 384, 3, 2, 0),
        path("6a_3x3x2", (64, 1), (96, 3)).conv("6a_3x3x2_3", 96, 3, 2, 0),
    )
    trace.c += pooled
    for block, mid in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        trace.concatenate(
            path(f"{block}_1x1", (192, 1)),
            path(f"{block}_7x7", (mid, 1), (mid, (1, 7)), (192, (7, 1))),
            path(f"{block}_7x7x2", (mid, 1), (mid, (7, 1)), (mid, (1, 7)), (mid, (7, 1)), (192, (1, 7))),
            path(f"{block}_pool", (192, 1)),
        )
    pooled = trace.c
    trace.concatenate(
        path("7a_3x3", (192, 1)).conv("7a_3x3_2", 320, 3, 2, 0),
        path("7a_7x7", (192, 1), (192, (1, 7)), (192, (7, 1))).conv("7a_7x7_4", 192, 3, 2, 0),
    )
    trace.c += pooled
    for block in ("7b", "7c"):
        split, split2 = path(f"{block}_3x3", (384, 1)), path(f"{block}_3x3x2", (448, 1), (384, 3))
        for prefix, stem in ((f"{block}_3x3", split), (f"{block}_3x3x2", split2)):
            wide = stem.branch().conv(f"{prefix}_wide", 384, (1, 3))
            stem.concatenate(wide, stem.branch().conv(f"{prefix}_tall", 384, (3, 1)))
        trace.concatenate(path(f"{block}_1x1", (320, 1)), split, split2, path(f"{block}_pool", (192, 1)))
    return trace.network(name, "Inception v3", image, ((2048, 1000),))


def _densenet121(name: str, image: int) -> Network:
    """Huang et al., arXiv 1608.06993: growth 32, each convolution preceded by a normalisation of its input."""
    trace = _Trace(3, image, image, norm=True)
    trace.conv("conv1", 64, 7, 2)
    trace.pool(3, 2, 1)
    normalised = trace.c
    for block, count in enumerate((6, 12, 24, 16), start=1):
        for i in range(1, count + 1):
            c = trace.c
            trace.conv(f"dense{block}_{i}_1x1", 128, 1).conv(f"dense{block}_{i}_3x3", 32, 3)
            trace.c += c
            normalised += c + 128
        normalised += trace.c
        if block < 4:
            trace.conv(f"transition{block}", trace.c // 2, 1)
            trace.pool(2, 2)
    trace.norm_channels = normalised
    return trace.network(name, "DenseNet-121", image, ((trace.c, 1000),))


def _mobilenet_v1(name: str, image: int) -> Network:
    """Howard et al., arXiv 1704.04861, width 1."""
    trace = _Trace(3, image, image, norm=True)
    trace.conv("conv1", 32, 3, 2)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for i, (o, stride) in enumerate(blocks, start=1):
        trace.conv(f"conv{i}_depthwise", trace.c, 3, stride, groups=trace.c).conv(f"conv{i}_pointwise", o, 1)
    return trace.network(name, "MobileNet v1", image, ((1024, 1000),))


def _mobilenet_v2(name: str, image: int) -> Network:
    """Sandler et al., arXiv 1801.04381, width 1."""
    trace = _Trace(3, image, image, norm=True)
    trace.conv("conv1", 32, 3, 2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    block = 0
    for expansion, o, count, first_stride in stages:
        for i in range(count):
            block += 1
            hidden = trace.c * expansion
            if expansion != 1:
                trace.conv(f"block{block}_expand", hidden, 1)
            trace.conv(f"block{block}_depthwise", hidden, 3, first_stride if i == 0 else 1, groups=hidden)
            trace.conv(f"block{block}_project", o, 1)
    trace.conv("conv_last", 1280, 1)
    return trace.network(name, "MobileNet v2", image, ((1280, 1000),))


def _mnist_cnn(name: str, image: int) -> Network:
    """The Keras study of DOI 10.25130/tjps.v28i1.1270: 30 filters 5x5, 15 filters 3x3, dense 128, 50, 10."""
    trace = _Trace(1, image, image)
    trace.conv("conv1", 30, 5, 1, 0)
    trace.pool(2, 2)
    trace.conv("conv2", 15, 3, 1, 0)
    trace.pool(2, 2)
    return trace.network(name, "MNIST CNN", image, ((15 * trace.h * trace.w, 128), (128, 50), (50, 10)))


def _autoencoder(name: str, image: int) -> Network:
    """An autoencoder on MNIST: two convolutions with pooling, two transposed convolutions, one back to an image."""
    half = image // 2
    same, up = ((1, 1), (1, 1)), ((0, 1), (0, 1))
    layers = (
        Layer("encode1", 1, image, image, 16, 3, 3, padding=same),
        Layer("encode2", 16, half, half, 8, 3, 3, padding=same),
        Layer("decode1", 8, half, half, 8, 3, 3, (2, 2), up, transposed=True),
        Layer("decode2", 8, image, image, 8, 3, 3, (2, 2), up, transposed=True),
        Layer("output", 8, image, image, 1, 3, 3, padding=same),
    )
    return Network(name, "Autoencoder", (1, image, image), layers)


_NETWORKS: dict[str, Callable[[str], Network]] = {
    "vgg11": partial(_vgg, depth=11, image=224),
    "vgg16": partial(_vgg, depth=16, image=224),
    "vgg19": partial(_vgg, depth=19, image=224),
    "vgg11_cifar": partial(_vgg, depth=11, image=32),
    "vgg16_cifar": partial(_vgg, depth=16, image=32),
    "vgg19_cifar": partial(_vgg, depth=19, image=32),
    "alexnet": partial(_alexnet, image=224),
    "resnet18": partial(_resnet, depth=18, image=224),
    "resnet34": partial(_resnet, depth=34, image=224),
    "resnet50": partial(_resnet, depth=50, image=224),
    "resnet18_cifar": partial(_resnet, depth=18, image=32),
    "resnet34_cifar": partial(_resnet, depth=34, image=32),
    "resnet50_cifar": partial(_resnet, depth=50, image=32),
    "googlenet": partial(_googlenet, image=224),
    "inception_v3": partial(_inception_v3, image=299),
    "densenet121": partial(_densenet121, image=224),
    "mobilenet_v1": partial(_mobilenet_v1, image=224),
    "mobilenet_v2": partial(_mobilenet_v2, image=224),
    "mnist_cnn": partial(_mnist_cnn, image=28),
    "autoencoder": partial(_autoencoder, image=28),
}


def names() -> tuple[str, ...]:
    """What `get` accepts.

    Returns
    -------
    tuple of str
        Names of networks.
    """
    return tuple(_NETWORKS)


def get(name: str) -> Network:
    """Layer table of a network.

    Parameters
    ----------
    name : str
        One of `names()`; a ``_cifar`` suffix means 32x32 images, without it the size of the publication.

    Returns
    -------
    Network
        Its layers, and what its published size is made of.

    Raises
    ------
    ValueError
        For an unknown name; the text lists the known ones.
    """
    if name not in _NETWORKS:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(_NETWORKS)}")
    return _NETWORKS[name](name)

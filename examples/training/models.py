"""The networks, as tables. Names of rows: see `network.Network`; publications: see `convkit.networks`, whose tables the
convolutions here must agree with (tests compare them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from examples.training.layers import Shape
from examples.training.network import Row, Table

__all__ = ["MODELS", "Model", "get", "narrow"]


@dataclass(frozen=True)
class Model:
    """A network's table and the shape of its images.

    Attributes
    ----------
    layers : str
        Name of the table of `convkit.networks` with the same convolutions; empty if there is none.
    """

    title: str
    image: Shape
    table: Table
    layers: str = ""


def classifier(*features: int, drop: float = 0.0) -> Table:
    """Dense layers with ReLU between them, after the images were flattened."""
    rows: list[Row] = [("flatten",)]
    for count in features[:-1]:
        rows += [("dropout", drop)] * (drop > 0) + [("dense", count), ("relu",)]
    return (*rows, ("dense", features[-1]))


def unit(o: int, kernel: Any, stride: int = 1, padding: Any = None) -> Table:
    """A convolution, normalised, with ReLU."""
    options = {"bias": False, "stride": stride} | ({} if padding is None else {"padding": padding})
    return ("conv", o, kernel, options), ("norm",), ("relu",)


KERAS_CNN: Table = (
    ("conv", 30, 5, {"padding": 0}), ("relu",), ("pool", 2),
    ("conv", 15, 3, {"padding": 0}), ("relu",), ("pool", 2),
    ("dropout", 0.2), *classifier(128, 50, 10),
)  # fmt: skip

AUTOENCODER: Table = (
    ("conv", 16, 3), ("relu",), ("pool", 2),
    ("conv", 8, 3), ("relu",), ("pool", 2),
    ("deconv", 8, 3), ("relu",),
    ("deconv", 8, 3), ("relu",),
    ("conv", 1, 3), ("sigmoid",),
)  # fmt: skip

ALEXNET: Table = (
    ("conv", 64, 11, {"stride": 4, "padding": 2}), ("relu",), ("pool", 3, 2),
    ("conv", 192, 5), ("relu",), ("pool", 3, 2),
    ("conv", 384, 3), ("relu",), ("conv", 256, 3), ("relu",), ("conv", 256, 3), ("relu",),
)  # fmt: skip


def alexnet(classes: int, cifar: bool) -> Table:
    """One tower; on CIFAR's 32x32 pixels one pixel is left after the second pool, so the third is left out."""
    return (*ALEXNET, *(() if cifar else (("pool", 3, 2),)), *classifier(4096, 4096, classes, drop=0.5))


VGG = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(depth: int, classes: int, cifar: bool) -> Table:
    """Stages of 3x3 convolutions, a pool after each; on CIFAR dense layers of 512."""
    rows: list[Row] = []
    for count, o in zip(VGG[depth], (64, 128, 256, 512, 512), strict=True):
        rows += [("conv", o, 3), ("relu",)] * count + [("pool", 2)]
    wide = 512 if cifar else 4096
    return (*rows, *classifier(wide, wide, classes, drop=0.5))


RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def resnet(depth: int, classes: int, cifar: bool) -> Table:
    """Residual blocks of two 3x3 convolutions, or bottlenecks from 50 layers on."""
    rows = [*unit(64, 3)] if cifar else [*unit(64, 7, 2), ("pool", 3, 2, {"padding": 1})]
    channels = 64
    for stage, (count, width) in enumerate(zip(RESNET[depth], (64, 128, 256, 512), strict=True)):
        o = 4 * width if depth >= 50 else width
        for i in range(count):
            stride = 2 if stage and not i else 1
            if depth >= 50:
                body = (*unit(width, 1), *unit(width, 3, stride), *unit(o, 1)[:2])
            else:
                body = (*unit(o, 3, stride), *unit(o, 3)[:2])
            shortcut = unit(o, 1, stride)[:2] if channels != o or stride > 1 else ()
            rows += [("residual", body, shortcut), ("relu",)]
            channels = o
    return (*rows, ("global_average",), ("dense", classes))


GOOGLENET: dict[str, tuple[int, ...]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(classes: int, cifar: bool) -> Table:
    """Inception blocks without normalisation; on CIFAR the stem keeps the size."""
    pool: Row = ("pool", 3, 2, {"ceil": True})
    rows: list[Row] = [("conv", 64, 3), ("relu",)] if cifar else [("conv", 64, 7, {"stride": 2}), ("relu",), pool]
    rows += [("conv", 64, 1), ("relu",), ("conv", 192, 3), ("relu",), pool]
    for name, (one, reduce3, three, reduce5, five, last) in GOOGLENET.items():
        rows += [pool] if name in ("4a", "5a") else []
        rows += [
            (
                "concatenate",
                (("conv", one, 1), ("relu",)),
                (("conv", reduce3, 1), ("relu",), ("conv", three, 3), ("relu",)),
                (("conv", reduce5, 1), ("relu",), ("conv", five, 5), ("relu",)),
                (("pool", 3, 1, {"padding": 1}), ("conv", last, 1), ("relu",)),
            )
        ]
    return (*rows, ("global_average",), ("dropout", 0.4), ("dense", classes))


AROUND: Row = ("average", 3, 1, {"padding": 1})


def path(*steps: tuple[int, Any]) -> Table:
    """Units one after another that keep the image's size."""
    return tuple(row for o, kernel in steps for row in unit(o, kernel))


def inception_a(pool: int) -> Row:
    """1x1, 5x5, two 3x3, and a pool."""
    return (
        "concatenate",
        path((64, 1)), path((48, 1), (64, 5)), path((64, 1), (96, 3), (96, 3)), (AROUND, *path((pool, 1))),
    )  # fmt: skip


def reduction_a() -> Row:
    """Half the size: 3x3 with stride 2 beside two 3x3 and a pool."""
    return (
        "concatenate",
        unit(384, 3, 2, 0), (*path((64, 1), (96, 3)), *unit(96, 3, 2, 0)), (("pool", 3, 2),),
    )  # fmt: skip


def inception_b(mid: int) -> Row:
    """7x7 filters as rows and columns."""
    return (
        "concatenate",
        path((192, 1)),
        path((mid, 1), (mid, (1, 7)), (192, (7, 1))),
        path((mid, 1), (mid, (7, 1)), (mid, (1, 7)), (mid, (7, 1)), (192, (1, 7))),
        (AROUND, *path((192, 1))),
    )


def reduction_b() -> Row:
    """Half the size again."""
    return (
        "concatenate",
        (*path((192, 1)), *unit(320, 3, 2, 0)),
        (*path((192, 1), (192, (1, 7)), (192, (7, 1))), *unit(192, 3, 2, 0)),
        (("pool", 3, 2),),
    )


def inception_c() -> Row:
    """Wide: rows and columns of 3x3 filters beside each other."""
    split: Row = ("concatenate", path((384, (1, 3))), path((384, (3, 1))))
    return (
        "concatenate",
        path((320, 1)), (*path((384, 1)), split), (*path((448, 1), (384, 3)), split), (AROUND, *path((192, 1))),
    )  # fmt: skip


def inception_stem(small: bool) -> Table:
    """An eighth of the size before the first block; of small images a quarter."""
    if small:
        first = (*unit(32, 3), *unit(32, 3), *unit(64, 3), ("pool", 3, 2, {"padding": 1}))
        return (*first, *unit(80, 1), *unit(192, 3), ("pool", 3, 2, {"padding": 1}))
    first = (*unit(32, 3, 2, 0), *unit(32, 3, 1, 0), *unit(64, 3), ("pool", 3, 2))
    return (*first, *unit(80, 1), *unit(192, 3, 1, 0), ("pool", 3, 2))


def inception_v3(classes: int, cifar: bool) -> Table:
    """Inception v3 without its auxiliary classifier."""
    return (
        *inception_stem(cifar),
        inception_a(32), inception_a(64), inception_a(64), reduction_a(),
        inception_b(128), inception_b(160), inception_b(160), inception_b(192), reduction_b(),
        inception_c(), inception_c(),
        ("global_average",), ("dropout", 0.5), ("dense", classes),
    )  # fmt: skip


def inception(classes: int) -> Table:
    """One block of each kind of Inception v3: 1x1, 1x7 and 7x1, 3x3 with stride 2."""
    return (
        *inception_stem(False), inception_a(32), reduction_a(), inception_b(128), reduction_b(),
        ("global_average",), ("dropout", 0.2), ("dense", classes),
    )  # fmt: skip


def densenet(classes: int, cifar: bool, counts: tuple[int, ...] = (6, 12, 24, 16), growth: int = 32) -> Table:
    """Each layer sees the channels of all before it; each convolution follows a normalisation of its input."""

    def before(o: int, kernel: int) -> Table:
        return ("norm",), ("relu",), ("conv", o, kernel, {"bias": False})

    rows = [*unit(64, 3)] if cifar else [*unit(64, 7, 2), ("pool", 3, 2, {"padding": 1})]
    channels = 64
    for i, count in enumerate(counts):
        for _ in range(count):
            rows.append(("concatenate", (), (*before(4 * growth, 1), *before(growth, 3))))
            channels += growth
        if i < len(counts) - 1:
            channels //= 2
            rows += [*before(channels, 1), ("average", 2)]
    return (*rows, ("norm",), ("relu",), ("global_average",), ("dense", classes))


def mobilenet_v1(classes: int, cifar: bool) -> Table:
    """Depthwise 3x3 and pointwise convolutions in turns; on CIFAR the first one keeps the size."""
    rows = [*unit(32, 3, 1 if cifar else 2)]
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for o, stride in blocks:
        rows += [("depthwise", 3, {"stride": stride, "bias": False}), ("norm",), ("relu",), *unit(o, 1)]
    return (*rows, ("global_average",), ("dense", classes))


MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2() -> Table:
    """Inverted residuals: narrow outside, wide and depthwise inside. The body without a head."""

    def six(rows: Table) -> Table:
        return (*rows[:2], ("relu6",))

    rows = [*six(unit(32, 3, 2))]
    channels = 32
    for expansion, o, count, first in MOBILENET_V2:
        for i in range(count):
            stride = 1 if i else first
            depthwise: Table = (("depthwise", 3, {"stride": stride, "bias": False}), ("norm",), ("relu6",))
            wide = six(unit(channels * expansion, 1)) if expansion > 1 else ()
            body = (*wide, *depthwise, *unit(o, 1)[:2])
            rows += [("residual", body, ())] if stride == 1 and channels == o else [*body]
            channels = o
    return (*rows, *six(unit(1280, 1)), ("global_average",))


def narrow(table: Table, divisor: int, keep: int) -> Table:
    """The same network with fewer channels and features; rows that give `keep` stay as they are."""

    def changed(row: Row) -> Row:
        kind, *rest = row
        if kind in ("residual", "concatenate"):
            return (kind, *(narrow(part, divisor, keep) for part in rest))
        if kind in ("conv", "deconv", "dense") and rest[0] != keep:
            return (kind, max(2, rest[0] // divisor), *rest[1:])
        return row

    return tuple(changed(row) for row in table)


CIFAR = (3, 32, 32)

MODELS: dict[str, Callable[[], Model]] = {
    "keras-cnn": lambda: Model("Keras CNN", (1, 28, 28), KERAS_CNN, "mnist_cnn"),
    "autoencoder": lambda: Model("Autoencoder", (1, 28, 28), AUTOENCODER, "autoencoder"),
    "alexnet": lambda: Model("AlexNet", (3, 224, 224), alexnet(1000, False), "alexnet"),
    "alexnet-cifar": lambda: Model("AlexNet", CIFAR, alexnet(10, True)),
    "vgg11": lambda: Model("VGG-11", (3, 224, 224), vgg(11, 1000, False), "vgg11"),
    "googlenet": lambda: Model("GoogLeNet", (3, 224, 224), googlenet(1000, False), "googlenet"),
    "googlenet-cifar": lambda: Model("GoogLeNet", CIFAR, googlenet(10, True)),
    "inception": lambda: Model("Inception", (3, 256, 256), inception(2)),
    "inception-v3": lambda: Model("Inception v3", (3, 299, 299), inception_v3(1000, False), "inception_v3"),
    "inception-v3-cifar": lambda: Model("Inception v3", CIFAR, inception_v3(10, True)),
    "densenet121": lambda: Model("DenseNet-121", (3, 224, 224), densenet(1000, False), "densenet121"),
    "densenet121-cifar": lambda: Model("DenseNet-121", CIFAR, densenet(10, True)),
    "mobilenet": lambda: Model("MobileNet", (3, 224, 224), mobilenet_v1(1000, False), "mobilenet_v1"),
    "mobilenet-cifar": lambda: Model("MobileNet", CIFAR, mobilenet_v1(10, True)),
    "mobilenet-v2": lambda: Model(
        "MobileNet v2", (3, 224, 224), (*mobilenet_v2(), ("dense", 1000)), "mobilenet_v2"
    ),
    **{
        f"vgg{d}-cifar": partial(lambda d: Model(f"VGG-{d}", CIFAR, vgg(d, 10, True), f"vgg{d}_cifar"), d)
        for d in VGG
    },
    **{
        f"resnet{d}-cifar": partial(lambda d: Model(f"ResNet-{d}", CIFAR, resnet(d, 10, True), f"resnet{d}_cifar"), d)
        for d in RESNET
    },
    **{
        f"resnet{d}": partial(lambda d: Model(f"ResNet-{d}", (3, 224, 224), resnet(d, 1000, False), f"resnet{d}"), d)
        for d in RESNET
    },
}  # fmt: skip


def get(name: str) -> Model:
    """A model by its name; ValueError lists the known ones."""
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known are {', '.join(MODELS)}")
    return MODELS[name]()

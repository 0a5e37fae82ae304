"""Published networks as ONNX models with random weights, written as exporters write them: batch norms and all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

__all__ = ["NETWORKS", "network"]


def network(name: str, height: int | None = None, width: int | None = None, seed: int = 0) -> Any:
    """A network of `NETWORKS`.

    Parameters
    ----------
    name : str
        One of the keys.
    height, width : int, optional
        Of the image; what is usual for the network if they are left out.
    seed : int
        Of the weights.

    Returns
    -------
    onnx.ModelProto
        Input ``x`` of shape (1, 3, height, width), output ``y``.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; there are {', '.join(NETWORKS)}")
    describe, usual = NETWORKS[name]
    size = [1, 3, height or usual, width or height or usual]
    written = _Written(seed)
    last = describe(written, "x")
    written.nodes.append(helper.make_node("Identity", [last], ["y"]))
    graph = helper.make_graph(
        written.nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_empty_tensor_value_info("y")],
        written.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class _Written:
    """Nodes and weights so far; channels of values are remembered."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.channels = {"x": 3}

    def constant(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{len(self.nodes)}", **attributes))
        self.channels[name] = self.channels.get(inputs[0], 0)
        return name

    def conv(
        self,
        x: str,
        o: int,
        k: int = 3,
        s: int = 1,
        g: int = 1,
        act: str = "Relu",
        norm: bool = True,
        gain: float = 2.0,
    ) -> str:
        c = self.channels[x] // g
        w = self._random.normal(0, np.sqrt(gain / (c * k * k)), (o, c, k, k)).astype(np.float32)
        weights = [self.constant(w)] if norm else [self.constant(w), self.constant(self._small(o))]
        y = self.op("Conv", x, *weights, kernel_shape=[k, k], strides=[s, s], pads=[k // 2] * 4, group=g)
        self.channels[y] = o
        if norm:
            moments = (1 + self._small(o), self._small(o), self._small(o), 1 + np.abs(self._small(o)))
            y = self.op("BatchNormalization", y, *map(self.constant, moments))
        return self.act(y, act)

    def act(self, x: str, kind: str) -> str:
        if kind == "Silu":
            return self.op("Mul", x, self.op("Sigmoid", x))
        if kind == "Relu6":
            return self.op("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))
        if kind == "LeakyRelu":
            return self.op("LeakyRelu", x, alpha=0.2)
        return self.op(kind, x) if kind else x

    def concat(self, *parts: str) -> str:
        y = self.op("Concat", *parts, axis=1)
        self.channels[y] = sum(self.channels[part] for part in parts)
        return y

    def max_pool(self, x: str, k: int = 2, s: int = 2, pad: int = 0) -> str:
        return self.op("MaxPool", x, kernel_shape=[k, k], strides=[s, s], pads=[pad] * 4)

    def double(self, x: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        return self.op(
            "Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )

    def classes(self, x: str, n: int = 1000) -> str:
        flat = self.op("Flatten", self.op("GlobalAveragePool", x))
        return self.dense(flat, self.channels[x], n)

    def dense(self, x: str, c: int, o: int) -> str:
        w = self._random.normal(0, np.sqrt(1 / c), (o, c)).astype(np.float32)
        return self.op("Gemm", x, self.constant(w), self.constant(self._small(o)), transB=1)

    def _small(self, n: int) -> Any:
        return self._random.normal(0, 0.1, n).astype(np.float32)


def _vgg19(net: _Written, x: str) -> str:
    for channels, repeats in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(repeats):
            x = net.conv(x, channels, norm=False)
        x = net.max_pool(x)
    return net.classes(x)


def _resnet50(net: _Written, x: str) -> str:
    x = net.max_pool(net.conv(x, 64, 7, 2), 3, 2, 1)
    for channels, repeats, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(repeats):
            s = stride if i == 0 else 1
            y = net.conv(net.conv(net.conv(x, channels, 1), channels, 3, s), 4 * channels, 1, act="", gain=0.5)
            x = net.op("Relu", net.op("Add", y, net.conv(x, 4 * channels, 1, s, act="", gain=1.0) if i == 0 else x))
            net.channels[x] = 4 * channels
    return net.classes(x)


def _mobilenet_v2(net: _Written, x: str) -> str:
    x = net.conv(x, 32, 3, 2, act="Relu6")
    for expand, o, repeats, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for i in range(repeats):
            c, s = net.channels[x], stride if i == 0 else 1
            y = net.conv(x, expand * c, 1, act="Relu6") if expand > 1 else x
            y = net.conv(y, expand * c, 3, s, g=expand * c, act="Relu6")
            y = net.conv(y, o, 1, act="", gain=1.0)
            x = net.op("Add", x, y) if s == 1 and c == o else y
    return net.classes(net.conv(x, 1280, 1, act="Relu6"))


def _squeezenet(net: _Written, x: str) -> str:
    x = net.max_pool(net.conv(x, 64, 3, 2, norm=False), 3, 2)
    for squeeze, expand, pooled in (
        (16, 64, 0), (16, 64, 1), (32, 128, 0), (32, 128, 1), (48, 192, 0), (48, 192, 0), (64, 256, 0), (64, 256, 0),
    ):  # fmt: skip
        narrow = net.conv(x, squeeze, 1, norm=False)
        x = net.concat(net.conv(narrow, expand, 1, norm=False), net.conv(narrow, expand, 3, norm=False))
        x = net.max_pool(x, 3, 2) if pooled else x
    return net.op("Flatten", net.op("GlobalAveragePool", net.conv(x, 1000, 1, norm=False)))


def _unet(net: _Written, x: str) -> str:
    kept = []
    for channels in (32, 64, 128, 256):
        x = net.conv(net.conv(x, channels), channels)
        kept.append(x)
        x = net.max_pool(x)
    x = net.conv(net.conv(x, 512), 512)
    for channels in (256, 128, 64, 32):
        x = net.concat(net.conv(net.double(x), channels), kept.pop())
        x = net.conv(net.conv(x, channels), channels)
    return net.conv(x, 1, 1, act="Sigmoid", norm=False)


def _esrgan(net: _Written, x: str) -> str:
    def small(y: str, x: str) -> str:
        return net.op("Add", net.op("Mul", y, net.constant(np.float32(0.2))), x)

    first = x = net.conv(x, 64, act="", norm=False)
    for _ in range(6):
        outer = x
        for _ in range(3):
            inner, seen = x, [x]
            for i in range(5):
                joined = net.concat(*seen) if i else x
                y = net.conv(joined, 32 if i < 4 else 64, act="LeakyRelu" if i < 4 else "", norm=False)
                seen.append(y)
            x = small(y, inner)
            net.channels[x] = 64
        x = small(x, outer)
        net.channels[x] = 64
    x = net.op("Add", first, net.conv(x, 64, act="", norm=False))
    for _ in range(2):
        x = net.conv(net.double(x), 64, act="LeakyRelu", norm=False)
    return net.conv(net.conv(x, 64, act="LeakyRelu", norm=False), 3, act="", norm=False)


def _yolo(net: _Written, x: str) -> str:
    """The backbone and neck of YOLOv8n, and one head."""

    def split(x: str, c: int, repeats: int, add: bool) -> str:
        x = net.conv(x, 2 * c, 1, act="Silu")
        y = net.conv(x, c, 1, act="Silu")  # a split that needs no Slice: each half by its own filters
        seen = [x, y]
        for _ in range(repeats):
            z = net.conv(net.conv(y, c, act="Silu"), c, act="Silu")
            y = net.op("Add", y, z) if add else z
            net.channels[y] = c
            seen.append(y)
        return net.conv(net.concat(*seen), 2 * c, 1, act="Silu")

    x = net.conv(net.conv(x, 16, 3, 2, act="Silu"), 32, 3, 2, act="Silu")
    x = split(x, 16, 1, True)
    p3 = split(net.conv(x, 64, 3, 2, act="Silu"), 32, 2, True)
    p4 = split(net.conv(p3, 128, 3, 2, act="Silu"), 64, 2, True)
    p5 = split(net.conv(p4, 256, 3, 2, act="Silu"), 128, 1, True)
    x = net.conv(p5, 128, 1, act="Silu")
    pooled = [x]
    for _ in range(3):
        pooled.append(net.op("MaxPool", pooled[-1], kernel_shape=[5, 5], pads=[2] * 4))
        net.channels[pooled[-1]] = 128
    p5 = net.conv(net.concat(*pooled), 256, 1, act="Silu")
    p4 = split(net.concat(net.double(p5), p4), 64, 1, False)
    p3 = split(net.concat(net.double(p4), p3), 32, 1, False)
    return net.conv(net.conv(net.conv(p3, 64, act="Silu"), 64, act="Silu"), 64, 1, act="", norm=False)


NETWORKS: dict[str, tuple[Callable[[_Written, str], str], int]] = {
    "vgg19": (_vgg19, 224),
    "resnet50": (_resnet50, 224),
    "mobilenet_v2": (_mobilenet_v2, 224),
    "squeezenet": (_squeezenet, 224),
    "unet": (_unet, 256),
    "esrgan": (_esrgan, 96),
    "yolov8n": (_yolo, 640),
}
"""Who describes a network, and the usual height and width of its image."""

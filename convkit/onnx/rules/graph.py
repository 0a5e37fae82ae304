"""What rules ask of a graph, and how they change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from convkit.onnx.call import DOMAIN

__all__ = [
    "attribute", "channels", "constant", "new_constant", "number", "numbers_and_value", "only_user", "per_channel",
    "pointwise", "replace",
]  # fmt: skip

# Operators whose result has the channels of their first operand.
_SAME_CHANNELS = {
    "Relu", "Sigmoid", "Silu", "HardSwish", "HardSigmoid", "LeakyRelu", "Clip", "Tanh", "Gelu", "Mish", "Identity",
    "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "Dropout",
}  # fmt: skip


def constant(value: Any) -> Any:
    """The array of a value that no feed can change, else None."""
    if value is None or value.is_graph_input() or value.const_value is None:
        return None
    return value.const_value.numpy()


def attribute(node: Any, name: str, usual: Any) -> Any:
    """A node's attribute, or what stands for it if it is left out."""
    return node.attributes[name].value if name in node.attributes else usual


def number(value: Any) -> float | None:
    """The number of a constant with one element."""
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype.kind == "f" else None


def only_user(value: Any) -> Any:
    """The one node that reads a value, if nobody else sees it and it stands in the same graph, not in a branch."""
    uses, maker = value.uses(), value.producer()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    return node if maker is None or node.graph is maker.graph else None


def numbers_and_value(node: Any, op: str) -> tuple[Any, float] | None:
    """The other operand and the number of an operation with a number; in either order where it does not matter."""
    if node is None or node.op_type != op or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    for value, other in ((first, second), (second, first))[: 2 if op in ("Add", "Mul") else 1]:
        found = number(other)
        if found is not None and value is not None and (constant(other).ndim <= 1 or _flat(other)):
            return value, found
    return None


def _flat(value: Any) -> bool:
    """Whether a constant of one element cannot raise the rank of an image."""
    return bool(constant(value).ndim <= 4)


def per_channel(array: Any, channels: int, rank: int) -> Any:
    """A constant operand as (channels,), if it is the same at every pixel."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for i, size in enumerate(shape) if i != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).copy()


def channels(value: Any) -> int | None:
    """How many channels an image has, if the graph tells; None if it does not."""
    while value is not None:
        if value.shape is not None and len(value.shape) > 1:
            return value.shape[1] if isinstance(value.shape[1], int) else None
        maker = value.producer()
        if maker is None or maker.domain not in ("", "ai.onnx", DOMAIN) or value is not maker.outputs[0]:
            return None
        if maker.op_type == "Conv":
            w = constant(maker.inputs[1])
            return None if w is None else int(w.shape[0])
        if maker.op_type not in _SAME_CHANNELS:
            return None
        value = maker.inputs[0]
    return None


def new_constant(model: Any, array: Any, near: str) -> Any:
    """A new initializer."""
    graph, name, i = model.graph, f"{near}/folded", 0
    while name in graph.initializers:
        i += 1
        name = f"{near}/folded_{i}"
    value = ir.Value(name=name, const_value=ir.Tensor(np.ascontiguousarray(array), name=name))
    graph.register_initializer(value)
    return value


def pointwise(conv: Any) -> bool:
    """Whether a convolution looks at each pixel by itself, in one group, with constant filters of images."""
    w = constant(conv.inputs[1])
    if w is None or w.ndim != 4 or w.shape[2:] != (1, 1) or w.dtype not in (np.float32, np.float64):
        return False
    steps, pads = {*attribute(conv, "strides", [1])}, {*attribute(conv, "pads", [0])}
    return attribute(conv, "group", 1) == 1 and steps == {1} and pads == {0}


def replace(
    model: Any, old: Sequence[Any], op: str, inputs: Sequence[Any], attributes: Mapping[str, Any], domain: str = ""
) -> Any:
    """Put one node where the last of `old` stands, in place of all of them; its output takes over that node's."""
    last = old[-1]
    values = [
        value if isinstance(value, ir.Attr) else ir.convenience.convert_attribute(key, value)
        for key, value in attributes.items()
    ]
    node = ir.Node(domain, op, list(inputs), values, name=last.name)
    new, gone = node.outputs[0], last.outputs[0]
    new.name, new.shape, new.type = gone.name, gone.shape, gone.type
    ir.convenience.replace_nodes_and_values(model.graph, last, list(reversed(old)), [node], [gone], [new])
    return node

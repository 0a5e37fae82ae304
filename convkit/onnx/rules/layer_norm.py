"""Layer normalization, where exporters of older operator sets wrote it as a chain of means, differences and roots."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit.onnx.call import DOMAIN
from convkit.onnx.rules.graph import constant, number, numbers_and_value, replace

__all__ = ["apply"]


def apply(model: Any) -> int:
    """Find ``(x - mean) / sqrt(mean of squares + epsilon) * weight + bias`` over the last dimension."""
    count = 0
    for node in list(model.graph):
        if node.graph is None or node.domain not in ("", "ai.onnx"):
            continue
        found = _found(node)
        if found is None:
            continue
        x, weight, bias, epsilon, chain = found
        inside = set(map(id, chain))
        if any(
            out.is_graph_output() or any(id(use.node) not in inside for use in out.uses())
            for inner in chain[:-1]
            for out in inner.outputs
        ):
            continue
        attributes = {"axis": -1, "epsilon": epsilon}
        replace(model, chain, "LayerNormalization", [x, weight, bias], attributes, DOMAIN)
        count += 1
    return count


def _found(node: Any) -> tuple[Any, Any, Any, float, list[Any]] | None:
    """The chain that ends in a node, in the order of the graph."""
    sum_ = _with_row(node, "Add")
    product = sum_ and _with_row(sum_[0].producer(), "Mul")
    quotient = product and _of(product[0].producer(), "Div")
    if not sum_ or not product or not quotient:
        return None
    difference, root = _of(quotient.inputs[0].producer(), "Sub"), _of(quotient.inputs[1].producer(), "Sqrt")
    shifted = root and numbers_and_value(root.inputs[0].producer(), "Add")
    shape = difference.inputs[0].shape if difference else None
    rows = ([-1],) if shape is None else ([-1], [len(shape) - 1])
    variance = shifted and _mean(shifted[0].producer(), rows)
    square = variance and _square(variance.inputs[0].producer())
    mean = difference and _mean(difference.inputs[1].producer(), rows)
    if not difference or not root or not shifted or not variance or not square or not mean:
        return None
    x = difference.inputs[0]
    row, other = constant(product[1]), constant(sum_[1])
    if mean.inputs[0] is not x or square.inputs[0] is not difference.outputs[0] or row.shape != other.shape:
        return None
    makers = [mean, difference, square, variance, root.inputs[0].producer(), root, quotient, product[2], node]
    return x, product[1], sum_[1], shifted[1], makers


def _of(node: Any, op: str) -> Any:
    return node if node is not None and node.op_type == op and node.domain in ("", "ai.onnx") else None


def _with_row(node: Any, op: str) -> tuple[Any, Any, Any] | None:
    """What is added to or multiplied by a constant row, the row, and the node."""
    if _of(node, op) is None:
        return None
    for value, other in (tuple(node.inputs), tuple(reversed(node.inputs))):
        array = constant(other)
        if array is not None and array.ndim == 1 and array.size > 1 and array.dtype in (np.float32, np.float64):
            return value, other, node
    return None


def _mean(node: Any, rows: tuple[list[int], ...]) -> Any:
    """A mean over the last dimension, which stays as one of size 1."""
    if _of(node, "ReduceMean") is None or ("keepdims" in node.attributes and not node.attributes["keepdims"].value):
        return None
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].value)
    else:
        given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        axes = [] if given is None else given.tolist()
    return node if axes in rows else None


def _square(node: Any) -> Any:
    if _of(node, "Pow") is not None and number(node.inputs[1]) == 2:
        return node
    return node if _of(node, "Mul") is not None and node.inputs[0] is node.inputs[1] else None

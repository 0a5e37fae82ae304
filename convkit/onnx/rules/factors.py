"""Factors of one go: some exporters write ``x * beta`` with beta 1 into every Swish."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from convkit.onnx.rules.graph import constant, numbers_and_value

__all__ = ["apply"]

_IMAGES = ("Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "AveragePool", "Gemm")


def apply(model: Any) -> int:
    """Let who reads ``x * 1`` or ``x / 1`` read x, if it has the same shape."""
    count = 0
    for node in list(model.graph):
        if node.op_type not in ("Mul", "Div") or node.domain not in ("", "ai.onnx"):
            continue
        found = numbers_and_value(node, node.op_type)
        if found is None or found[1] != 1 or node.outputs[0].is_graph_output():
            continue
        value = found[0]
        factor = next(other for other in node.inputs if other is not value)
        if constant(factor).ndim > least_rank(value):
            continue
        ir.convenience.replace_all_uses_with(node.outputs[0], value)
        model.graph.remove(node, safe=True)
        count += 1
    return count


def least_rank(value: Any) -> int:
    """How many dimensions a value has at least."""
    if value.shape is not None:
        return len(value.shape)
    array, maker = constant(value), value.producer()
    if array is not None:
        return int(array.ndim)
    if maker is None or maker.domain not in ("", "ai.onnx"):
        return 0
    if maker.op_type in _IMAGES:
        return 2
    if maker.op_type in ("Add", "Sub", "Mul", "Div"):  # the larger of both; constants suffice
        return max((int(array.ndim) for v in maker.inputs if (array := constant(v)) is not None), default=0)
    return 0

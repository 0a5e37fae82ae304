"""A gate of channels and the addition behind it are one pass over an image: ``a * sigmoid(...) + c``."""

from __future__ import annotations

from typing import Any

from convkit.onnx.call import DOMAIN
from convkit.onnx.rules.graph import constant, only_user, replace

__all__ = ["apply"]


def apply(model: Any) -> int:
    """Put one node in place of Mul, one of whose operands is a gate, and the Add that alone reads it."""
    count = 0
    for product in list(model.graph):
        if product.graph is None or product.op_type != "Mul" or product.domain not in ("", "ai.onnx"):
            continue
        makers = [value.producer() for value in product.inputs]
        if not any(maker is not None and maker.op_type in ("Sigmoid", "HardSigmoid") for maker in makers):
            continue
        sum_ = only_user(product.outputs[0])
        if sum_ is None or sum_.op_type != "Add" or sum_.domain not in ("", "ai.onnx"):
            continue
        other = next((value for value in sum_.inputs if value is not product.outputs[0]), None)
        if other is None or constant(other) is not None:
            continue
        replace(model, [product, sum_], "MulAdd", [*product.inputs, other], {}, DOMAIN)
        count += 1
    return count

"""BatchNormalization with constant moments goes into the filters and the bias of the convolution before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit.onnx.rules.graph import constant, new_constant, only_user, replace

__all__ = ["apply"]


def apply(model: Any) -> int:
    """Fold BatchNormalization into Conv, and into ConvTranspose of one group."""
    count = 0
    for norm in list(model.graph):
        if norm.op_type != "BatchNormalization" or norm.domain not in ("", "ai.onnx"):
            continue
        conv = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or only_user(conv.outputs[0]) is not norm:
            continue
        attributes = {name: attribute.value for name, attribute in norm.attributes.items()}
        training = attributes.get("training_mode", 0) or not attributes.get("spatial", 1)
        if training or sum(bool(v.name and v.uses()) for v in norm.outputs[1:]):
            continue
        w = constant(conv.inputs[1])
        b = constant(conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] is not None else np.zeros(1)
        moments = [constant(value) for value in norm.inputs[1:5]]
        if w is None or b is None or any(m is None for m in moments) or w.dtype not in (np.float32, np.float64):
            continue
        axis = 0 if conv.op_type == "Conv" else 1
        if axis == 1 and "group" in conv.attributes and conv.attributes["group"].value != 1:
            continue
        gamma, beta, mean, var = (m.astype(np.float64) for m in moments)
        if gamma.shape != (w.shape[axis],):
            continue
        factor = gamma / np.sqrt(var + attributes.get("epsilon", 1e-5))
        column = [-1 if i == axis else 1 for i in range(w.ndim)]
        near = norm.outputs[0].name
        filters = new_constant(model, (w * factor.reshape(column)).astype(w.dtype), near)
        bias = new_constant(model, (beta + (b - mean) * factor).astype(w.dtype), near)
        replace(model, [conv, norm], conv.op_type, [conv.inputs[0], filters, bias], conv.attributes)
        count += 1
    return count

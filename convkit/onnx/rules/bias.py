"""A constant that is added right after a convolution is its bias: PaddlePaddle writes all of ConvTranspose so."""

from __future__ import annotations

from typing import Any

from convkit.onnx.rules.graph import constant, new_constant, only_user, per_channel, replace

__all__ = ["apply"]


def apply(model: Any) -> int:
    """Fold Add of a constant for each channel into Conv and ConvTranspose."""
    count = 0
    for add in list(model.graph):
        if add.op_type != "Add" or add.domain not in ("", "ai.onnx") or len(add.inputs) != 2:
            continue
        for value, other in (tuple(add.inputs), tuple(reversed(add.inputs))):
            conv, terms = value.producer(), constant(other)
            if conv is None or terms is None or conv.op_type not in ("Conv", "ConvTranspose"):
                continue
            w = constant(conv.inputs[1])
            with_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
            bias = constant(conv.inputs[2]) if with_bias else None
            if w is None or only_user(conv.outputs[0]) is not add or (with_bias and bias is None):
                continue
            groups = conv.attributes["group"].value if "group" in conv.attributes else 1
            channels = w.shape[0] if conv.op_type == "Conv" else w.shape[1] * groups
            terms = per_channel(terms, channels, w.ndim) if terms.dtype == w.dtype else None
            if terms is None:
                continue
            folded = new_constant(model, terms if bias is None else bias + terms, add.outputs[0].name)
            replace(model, [conv, add], conv.op_type, [*conv.inputs[:2], folded], conv.attributes)
            count += 1
            break
    return count

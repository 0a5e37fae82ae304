"""An image that is joined for pointwise convolutions alone is not joined: they read its parts where those are."""

from __future__ import annotations

from typing import Any

from convkit.onnx.call import DOMAIN
from convkit.onnx.rules.graph import attribute, pointwise, replace

__all__ = ["apply"]

_MOST_PARTS = 32  # that `convkit.Conv2d.joined` takes


def apply(model: Any) -> int:
    """Give the operands of Concat to the convolutions that read its result; how many read parts now."""
    count = 0
    for concat in list(model.graph):
        if concat.op_type != "Concat" or concat.domain not in ("", "ai.onnx") or concat.outputs[0].is_graph_output():
            continue
        if attribute(concat, "axis", 1) not in (1, -3) or not 1 < len(concat.inputs) <= _MOST_PARTS:
            continue
        uses = concat.outputs[0].uses()
        if not uses or not all(use.idx == 0 and use.node.graph is concat.graph and _reads(use.node) for use in uses):
            continue
        for use in uses:
            conv = use.node
            rest = [*conv.inputs[1:], *[None] * (6 - len(conv.inputs))]
            replace(model, [conv], "JoinedConv", [*rest, *concat.inputs], conv.attributes, DOMAIN)
            count += 1
    return count


def _reads(conv: Any) -> bool:
    """Whether a node is a pointwise convolution with constant filters."""
    if conv.op_type == "FusedConv":
        return conv.domain == DOMAIN and pointwise(conv)
    return conv.op_type == "Conv" and conv.domain in ("", "ai.onnx") and pointwise(conv)

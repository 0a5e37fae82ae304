"""Nodes that do nothing in inference: Identity and Dropout."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

__all__ = ["apply"]


def apply(model: Any) -> int:
    """Let the readers of the node's output read its input."""
    count = 0
    for node in list(model.graph):
        if node.op_type not in ("Identity", "Dropout") or node.domain not in ("", "ai.onnx"):
            continue
        outputs = [value for value in node.outputs if value.name and (value.uses() or value.is_graph_output())]
        source = node.inputs[0]
        if outputs != [node.outputs[0]] or node.outputs[0].is_graph_output() or source is None:
            continue
        if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
            continue  # training_mode is an input
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        model.graph.remove(node, safe=True)
        count += 1
    return count

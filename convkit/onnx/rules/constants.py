"""Constant nodes become initializers, and so does all that is computed from constants alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from convkit.onnx.call import implementation
from convkit.onnx.rules.graph import constant

__all__ = ["apply"]

# Larger results are left to be computed: the file holds a few numbers, and memory should not hold the rest forever.
_MOST_BYTES = 1 << 26
_GROWING = {"ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "Pad", "Resize", "Upsample", "EyeLike"}
_NEVER = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
}
_MOST_GROWN = 1 << 20


def apply(model: Any) -> int:
    """Fold constants of the main graph."""
    graph, count = model.graph, 0
    for node in list(graph):
        if node.op_type in _NEVER or node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
            continue
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            continue
        operands = [None if value is None else constant(value) for value in node.inputs]
        if any(a is None and v is not None for a, v in zip(operands, node.inputs, strict=True)):
            continue
        result = _value(node, operands, model.opset_imports)
        if result is None:
            continue
        old = node.outputs[0]
        new = ir.Value(name=old.name, const_value=ir.Tensor(result, name=old.name))
        if old.is_graph_output():
            continue  # a graph's output needs a node that makes it
        ir.convenience.replace_all_uses_with(old, new)
        graph.remove(node, safe=True)
        graph.register_initializer(new)
        count += 1
    return count


def _value(node: Any, operands: list[Any], versions: Any) -> Any:
    if node.op_type in _GROWING and any(
        a is not None and a.dtype.kind in "iu" and np.prod(np.abs(a.astype(np.float64))) > _MOST_GROWN for a in operands
    ):
        return None
    try:
        compute, _ = implementation(node, versions)
        with np.errstate(all="ignore"):
            (result,) = compute(*operands)
    except Exception:  # whatever is wrong with the node is told by the run that needs it
        return None
    fits = isinstance(result, np.ndarray | np.generic) and result.nbytes <= _MOST_BYTES and result.dtype.kind in "fiub"
    return np.asarray(result) if fits else None

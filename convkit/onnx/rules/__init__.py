"""What is done to a graph once, before it runs. Each rule is a file: `apply(model)` changes the graph and counts."""

from __future__ import annotations

from typing import Any

from onnx_ir.passes import common as passes

from convkit.onnx.rules import (
    activations,
    batch_norm,
    bias,
    constants,
    epilogue,
    factors,
    gates,
    joining,
    layer_norm,
    padding,
    removal,
    upsampling,
)

__all__ = ["RULES", "simplify"]

RULES = {
    "constants": constants.apply,
    "removal": removal.apply,
    "padding": padding.apply,
    "bias": bias.apply,
    "batch_norm": batch_norm.apply,
    "factors": factors.apply,
    "activations": activations.apply,
    "layer_norm": layer_norm.apply,
    "gates": gates.apply,
    "upsampling": upsampling.apply,
    "epilogue": epilogue.apply,
    "joining": joining.apply,
}
"""In the order in which they run: each leaves the form that the next one looks for."""


def simplify(model: Any) -> dict[str, int]:
    """Run all rules on an `onnx_ir.Model`; how often each changed it."""
    counts = {name: rule(model) for name, rule in RULES.items()}
    passes.RemoveUnusedNodesPass()(model)
    return counts

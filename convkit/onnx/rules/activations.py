"""Activations that exporters write as chains become one node: Silu, HardSwish, Gelu, and Clip from Min and Max."""

from __future__ import annotations

import math
from typing import Any

from convkit.onnx.call import DOMAIN
from convkit.onnx.rules.graph import number, numbers_and_value, replace

__all__ = ["apply", "bounds"]


def apply(model: Any) -> int:
    """Look at every node as the last one of a chain."""
    count = 0
    for node in list(model.graph):
        if node.graph is None or node.domain not in ("", "ai.onnx"):
            continue
        for find in (_silu, _hard_swish, _gelu):
            found = find(node)
            if found is not None and _closed(found[1], found[2]):
                op, value, chain = found
                replace(model, chain, op, [value], {}, DOMAIN)
                count += 1
                break
    return count


Found = tuple[str, Any, list[Any]] | None


def _closed(value: Any, chain: list[Any]) -> bool:
    """Whether nobody outside of the chain sees what it computes on its way."""
    return all(
        not output.is_graph_output() and all(use.node in chain for use in output.uses())
        for node in chain[:-1]
        for output in node.outputs
    )


def _silu(node: Any) -> Found:
    if node.op_type != "Mul":
        return None
    for x, gate in (tuple(node.inputs), tuple(reversed(node.inputs))):
        maker = gate.producer()
        if maker is not None and maker.op_type == "Sigmoid" and maker.inputs[0] is x:
            return "Silu", x, [maker, node]
    return None


def _hard_swish(node: Any) -> Found:
    """Find x * clip(x + 3, 0, 6) / 6 with the division anywhere after Clip, and x * HardSigmoid(x)."""
    chain = [node]
    product, divided = node, _sixth(node)
    if divided is not None:
        product = divided.producer()
        if product is None:
            return None
        chain.insert(0, product)
    if product.op_type != "Mul":
        return None
    for x, gate in (tuple(product.inputs), tuple(reversed(product.inputs))):
        maker = gate.producer()
        if maker is None:
            continue
        if divided is None and maker.op_type == "HardSigmoid" and maker.inputs[0] is x:
            alpha = maker.attributes["alpha"].value if "alpha" in maker.attributes else 0.2
            beta = maker.attributes["beta"].value if "beta" in maker.attributes else 0.5
            if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
                return "HardSwish", x, [maker, *chain]
        inner = [maker]
        if divided is None:
            quotient = _sixth(maker)
            if quotient is None or quotient.producer() is None:
                continue
            maker = quotient.producer()
            inner.insert(0, maker)
        if maker.op_type != "Clip" or bounds(maker) != (0, 6) or maker.inputs[0].producer() is None:
            continue
        sum_ = maker.inputs[0].producer()
        if numbers_and_value(sum_, "Add") == (x, 3.0):
            return "HardSwish", x, [sum_, *inner, *chain]
    return None


def _sixth(node: Any) -> Any:
    """What a node divides by 6."""
    for op, wanted in (("Div", 6.0), ("Mul", 1 / 6)):
        found = numbers_and_value(node, op)
        if found is not None and abs(found[1] - wanted) < 1e-6:
            return found[0]
    return None


def bounds(clip: Any) -> tuple[float | None, float | None]:
    """Constant bounds of a Clip, as attributes or inputs."""
    if len(clip.inputs) > 1:
        found = [number(value) if value is not None else None for value in clip.inputs[1:]]
    else:
        found = [clip.attributes[name].value if name in clip.attributes else None for name in ("min", "max")]
    return found[0], found[1] if len(found) > 1 else None


def _gelu(node: Any) -> Found:
    """Find x * 0.5 * (1 + erf(x / sqrt(2))) with the half at any place."""
    if node.op_type != "Mul":
        return None
    half = numbers_and_value(node, "Mul")
    if half is not None and half[1] == 0.5:
        product = half[0].producer()
        if product is not None and product.op_type == "Mul":
            for x, gate in (tuple(product.inputs), tuple(reversed(product.inputs))):
                inner = _one_and_erf(gate, x)
                if inner is not None:
                    return "Gelu", x, [*inner, product, node]
        return None
    for halved, gate in (tuple(node.inputs), tuple(reversed(node.inputs))):
        first = numbers_and_value(halved.producer(), "Mul") if halved.producer() is not None else None
        if first is not None and first[1] == 0.5:
            inner = _one_and_erf(gate, first[0])
            if inner is not None:
                return "Gelu", first[0], [halved.producer(), *inner, node]
    return None


def _one_and_erf(gate: Any, x: Any) -> list[Any] | None:
    sum_ = numbers_and_value(gate.producer(), "Add")
    if sum_ is None or sum_[1] != 1 or sum_[0].producer() is None or sum_[0].producer().op_type != "Erf":
        return None
    erf = sum_[0].producer()
    argument = erf.inputs[0].producer()
    for op, wanted in (("Div", math.sqrt(2)), ("Mul", math.sqrt(0.5))):
        found = numbers_and_value(argument, op)
        if found is not None and found[0] is x and abs(found[1] - wanted) < 1e-4:
            return [argument, erf, gate.producer()]
    return None

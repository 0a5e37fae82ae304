"""What a node computes: the table of our own implementations, and the reference for all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from convkit.onnx.errors import ModelError

__all__ = ["DOMAIN", "OWN", "Call", "Compute", "implementation", "implements", "reference_of"]

Compute = Callable[..., Any]
"""Takes a node's inputs (None for those left out) and returns an array, or a tuple of them for several outputs.
NotImplemented says: not these operands (a type or rank for which there is no code of ours); then the reference runs."""

OWN: dict[str, Callable[[Call], Compute | None]] = {}
"""Implementations of our own, by operator: each looks at a node once, and may leave it to the reference by None."""

DOMAIN = "convkit"
"""The domain of nodes that only rules make."""


@dataclass(frozen=True)
class Call:
    """One node without its operands.

    Attributes
    ----------
    op : str
    version : int
        Of the operator set that the model imports.
    attributes : mapping
        As Python values; tensors as arrays.
    outputs : int
        How many are asked for.
    constants : mapping
        Inputs whose value is known when the node is looked at, by position.
    threads : int or None
        Team size for calls into convkit.
    memory : str
        As layers of convkit take it.
    """

    op: str
    version: int
    attributes: Mapping[str, Any]
    outputs: int = 1
    constants: Mapping[int, Any] = field(default_factory=dict)
    threads: int | None = None
    memory: str = "fast"

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what stands for it if it is left out."""
        return self.attributes.get(name, default)


def implements(*names: str) -> Callable[[Callable[[Call], Compute | None]], Callable[[Call], Compute | None]]:
    """Enter an implementation into the table."""

    def enter(build: Callable[[Call], Compute | None]) -> Callable[[Call], Compute | None]:
        for name in names:
            OWN[name] = build
        return build

    return enter


def implementation(
    node: Any,
    versions: Mapping[str, int],
    constants: Mapping[int, Any] | None = None,
    threads: int | None = None,
    memory: str = "fast",
) -> tuple[Compute, list[str]]:
    """What computes a node, as a tuple of its outputs, and the names that its branches read from around it.

    Raises
    ------
    ModelError
        If neither we nor the reference knows the operator.
    """
    build = OWN.get(node.op_type) if node.domain in ("", "ai.onnx", DOMAIN) else None
    own = build(_call_of(node, versions, constants or {}, threads, memory)) if build else None
    if own is None:
        return _reference(node, versions)
    others: list[Compute] = []

    def compute(*operands: Any) -> Any:
        result = own(*operands)
        if result is NotImplemented:
            if not others:
                others.append(_reference(node, versions)[0])
            result = others[0](*operands)
        return result if isinstance(result, tuple) else (result,)

    return compute, []


def _call_of(
    node: Any, versions: Mapping[str, int], constants: Mapping[int, Any], threads: int | None, memory: str
) -> Call:
    attributes = {name: value.value for name, value in node.attributes.items() if value.type != ir.AttributeType.GRAPH}
    plain = {k: v.numpy() if hasattr(v, "numpy") else v for k, v in attributes.items()}
    outputs = max((i + 1 for i, value in enumerate(node.outputs) if value.name), default=0)
    return Call(node.op_type, versions.get(node.domain, 1), plain, outputs, constants, threads, memory)


def _reference(node: Any, versions: Mapping[str, int]) -> tuple[Compute, list[str]]:
    """A node by ONNX's reference implementation, and the names that its branches read from around them."""
    return reference_of(ir.to_proto(node), versions)


def reference_of(proto: Any, versions: Mapping[str, int]) -> tuple[Compute, list[str]]:
    """`reference` of a node as the file has it."""
    names = [name for name in proto.input if name]
    captured = sorted(_captured(proto) - set(names))
    graph = onnx.GraphProto(name="node", node=[proto])
    graph.input.extend(onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys([*names, *captured]))
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    )
    try:
        evaluator = ReferenceEvaluator(model)
    except Exception as error:  # the reference has many ways to say that it does not know an operator
        raise ModelError(
            f"node {proto.name or proto.op_type}: no implementation of {proto.domain or 'ai.onnx'} {proto.op_type}, "
            f"operator set {versions.get(proto.domain)} ({error})"
        ) from error
    given = [*proto.input, *captured]
    kept = [bool(name) for name in proto.output]

    def compute(*operands: Any) -> Any:
        feed = {name: value for name, value in zip(given, operands, strict=True) if name}
        results = iter(evaluator.run(None, feed))
        return tuple(next(results) if there else None for there in kept)

    return compute, captured


def _captured(node: Any) -> set[str]:
    """Names that the branches of a node read from outside."""
    found: set[str] = set()
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            inside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
            inside |= {name for inner in graph.node for name in inner.output}
            reads = {name for inner in graph.node for name in inner.input} | {value.name for value in graph.output}
            reads |= {name for inner in graph.node for name in _captured(inner)}
            found |= reads - inside
    return found

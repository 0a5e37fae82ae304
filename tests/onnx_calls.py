"""Small ONNX models for the tests, and what ONNX Runtime computes of them without changing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

import convkit.onnx as door


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node; names are separated by blanks, ``-`` is one that is left out."""
    names = [[("" if name == "-" else name) for name in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, name=f"{op}_{outputs.split()[0]}", **attributes)


def model(
    nodes: Sequence[Any],
    constants: Mapping[str, Any] | None = None,
    *,
    shape: Sequence[int | str] = (2, 8, 9, 11),
    outputs: str = "y",
    opset: int = 17,
    inputs: Mapping[str, tuple[Any, Sequence[int | str]]] | None = None,
) -> Any:
    """A model of the input x, float32 of `shape`, or of the `inputs` given as type and shape."""
    given = inputs or {"x": (np.float32, shape)}
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), size)
            for name, (dtype, size) in given.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs.split()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def runtime(proto: Any, feed: Mapping[str, Any]) -> list[Any]:
    """ONNX Runtime's results, its own rewriting off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feed)))


def uniform(*shape: int, seed: int = 0) -> Any:
    """Float32 numbers within -1 and 1."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def plain() -> Any:
    """Options that leave the graph as it is."""
    return door.SessionOptions(graph_optimization_level=door.GraphOptimizationLevel.ORT_DISABLE_ALL)


def ops(session: Any) -> list[str]:
    """Operators that a session runs, in order."""
    return [step.op for step in session._plans.general.steps]


def close(found: Sequence[Any], expected: Sequence[Any], tolerance: float = 1e-5) -> None:
    """The same shapes and types, and values within a part of the largest."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(float(np.abs(b).max(initial=0)), 1e-3))

"""Inputs and outputs as the model declares them, and whether what is fed fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from convkit.onnx.options import NodeArg

__all__ = ["checked", "declared"]

_SPELLED = {
    "float32": "float", "float64": "double", "float16": "float16", "bfloat16": "bfloat16", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip


def declared(value: Any) -> tuple[NodeArg, Any]:
    """A value of the graph as a `NodeArg`, and its element type in NumPy, None if it is no tensor or any."""
    shape: list[int | str | None] = []
    if value.shape is not None:
        shape = [dim if isinstance(dim, int) else dim.value for dim in value.shape.dims]
        shape = [None if isinstance(dim, int) and dim < 0 else dim for dim in shape]  # -1 is what some exporters write
    if isinstance(value.type, ir.TensorType):
        if value.dtype == ir.DataType.STRING:
            return NodeArg(value.name, "tensor(string)", shape), None
        dtype = np.dtype(value.dtype.numpy())
        return NodeArg(value.name, f"tensor({_SPELLED.get(dtype.name, dtype.name)})", shape), dtype
    return NodeArg(value.name, str(value.type), shape), None


def checked(
    feed: Mapping[str, Any], inputs: Sequence[tuple[NodeArg, Any]], optional: frozenset[str], ranked: frozenset[str]
) -> dict[str, Any]:
    """Feeds as arrays, each of the declared type and shape.

    Parameters
    ----------
    feed : mapping
        What `run` was given.
    inputs : sequence
        As `declared` tells of them.
    optional : frozenset of str
        Inputs that have an initializer.
    ranked : frozenset of str
        Inputs that declare a shape.

    Returns
    -------
    dict
        Arrays by name.

    Raises
    ------
    TypeError, ValueError
        With the input's name, what was given and what is allowed.
    """
    if not isinstance(feed, Mapping):
        raise TypeError(f"input_feed must be a dict of name to array, not {type(feed).__name__}")
    names = [arg.name for arg, _ in inputs]
    for name in feed:
        if name not in names:
            raise ValueError(f"no input {name!r}: the model's inputs are {names}")
    missing = [name for name in names if name not in feed and name not in optional]
    if missing:
        raise ValueError(f"inputs {missing} are missing from the feed, which has {list(feed)}")
    found = {}
    for arg, dtype in inputs:
        if arg.name not in feed:
            continue
        given = feed[arg.name]
        if dtype is not None:
            given = np.asarray(given)
            if given.dtype != dtype:
                raise TypeError(f"input {arg.name!r} must be {dtype} ({arg.type}), not {given.dtype}")
            if arg.name in ranked:
                _check_shape(arg, given.shape)
        found[arg.name] = given
    return found


def _check_shape(arg: NodeArg, shape: tuple[int, ...]) -> None:
    fits = len(shape) == len(arg.shape) and all(
        not isinstance(wanted, int) or wanted == size for wanted, size in zip(arg.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"input {arg.name!r} must have shape {arg.shape}, not {list(shape)}")

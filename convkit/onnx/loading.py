"""From a file, bytes or a ModelProto to a graph that holds together. Files are hostile until they have been checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes import common as passes

from convkit.onnx.errors import ModelError

__all__ = ["load"]

# Bits of an element, for those types whose raw bytes are counted.
_BITS = {
    "FLOAT": 32, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "INT64": 64, "BOOL": 8, "FLOAT16": 16,
    "DOUBLE": 64, "UINT32": 32, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128, "BFLOAT16": 16,
}  # fmt: skip
_LARGEST = 1 << 46  # bytes: what an address of this processor's programs can reach


def load(model: Any) -> Any:
    """Read a model and check what everything later relies on.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        External tensors are read only for a path, and only from files within the model's folder.

    Returns
    -------
    onnx_ir.Model
        Local functions inlined, nodes in topological order, every name defined once.

    Raises
    ------
    ModelError
        If the model is damaged, incomplete or reaches outside of its folder.
    OSError
        If the file itself cannot be read.
    """
    folder = None
    if isinstance(model, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
    elif isinstance(model, bytes | bytearray | memoryview):
        proto = _parsed(bytes(model), "the bytes")
    elif isinstance(model, str | os.PathLike):
        path = Path(model)
        folder = path.resolve().parent
        proto = _parsed(path.read_bytes(), str(path))
    else:
        raise TypeError(f"the model must be a path, bytes or an onnx.ModelProto, not {type(model).__name__}")
    for tensor in _tensors(proto):
        _complete(tensor, folder)
    _check_names(proto.graph, set())
    try:
        graph = ir.from_proto(proto)
        if graph.functions:
            passes.InlinePass()(graph)
        graph.graph.sort()
        _hold_once(graph.graph)
    except Exception as error:  # whatever a reader of half-checked files may raise
        raise ModelError(f"the graph does not hold together: {error}") from error
    return graph


def _hold_once(graph: Any) -> None:
    """Initializers as arrays: each look at a tensor of the file's would copy its bytes, and keep the whole file."""
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype.name in _BITS:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _parsed(data: bytes, origin: str) -> Any:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{origin}: not an ONNX model, or a damaged one ({error})") from error
    if not proto.opset_import or not proto.HasField("graph"):
        raise ModelError(f"{origin}: not an ONNX model, or a damaged one (no graph or no operator set)")
    return proto


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graphs(inner)


def _tensors(proto: Any) -> Iterator[Any]:
    """Every tensor of a model: initializers and attributes, in branches and functions too."""
    graphs = list(_graphs(proto.graph))
    nodes = [node for graph in graphs for node in graph.node]
    for function in proto.functions:
        nodes += function.node
        inner = [graph for node in function.node for graph in _of_node(node)]
        graphs += inner
        nodes += [node for graph in inner for node in graph.node]
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _complete(tensor: Any, folder: Path | None) -> None:
    """Check a tensor's size against its bytes, once external ones are read."""
    name = tensor.name or "without a name"
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"tensor {name}: shape {list(tensor.dims)} has a negative size")
    elements = math.prod(tensor.dims)
    kind = onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in _KINDS else str(tensor.data_type)
    bits = _BITS.get(kind)
    if elements * (bits or 8) > 8 * _LARGEST:
        raise ModelError(f"tensor {name}: shape {list(tensor.dims)} is larger than any memory")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _read_external(tensor, name, folder)
    if bits is None:
        return
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) * 8 != elements * bits:
            raise ModelError(
                f"tensor {name}: shape {list(tensor.dims)} of {kind} needs {elements * bits // 8} bytes, "
                f"the file has {len(tensor.raw_data)}"
            )
    else:
        values = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
        needed = elements * (2 if kind.startswith("COMPLEX") else 1)
        if len(values) != needed:
            raise ModelError(
                f"tensor {name}: shape {list(tensor.dims)} needs {needed} numbers, the file has {len(values)}"
            )


_KINDS = frozenset(onnx.TensorProto.DataType.values())


def _read_external(tensor: Any, name: str, folder: Path | None) -> None:
    if folder is None:
        raise ModelError(f"tensor {name}: external data is read only beside a model that is given as a path")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = (folder / location).resolve()
    if not location or not path.is_relative_to(folder) or not path.is_file():
        raise ModelError(f"tensor {name}: external data {location!r} is not a file within the model's folder")
    try:
        offset, size = int(entries.get("offset", 0)), path.stat().st_size
        length = int(entries.get("length", size - offset))
    except ValueError:
        raise ModelError(f"tensor {name}: offset and length of its external data must be whole numbers") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(f"tensor {name}: {length} bytes at {offset} are not within {location!r} ({size} bytes)")
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(length)
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT
    tensor.raw_data = data


def _check_names(graph: Any, outside: set[str]) -> None:
    """Every name that is read must be an input, an initializer or a node's output, of this graph or one around it."""
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        for name in node.output:
            if name and name in known:
                raise ModelError(f"{name!r} is defined twice")
            known.add(name)
    known |= outside | {""}
    for node in graph.node:
        for name in node.input:
            if name not in known:
                raise ModelError(
                    f"node {node.name or node.op_type}: input {name!r} is neither an input of the graph, an "
                    "initializer nor the output of a node"
                )
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _check_names(inner, known)
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"output {value.name!r} is not computed by any node")

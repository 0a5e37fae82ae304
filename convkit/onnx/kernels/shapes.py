"""What only moves elements: views where that is possible, and memory orders that stay as they are."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from convkit import images
from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.memory import channels_last, is_float

__all__: list[str] = []


@implements("Identity", "Dropout")
def identity(call: Call) -> Compute | None:
    """The input as it is; Dropout does nothing in inference."""
    return None if call.outputs > 1 else lambda x, *_: x if isinstance(x, np.ndarray) and not _ else NotImplemented


_TYPES = {
    "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64,
}  # fmt: skip


@implements("Constant")
def constant(call: Call) -> Compute | None:
    """Constant, of numbers; texts and sparse tensors are the reference's."""
    for name, value in call.attributes.items():
        if name == "value":
            return lambda: value
        if name in _TYPES:
            array = np.array(value, _TYPES[name])
            return lambda: array
    return None


@implements("Concat")
def concat(call: Call) -> Compute:
    """Concat, channels-last images to channels-last ones."""
    axis = call.get("axis", 1)

    def compute(*parts: Any) -> Any:
        pictures = axis == 1 and all(part.ndim == 4 for part in parts) and is_float(*parts)
        if pictures and any(map(channels_last, parts)) and len({(p.shape[0], *p.shape[2:]) for p in parts}) == 1:
            joined = images.concatenate([part.transpose(0, 2, 3, 1) for part in parts], call.threads)
            return joined.transpose(0, 3, 1, 2)
        return np.concatenate(parts, axis=axis)

    return compute


@implements("Slice")
def slice_node(call: Call) -> Compute | None:
    """Slice, as a view."""
    if call.version < 10:
        return None

    def compute(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
        index = [slice(None)] * x.ndim
        for i, axis in enumerate(range(len(starts)) if axes is None else axes.tolist()):
            step = 1 if steps is None else int(steps[i])
            index[axis] = _slice(int(starts[i]), int(ends[i]), step, x.shape[axis])
        return x[tuple(index)]

    return compute


def _slice(start: int, end: int, step: int, size: int) -> slice:
    """From where to where, a negative place counting from the end, within the array."""
    start, end = (place + size if place < 0 else place for place in (start, end))
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    return slice(min(max(start, 0), size - 1), None if end < 0 else end, step) if size else slice(0, 0)


@implements("Squeeze", "Unsqueeze")
def squeeze(call: Call) -> Compute:
    """Squeeze and Unsqueeze, as views; axes as an attribute or an input."""

    def compute(x: Any, axes: Any = None) -> Any:
        given = call.get("axes") if axes is None else axes.reshape(-1).tolist()
        if call.op == "Squeeze":
            return np.squeeze(x, None if given is None else tuple(given))
        return np.expand_dims(x, tuple(given))

    return compute


@implements("Transpose")
def transpose(call: Call) -> Compute:
    """Transpose, as a view."""
    axes = call.get("perm")
    return lambda x: x.transpose(axes)


@implements("Shape")
def shape(call: Call) -> Compute:
    """Shape, from one dimension to another."""
    start, end = call.get("start", 0), call.get("end")
    return lambda x: np.array(x.shape[start:end], np.int64)


@implements("Reshape")
def reshape(call: Call) -> Compute | None:
    """Reshape: 0 copies a size, -1 is what is left."""
    if call.version < 5 or call.get("allowzero", 0):
        return None

    def compute(x: Any, target: Any) -> Any:
        return x.reshape([x.shape[i] if size == 0 else int(size) for i, size in enumerate(target)])

    return compute


@implements("Flatten")
def flatten(call: Call) -> Compute:
    """Flatten to a matrix."""
    axis = call.get("axis", 1)

    def compute(x: Any) -> Any:
        before = axis if axis >= 0 else x.ndim + axis
        return x.reshape(math.prod(x.shape[:before]), math.prod(x.shape[before:]))

    return compute


@implements("Pad")
def pad(call: Call) -> Compute | None:
    """Pad by constants, edges, reflections or repetition; negative pads take away."""
    mode: Any = call.get("mode", "constant")
    if call.version < 2:
        return None

    def compute(x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
        given = [int(p) for p in (call.attributes["pads"] if pads is None else pads)]
        fill = call.get("value", 0.0) if value is None else np.asarray(value).reshape(-1)[0]
        n = len(given) // 2
        widths = [(0, 0)] * x.ndim
        for i, axis in enumerate(range(n) if axes is None else axes):
            widths[int(axis)] = given[i], given[n + i]
        kept = tuple(slice(max(-a, 0), x.shape[i] - max(-b, 0)) for i, (a, b) in enumerate(widths))
        widths = [(max(a, 0), max(b, 0)) for a, b in widths]
        x = x[kept]
        _within_memory([size + sum(width) for size, width in zip(x.shape, widths, strict=True)], x.itemsize)
        if mode == "constant":
            return np.pad(x, widths, constant_values=fill)
        return np.pad(x, widths, mode=mode)

    return compute


@implements("Expand", "Tile", "ConstantOfShape")
def enlarge(call: Call) -> Compute:
    """Operators whose result a few numbers make as large as they like: never larger than the machine's memory."""

    def compute(x: Any, numbers: Any = None) -> Any:
        if call.op == "ConstantOfShape":
            value = call.get("value", np.zeros(1, np.float32))
            target = [int(size) for size in x]
            _within_memory(target, value.itemsize)
            return np.full(target, value.reshape(-1)[0], value.dtype)
        if call.op == "Expand":
            target = list(np.broadcast_shapes(x.shape, tuple(int(size) for size in numbers)))
            _within_memory(target, x.itemsize)
            return np.array(np.broadcast_to(x, target))
        if call.version < 6:
            return NotImplemented
        _within_memory([size * int(n) for size, n in zip(x.shape, numbers, strict=True)], x.itemsize)
        return np.tile(x, [int(n) for n in numbers])

    return compute


def _within_memory(shape: list[int], itemsize: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if math.prod(shape) * itemsize > memory:
        raise MemoryError(f"a result of shape {shape} is larger than this machine's memory")

"""Activations and arithmetic: compiled, or in NumPy in strips, so that a formula's own values stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from convkit import images
from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.memory import FLOATS, flat, is_float, like, pixels_in_place

__all__ = ["activation", "erf"]

_STRIP = 1 << 14
Formula = Callable[[Any, Any], None]


def _strips(formula: Formula) -> Compute:
    """Run ``formula(x, out)`` on pieces of a whole array, in the order of its memory."""

    def compute(x: Any) -> Any:
        if x.dtype not in FLOATS:
            return NotImplemented
        out = np.empty_like(x)
        if x.size <= _STRIP or not (x.flags.forc or out.strides == x.strides):
            formula(x, out)
            return out
        flat_x, flat_out = x.ravel("K"), out.ravel("K")
        if not np.may_share_memory(flat_out, out):
            formula(x, out)
            return out
        for begin in range(0, x.size, _STRIP):
            formula(flat_x[begin : begin + _STRIP], flat_out[begin : begin + _STRIP])
        return out

    return compute


def _compiled(name: Any, threads: int | None = None, scale: float = 1, shift: float = 0) -> Compute:
    """An activation of convkit, of ``scale * x + shift``; where x has gaps, of a copy."""

    def compute(x: Any) -> Any:
        if x.dtype not in FLOATS:
            return NotImplemented
        found = flat(x) or flat(np.ascontiguousarray(x))
        assert found is not None
        factor = None if scale == 1 else np.full((1, 1), scale, x.dtype)
        summand = None if shift == 0 else np.full((1, 1), shift, x.dtype)
        return found[1](images.scale_shift(found[0], factor, summand, None, name, num_threads=threads))

    return compute


def mish(x: Any, out: Any) -> None:
    """X * tanh(log(1 + exp(x))) = x * (n² + 2n) / (n² + 2n + 2) with n = exp(x)."""
    n = np.exp(np.minimum(x, 20))
    n *= n + 2
    np.divide(n, n + 2, out=out)
    out *= x


def erf(x: Any, out: Any) -> None:
    """The error function: in float32 a rational function on [-4, 4] within 4e-7, in float64 the C library's."""
    if x.dtype == np.float64:
        out[...] = np.fromiter(map(math.erf, x.flat), np.float64, x.size).reshape(x.shape)
        return
    t = np.clip(x, -4, 4)
    square = t * t
    np.multiply(t, _horner(_ERF_ABOVE, square), out=out)
    out /= _horner(_ERF_BELOW, square)


# erf(t) = t P(t²) / Q(t²), the minimax approximation that Eigen and XLA use.
_ERF_ABOVE = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04,
    -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_ERF_BELOW = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02,
)  # fmt: skip


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += x.dtype.type(coefficient)
    return value


def activation(name: str, numbers: tuple[float, ...] = ()) -> Compute:
    """An activation under convkit's name, for a result that is there already."""
    return _compiled((name, *numbers) if numbers else name)


_NAMED = {"Relu": "relu", "Sigmoid": "sigmoid", "Silu": "silu", "HardSwish": "hardswish", "Tanh": "tanh"}


@implements(*_NAMED)
def named_node(call: Call) -> Compute:
    """Activations of convkit without parameters; Silu is what rules make of Sigmoid and Mul."""
    return _compiled(_NAMED[call.op], call.threads)


@implements("LeakyRelu")
def leaky_relu_node(call: Call) -> Compute:
    """LeakyRelu."""
    return _compiled(("leaky_relu", call.get("alpha", 0.01)), call.threads)


@implements("HardSigmoid")
def hard_sigmoid_node(call: Call) -> Compute:
    """HardSigmoid."""
    return _compiled(("clip", 0, 1), call.threads, call.get("alpha", 0.2), call.get("beta", 0.5))


@implements("Gelu")
def gelu_node(call: Call) -> Compute:
    """Gelu, exact or by the hyperbolic tangent."""
    return _compiled("gelu_tanh" if call.get("approximate", "none") == "tanh" else "gelu", call.threads)


@implements("Mish", "Erf")
def strips_node(call: Call) -> Compute:
    """Activations that convkit does not have."""
    return _strips({"Mish": mish, "Erf": erf}[call.op])


@implements("Clip")
def clip_node(call: Call) -> Compute:
    """Clip, its bounds as attributes (operator set 6) or inputs."""
    compiled: dict[tuple[float | None, float | None], Compute] = {}

    def compute(x: Any, lo: Any = None, hi: Any = None) -> Any:
        lo = call.get("min") if lo is None else lo
        hi = call.get("max") if hi is None else hi
        if x.dtype in FLOATS:
            bounds = None if lo is None else float(lo), None if hi is None else float(hi)
            if bounds[0] is None or bounds[1] is None or bounds[0] <= bounds[1]:
                if bounds not in compiled and len(compiled) < 64:
                    compiled[bounds] = _compiled(("clip", *bounds), call.threads)
                if bounds in compiled:
                    return compiled[bounds](x)
        if lo is not None:
            x = np.maximum(x, np.asarray(lo, x.dtype))
        return x if hi is None else np.minimum(x, np.asarray(hi, x.dtype))

    return compute


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Neg": np.negative, "Abs": np.abs,
    "Floor": np.floor, "Ceil": np.ceil,
}  # fmt: skip
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power,
}  # fmt: skip


@implements(*_FUNCTIONS)
def function_node(call: Call) -> Compute:
    """NumPy's function of floats."""
    function = _FUNCTIONS[call.op]
    return lambda x: function(x) if is_float(x) else NotImplemented


@implements(*_OPERATIONS)
def operation_node(call: Call) -> Compute:
    """Arithmetic with broadcasting."""
    operation = _OPERATIONS[call.op]
    if call.version < 7:
        return lambda a, b: NotImplemented

    def compute(a: Any, b: Any) -> Any:
        if not is_float(a, b):
            return NotImplemented
        if a.size < _STRIP and b.size < _STRIP:
            return operation(a, b)
        if call.op in ("Add", "Mul"):
            large, small = (a, b) if a.size >= b.size else (b, a)
            y = (_sum if call.op == "Add" else _gated)(large, small, call.threads)
            if y is not None:
                return y
        shape = np.broadcast_shapes(a.shape, b.shape)
        for operand in (a, b):
            if operand.shape == shape:
                return operation(a, b, out=like(operand))
        return operation(a, b)

    return compute


def _sum(x: Any, other: Any, threads: int | None) -> Any:
    """X + other, if they lie in memory alike, else None."""
    if x.shape != other.shape or x.strides != other.strides:
        return None
    found, beside = flat(x), flat(other)
    if found is None or beside is None:
        return None
    return found[1](images.scale_shift(found[0], None, None, beside[0], num_threads=threads))


def _gated(x: Any, gate: Any, threads: int | None, residual: Any = None) -> Any:
    """Images times a number for each of their channels, perhaps plus others that lie alike; else None."""
    last = pixels_in_place(x)
    if last is None or gate.ndim != 4 or gate.shape != (*x.shape[:2], 1, 1):
        return None
    n, c = x.shape[:2]
    if residual is not None:
        residual = pixels_in_place(residual)
        if residual is None or residual.shape != last.shape:
            return None
        residual = residual.reshape(n, -1, c)
    factors = np.ascontiguousarray(gate.reshape(n, c))
    y = images.scale_shift(last.reshape(n, -1, c), factors, None, residual, num_threads=threads)
    return y.reshape(last.shape).transpose(0, 3, 1, 2)


@implements("MulAdd")
def multiply_add(call: Call) -> Compute:
    """A * b + c, which a rule makes of Mul and Add: a gate of channels and a residual in one pass."""

    def compute(a: Any, b: Any, c: Any) -> Any:
        if is_float(a, b, c) and max(a.size, b.size) >= _STRIP and c.shape == np.broadcast_shapes(a.shape, b.shape):
            large, small = (a, b) if a.size >= b.size else (b, a)
            y = _gated(large, small, call.threads, c)
            if y is not None:
                return y
        return a * b + c

    return compute

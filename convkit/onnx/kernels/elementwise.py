"""Activations and arithmetic: in NumPy, strip by strip, so that what a formula needs in between stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.memory import FLOATS, is_float

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


def sigmoid(x: Any, out: Any) -> None:
    """1 / (1 + exp(-x)), as a hyperbolic tangent: no overflow on either side."""
    np.multiply(x, x.dtype.type(0.5), out=out)
    np.tanh(out, out=out)
    out *= x.dtype.type(0.5)
    out += x.dtype.type(0.5)


def silu(x: Any, out: Any) -> None:
    sigmoid(x, out)
    out *= x


def hard_sigmoid(alpha: float, beta: float) -> Formula:
    def formula(x: Any, out: Any) -> None:
        np.multiply(x, x.dtype.type(alpha), out=out)
        out += x.dtype.type(beta)
        np.clip(out, 0, 1, out=out)

    return formula


def hard_swish(x: Any, out: Any) -> None:
    hard_sigmoid(1 / 6, 0.5)(x, out)
    out *= x


def leaky_relu(alpha: float) -> Formula:
    def formula(x: Any, out: Any) -> None:
        np.minimum(x, 0, out=out)
        out *= x.dtype.type(alpha)
        out += np.maximum(x, 0)

    return formula


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


def gelu(x: Any, out: Any) -> None:
    kind = x.dtype.type
    erf(x * kind(math.sqrt(0.5)), out)
    out += kind(1)
    out *= x * kind(0.5)


def gelu_tanh(x: Any, out: Any) -> None:
    kind = x.dtype.type
    np.tanh(kind(math.sqrt(2 / math.pi)) * (x + kind(0.044715) * x * x * x), out=out)
    out += kind(1)
    out *= x * kind(0.5)


def activation(name: str, numbers: tuple[float, ...] = ()) -> Compute:
    """An activation under convkit's name, for a result that is there already."""
    if name == "relu":
        return lambda y: np.maximum(y, 0)
    if name == "clip":
        return lambda y: np.clip(y, *(y.dtype.type(n) for n in numbers))
    if name == "tanh":
        return lambda y: np.tanh(y)
    if name == "leaky_relu":
        return _strips(leaky_relu(*numbers))
    return _strips(
        {"silu": silu, "hardswish": hard_swish, "sigmoid": sigmoid, "gelu": gelu, "gelu_tanh": gelu_tanh}[name]
    )


@implements("Relu")
def relu_node(call: Call) -> Compute:
    """Relu; `np.maximum` carries NaN on."""
    return lambda x: np.maximum(x, x.dtype.type(0))


@implements("LeakyRelu")
def leaky_relu_node(call: Call) -> Compute:
    """LeakyRelu."""
    return activation("leaky_relu", (call.get("alpha", 0.01),))


@implements("Sigmoid", "Silu", "HardSwish", "Mish", "Erf")
def unary_node(call: Call) -> Compute:
    """Activations without parameters; Silu is what rules make of Sigmoid and Mul."""
    return _strips({"Sigmoid": sigmoid, "Silu": silu, "HardSwish": hard_swish, "Mish": mish, "Erf": erf}[call.op])


@implements("HardSigmoid")
def hard_sigmoid_node(call: Call) -> Compute:
    """HardSigmoid."""
    return _strips(hard_sigmoid(call.get("alpha", 0.2), call.get("beta", 0.5)))


@implements("Gelu")
def gelu_node(call: Call) -> Compute:
    """Gelu, exact or by the hyperbolic tangent."""
    return _strips(gelu_tanh if call.get("approximate", "none") == "tanh" else gelu)


@implements("Clip")
def clip_node(call: Call) -> Compute:
    """Clip, its bounds as attributes (operator set 6) or inputs."""

    def compute(x: Any, lo: Any = None, hi: Any = None) -> Any:
        lo = call.get("min") if lo is None else lo
        hi = call.get("max") if hi is None else hi
        if lo is not None:
            x = np.maximum(x, np.asarray(lo, x.dtype))
        return x if hi is None else np.minimum(x, np.asarray(hi, x.dtype))

    return compute


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Tanh": np.tanh, "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Neg": np.negative, "Abs": np.abs,
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
    return lambda a, b: operation(a, b) if is_float(a, b) else NotImplemented

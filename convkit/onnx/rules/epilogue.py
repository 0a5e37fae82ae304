"""What follows a convolution becomes its epilogue.

``scale * activation(conv + bias [+ residual]) + shift [+ residual]``: constants before the activation go into filters
and bias, an addition of another value is the residual, before the activation or at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit.onnx.call import DOMAIN
from convkit.onnx.rules.activations import bounds
from convkit.onnx.rules.graph import constant, new_constant, only_user, per_channel, replace

__all__ = ["apply"]

_NAMED = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hardswish", "Silu": "silu"}


def apply(model: Any) -> int:
    """Grow each convolution of one or two dimensions as far as its only user allows; how many nodes went into one."""
    count = 0
    for conv in list(model.graph):
        if conv.op_type not in ("Conv", "ConvTranspose") or conv.domain not in ("", "ai.onnx"):
            continue
        w = constant(conv.inputs[1])
        b = constant(conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] is not None else None
        with_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
        if w is None or w.ndim not in (3, 4) or w.dtype not in (np.float32, np.float64) or (b is None and with_bias):
            continue
        if conv.op_type == "ConvTranspose" and not own_transposed(conv.attributes, w):
            continue
        grown = _Grown(conv, w, b)
        while grown.takes(only_user(grown.nodes[-1].outputs[0])):
            pass
        if len(grown.nodes) > 1:
            grown.put_into(model)
            count += len(grown.nodes) - 1
    return count


class _Grown:
    """A convolution and what it has taken in so far."""

    def __init__(self, conv: Any, w: Any, b: Any) -> None:
        self.nodes = [conv]
        self.w, self.b = w, b
        self.transposed = conv.op_type == "ConvTranspose"
        groups = conv.attributes["group"].value if "group" in conv.attributes else 1
        self.channels = w.shape[1] * groups if self.transposed else w.shape[0]
        self.residual: Any = None
        self.after = False
        self.activation: tuple[str, tuple[float, ...]] | None = None
        self.scale: Any = None
        self.shift: Any = None

    def takes(self, node: Any) -> bool:
        """Take in one more node, if the formula still holds."""
        if node is None or self.after:  # nothing comes after a residual at the end
            return False
        y = self.nodes[-1].outputs[0]
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            if node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
                return False
            done = self._arithmetic(node, y)
        else:
            done = self._activation(node)
        if done:
            self.nodes.append(node)
        return done

    def _activation(self, node: Any) -> bool:
        if self.activation is not None or self.scale is not None or self.shift is not None:
            return False
        op = node.op_type
        if op in _NAMED:
            self.activation = (_NAMED[op], ())
        elif op == "Gelu":
            tanh = "approximate" in node.attributes and node.attributes["approximate"].value == "tanh"
            self.activation = ("gelu_tanh" if tanh else "gelu", ())
        elif op == "LeakyRelu":
            self.activation = ("leaky_relu", (node.attributes["alpha"].value if "alpha" in node.attributes else 0.01,))
        elif op == "HardSigmoid" and not self.transposed and self.residual is None:
            # Its line goes into filters and bias.
            slope, middle = (
                node.attributes[name].value if name in node.attributes else usual
                for name, usual in (("alpha", 0.2), ("beta", 0.5))
            )
            self._multiply(np.full(self.channels, slope, self.w.dtype))
            self._add(np.full(self.channels, middle, self.w.dtype))
            self.activation = ("clip", (0.0, 1.0))
        elif op == "Clip" and None not in bounds(node):
            lo, hi = bounds(node)
            assert lo is not None
            assert hi is not None
            if not lo <= hi:
                return False
            self.activation = ("clip", (lo, hi))
        else:
            return False
        return True

    def _arithmetic(self, node: Any, y: Any) -> bool:
        left = node.inputs[0] is y
        other = node.inputs[1 if left else 0]
        if other is None or other is y:
            return False
        array = constant(other)
        if array is None:
            if node.op_type != "Add" or self.residual is not None or self.transposed:
                return False
            if other.shape is not None and len(other.shape) != self.w.ndim:
                return False
            self.residual = other
            self.after = self.activation is not None or self.scale is not None or self.shift is not None
            return True
        factors = per_channel(array, self.channels, self.w.ndim) if array.dtype == self.w.dtype else None
        if factors is None or (node.op_type in ("Sub", "Div") and not left):
            return False
        if node.op_type == "Sub":
            factors = -factors
        if node.op_type == "Div":
            with np.errstate(divide="ignore"):
                factors = 1 / factors
        if not np.isfinite(factors).all():
            return False
        (self._add if node.op_type in ("Add", "Sub") else self._multiply)(factors)
        return True

    def _add(self, terms: Any) -> None:
        if self.activation is None and self.scale is None:
            self.b = terms if self.b is None else self.b + terms
        else:
            self.shift = terms if self.shift is None else self.shift + terms

    def _multiply(self, factors: Any) -> None:
        if self.activation is None and self.residual is None and not self.transposed:
            self.w = self.w * factors.reshape(-1, *(1,) * (self.w.ndim - 1))
            self.b = None if self.b is None else self.b * factors
        else:
            self.scale = factors if self.scale is None else self.scale * factors
            self.shift = None if self.shift is None else self.shift * factors

    def put_into(self, model: Any) -> None:
        """One node of our own domain in place of all that were taken in."""
        conv, near = self.nodes[0], self.nodes[-1].outputs[0].name
        values = [
            old
            if array is not None and old is not None and constant(old) is array
            else None
            if array is None
            else new_constant(model, array, near)
            for array, old in (
                (self.w, conv.inputs[1]),
                (self.b, conv.inputs[2] if len(conv.inputs) > 2 else None),
                (self.scale, None),
                (self.shift, None),
            )
        ]
        attributes = dict(conv.attributes)
        if self.activation is not None:
            attributes["activation"], numbers = self.activation
            if numbers:
                attributes["activation_numbers"] = [float(n) for n in numbers]
        if self.after:
            attributes["residual_after"] = 1
        w, b, scale, shift = values
        inputs = [conv.inputs[0], w, b, self.residual, scale, shift]
        replace(model, self.nodes, "FusedConvTranspose" if self.transposed else "FusedConv", inputs, attributes, DOMAIN)


def own_transposed(attributes: Any, w: Any) -> bool:
    """Whether convkit has all of a transposed convolution, so that nobody need be asked when it runs."""
    if w.ndim != 4 or "output_shape" in attributes or ("auto_pad" in attributes):
        return False
    given = {name: value.value for name, value in attributes.items()}
    strides, dilations = given.get("strides") or [1, 1], given.get("dilations") or [1, 1]
    pads, extra = given.get("pads") or [0] * 4, given.get("output_padding") or [0, 0]
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    return all(0 <= pads[i] < reach[i % 2] for i in range(4)) and all(extra[i] < strides[i] for i in range(2))

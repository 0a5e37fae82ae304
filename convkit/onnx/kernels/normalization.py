"""Normalizations and softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.memory import channels_last, is_float

__all__: list[str] = []


@implements("BatchNormalization")
def batch_normalization(call: Call) -> Compute | None:
    """BatchNormalization as inference runs it, in every operator set's form."""
    if call.outputs > 1 or call.get("training_mode", 0) or (call.version < 9 and not call.get("spatial", 1)):
        return None
    epsilon = call.get("epsilon", 1e-5)

    def compute(x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
        if not is_float(x, scale, bias, mean, var):
            return NotImplemented
        column = (-1, *(1,) * (x.ndim - 2))
        factor = scale / np.sqrt(var + var.dtype.type(epsilon))
        y = x * factor.reshape(column)
        y += (bias - mean * factor).reshape(column)
        return y

    return compute


def _normalized(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    """(x - mean) / sqrt(variance + epsilon); moments in two passes, as one pass cancels."""
    y = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(y).mean(axis=axes, keepdims=True)
    y *= 1 / np.sqrt(variance + x.dtype.type(epsilon))
    return y


@implements("InstanceNormalization")
def instance_normalization(call: Call) -> Compute:
    """InstanceNormalization."""

    def compute(x: Any, scale: Any, bias: Any) -> Any:
        if not is_float(x, scale, bias):
            return NotImplemented
        column = (-1, *(1,) * (x.ndim - 2))
        y = _normalized(x, tuple(range(2, x.ndim)), call.get("epsilon", 1e-5))
        y *= scale.reshape(column)
        y += bias.reshape(column)
        return y

    return compute


@implements("GroupNormalization")
def group_normalization(call: Call) -> Compute:
    """GroupNormalization: factors for each group (operator set 18) or for each channel (21)."""
    groups = call.attributes["num_groups"]

    def compute(x: Any, scale: Any, bias: Any) -> Any:
        if not is_float(x, scale, bias):
            return NotImplemented
        images, channels, *spatial = x.shape
        if channels_last(x):
            inner = np.moveaxis(x, 1, -1).reshape(images, *spatial, groups, channels // groups)
            y = _normalized(inner, (*range(1, 1 + len(spatial)), x.ndim), call.get("epsilon", 1e-5))
            y = np.moveaxis(y.reshape(images, *spatial, channels), -1, 1)
        else:
            inner = x.reshape(images, groups, -1)
            y = _normalized(inner, (2,), call.get("epsilon", 1e-5)).reshape(x.shape)
        if scale.size != channels:
            scale, bias = np.repeat(scale, channels // groups), np.repeat(bias, channels // groups)
        column = (-1, *(1,) * len(spatial))
        y *= scale.reshape(column)
        y += bias.reshape(column)
        return y

    return compute


@implements("LayerNormalization")
def layer_normalization(call: Call) -> Compute | None:
    """LayerNormalization; with its moments as outputs it is the reference's."""
    if call.outputs > 1:
        return None

    def compute(x: Any, scale: Any, bias: Any = None) -> Any:
        if not is_float(x, scale, *(() if bias is None else (bias,))):
            return NotImplemented
        axis = call.get("axis", -1) % x.ndim
        y = _normalized(x, tuple(range(axis, x.ndim)), call.get("epsilon", 1e-5)) * scale
        if bias is not None:
            y += bias
        return y

    return compute


@implements("Softmax")
def softmax(call: Call) -> Compute:
    """Softmax along one dimension; before operator set 13 over that and all after it."""

    def compute(x: Any) -> Any:
        if not is_float(x):
            return NotImplemented
        if call.version < 13:
            axis = call.get("axis", 1) % max(x.ndim, 1)
            axes: tuple[int, ...] = tuple(range(axis, x.ndim))
        else:
            axes = (call.get("axis", -1),)
        y = x - x.max(axis=axes, keepdims=True)
        np.exp(y, out=y)
        y /= y.sum(axis=axes, keepdims=True)
        return y

    return compute

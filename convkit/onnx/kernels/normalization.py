"""Normalizations and softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convkit import images
from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.memory import is_float, pixels_in_place
from convkit.onnx.kernels.pools import channel_means

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
        factor = scale / np.sqrt(var + var.dtype.type(epsilon))
        shift = bias - mean * factor
        last = pixels_in_place(x)
        if last is not None:
            flat = last.reshape(1, -1, last.shape[3])
            y = images.scale_shift(flat, factor[None], shift[None], num_threads=call.threads)
            return y.reshape(last.shape).transpose(0, 3, 1, 2)
        column = (-1, *(1,) * (x.ndim - 2))
        y = x * factor.reshape(column)
        y += shift.reshape(column)
        return y

    return compute


def _normalized(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    """(x - mean) / sqrt(variance + epsilon); moments in two passes, as one pass cancels."""
    y = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(y).mean(axis=axes, keepdims=True)
    y *= 1 / np.sqrt(variance + x.dtype.type(epsilon))
    return y


def _by_groups(x: Any, groups: int, scale: Any, bias: Any, epsilon: float, threads: int | None) -> Any:
    """Group normalization in the memory order of x."""
    n, c = x.shape[:2]
    last = pixels_in_place(x)
    if last is not None:
        y = images.group_norm(last.reshape(n, -1, c), groups, scale, bias, epsilon, last=True, num_threads=threads)
        return y.reshape(last.shape).transpose(0, 3, 1, 2)
    planes = np.ascontiguousarray(x).reshape(n, c, -1)
    return images.group_norm(planes, groups, scale, bias, epsilon, last=False, num_threads=threads).reshape(x.shape)


@implements("InstanceNormalization")
def instance_normalization(call: Call) -> Compute:
    """InstanceNormalization."""

    def compute(x: Any, scale: Any, bias: Any) -> Any:
        if not is_float(x, scale, bias) or x.ndim < 3 or x.size == 0:
            return NotImplemented
        return _by_groups(x, x.shape[1], scale, bias, call.get("epsilon", 1e-5), call.threads)

    return compute


@implements("GroupNormalization")
def group_normalization(call: Call) -> Compute:
    """GroupNormalization: factors for each group (operator set 18) or for each channel (21)."""
    groups = call.attributes["num_groups"]

    def compute(x: Any, scale: Any, bias: Any) -> Any:
        if not is_float(x, scale, bias) or x.ndim < 3 or x.size == 0:
            return NotImplemented
        channels = x.shape[1]
        if scale.size != channels:
            scale, bias = np.repeat(scale, channels // groups), np.repeat(bias, channels // groups)
        return _by_groups(x, groups, scale, bias, call.get("epsilon", 1e-5), call.threads)

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
        epsilon = call.get("epsilon", 1e-5)
        if x.size and scale.shape == x.shape[axis:] and (bias is None or bias.shape == scale.shape):
            flat = np.ascontiguousarray(x).reshape(-1, scale.size)
            weight = np.ascontiguousarray(scale).reshape(-1)
            summand = None if bias is None else np.ascontiguousarray(bias).reshape(-1)
            return images.layer_norm(flat, weight, summand, epsilon, call.threads).reshape(x.shape)
        y = _normalized(x, tuple(range(axis, x.ndim)), epsilon) * scale
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
        if x.size and x.flags.c_contiguous and axes[-1] in (-1, x.ndim - 1):
            return images.softmax(x.reshape(math.prod(x.shape[: axes[0]]), -1), call.threads).reshape(x.shape)
        y = x - x.max(axis=axes, keepdims=True)
        np.exp(y, out=y)
        y /= y.sum(axis=axes, keepdims=True)
        return y

    return compute


_REDUCTIONS: dict[str, Any] = {"ReduceMean": np.mean, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min}


@implements(*_REDUCTIONS)
def reduction(call: Call) -> Compute:
    """Reductions of floats; axes as an attribute or an input. Means of whole images and of rows are compiled."""
    reduce = _REDUCTIONS[call.op]
    keep = bool(call.get("keepdims", 1))

    def compute(x: Any, axes: Any = None) -> Any:
        if not is_float(x) or x.size == 0:
            return NotImplemented
        given = call.get("axes") if axes is None else axes.reshape(-1).tolist()
        if not given and call.get("noop_with_empty_axes", 0):
            return x
        chosen = tuple(sorted(axis % x.ndim for axis in given)) if given else tuple(range(x.ndim))
        if call.op == "ReduceMean" and x.ndim > 2 and chosen == tuple(range(2, x.ndim)):
            y = channel_means(x, call.threads)
        elif call.op == "ReduceMean" and chosen == (x.ndim - 1,) and x.flags.c_contiguous:
            y = images.moments(x.reshape(-1, x.shape[-1], 1), False, call.threads).reshape(*x.shape[:-1], 1)
        else:
            return np.asarray(reduce(x, axis=chosen, keepdims=keep))
        return y if keep else y.reshape([size for i, size in enumerate(x.shape) if i not in chosen])

    return compute

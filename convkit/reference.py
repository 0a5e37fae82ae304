"""The oracle: 2-D convolution and its gradients in float64, one kernel tap at a time.

Slow on purpose and obvious on purpose. Every tap (i, j) of the filter meets a strided window of the padded input; what
is left is one matrix product per tap and group. Nothing here is shared with the kernels that it checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convkit.typing import Activation

__all__ = [
    "activate", "conv2d", "conv2d_input", "conv2d_weight", "conv_transpose2d", "finish", "output_size",
    "resolve_padding",
]  # fmt: skip

Array = NDArray[np.float64]
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    stride: int | Pair = 1,
    padding: int | str | Pair | Pads = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    residual_after: bool = False,
) -> Array:
    """Cross-correlate `x` with `w` in float64; arguments as in `convkit.conv2d`.

    Parameters
    ----------
    x : array_like
        Input of shape (N, C, H, W), or (N, H, W, C) for ``layout="NHWC"``.
    w : array_like
        Filters of shape (O, C / groups, KH, KW) in both layouts.
    bias : array_like, optional
        O values.
    stride, padding, dilation, groups : optional
        See `convkit.conv2d`.
    layout : {"NCHW", "NHWC"}
        Order of `x`, `residual` and the result.
    activation : None, str or tuple
        See `activate`.
    residual : array_like, optional
        Added before the activation, or, with `residual_after`, last; shaped like the result.
    scale, shift : array_like, optional
        After the activation: numbers, or O values.
    residual_after : bool
        See `residual`.

    Returns
    -------
    ndarray of float64
        Shaped like the result of `convkit.conv2d`.
    """
    x64, w64 = _to_nchw(x, layout), np.asarray(w, dtype=np.float64)
    n, c, h, width = x64.shape
    o, per_group, kh, kw = w64.shape
    if groups < 1 or o % groups or per_group * groups != c:
        raise ValueError(f"filters {w64.shape} do not fit input {x64.shape} with groups={groups}")
    strides, dilations = _pair(stride), _pair(dilation)
    pads = resolve_padding(padding, (h, width), (kh, kw), strides, dilations)
    oh, ow = output_size((h, width), (kh, kw), strides, pads, dilations)
    y = np.zeros((n, groups, o // groups, oh * ow))
    padded = np.pad(x64, ((0, 0), (0, 0), *pads))
    for i, j, window in _windows(padded, (kh, kw), (oh, ow), strides, dilations):
        taps = w64[:, :, i, j].reshape(1, groups, o // groups, per_group)
        y += taps @ window.reshape(n, groups, per_group, oh * ow)
    y = y.reshape(n, o, oh, ow)
    return finish(_from_nchw(y, layout), bias, residual, activation, scale, shift, residual_after, layout=layout)


def conv2d_input(
    input_size: tuple[int, ...],
    w: ArrayLike,
    dy: ArrayLike,
    stride: int | Pair = 1,
    padding: int | str | Pair | Pads = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
) -> Array:
    """Gradient of `conv2d` with respect to its input, of shape `input_size`.

    Every output pixel sends its gradient back through each tap to the input pixel that the tap read.

    Parameters
    ----------
    input_size : tuple of int
        Shape of the input.
    w, dy : array_like
        Filters, and the gradient with respect to the result.
    stride, padding, dilation, groups, layout : optional
        As they were given to `conv2d`.

    Returns
    -------
    ndarray of float64
        Of shape `input_size`.
    """
    dy64, w64 = _to_nchw(dy, layout), np.asarray(w, dtype=np.float64)
    n, c, h, width = _sizes_nchw(input_size, layout)
    o, per_group, kh, kw = w64.shape
    strides, dilations = _pair(stride), _pair(dilation)
    pads = resolve_padding(padding, (h, width), (kh, kw), strides, dilations)
    oh, ow = output_size((h, width), (kh, kw), strides, pads, dilations)
    _check_gradient(dy64, (n, o, oh, ow))
    (top, bottom), (left, right) = pads
    padded = np.zeros((n, c, top + h + bottom, left + width + right))
    gradient = dy64.reshape(n, groups, o // groups, oh * ow)
    for i, j, window in _windows(padded, (kh, kw), (oh, ow), strides, dilations):
        taps = w64[:, :, i, j].reshape(1, groups, o // groups, per_group)
        window += (taps.transpose(0, 1, 3, 2) @ gradient).reshape(n, c, oh, ow)
    return _from_nchw(padded[:, :, top : top + h, left : left + width], layout)


def conv2d_weight(
    x: ArrayLike,
    weight_size: tuple[int, ...],
    dy: ArrayLike,
    stride: int | Pair = 1,
    padding: int | str | Pair | Pads = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
) -> Array:
    """Gradient of `conv2d` with respect to its filters.

    Parameters
    ----------
    x : array_like
        Input of the convolution.
    weight_size : tuple of int
        Shape of the filters.
    dy : array_like
        Gradient with respect to the result.
    stride, padding, dilation, groups, layout : optional
        As they were given to `conv2d`.

    Returns
    -------
    ndarray of float64
        OIHW, of shape `weight_size`.
    """
    x64, dy64 = _to_nchw(x, layout), _to_nchw(dy, layout)
    n, _, h, width = x64.shape
    o, per_group, kh, kw = weight_size
    strides, dilations = _pair(stride), _pair(dilation)
    pads = resolve_padding(padding, (h, width), (kh, kw), strides, dilations)
    oh, ow = output_size((h, width), (kh, kw), strides, pads, dilations)
    _check_gradient(dy64, (n, o, oh, ow))
    padded = np.pad(x64, ((0, 0), (0, 0), *pads))
    gradient = dy64.reshape(n, groups, o // groups, oh * ow)
    dw = np.zeros((o, per_group, kh, kw))
    for i, j, window in _windows(padded, (kh, kw), (oh, ow), strides, dilations):
        columns = window.reshape(n, groups, per_group, oh * ow)
        dw[:, :, i, j] = (gradient @ columns.transpose(0, 1, 3, 2)).sum(axis=0).reshape(o, per_group)
    return dw


def conv_transpose2d(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | Pads = 0,
    output_padding: int | Pair = 0,
    groups: int = 1,
    dilation: int | Pair = 1,
    *,
    layout: str = "NCHW",
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    residual_after: bool = False,
) -> Array:
    """Transposed convolution: the input gradient of a convolution.

    Parameters
    ----------
    x, w : array_like
        Input, and filters of shape (C, O / groups, KH, KW).
    bias : array_like, optional
        O values.
    stride, padding, output_padding, groups, dilation, layout : optional
        See `convkit.conv_transpose2d`.
    activation, residual, scale, shift, residual_after : optional
        As for `conv2d`.

    Returns
    -------
    ndarray of float64
        Shaped like the result of `convkit.conv_transpose2d`.
    """
    if isinstance(padding, str):
        raise ValueError("a transposed convolution takes numbers for padding")
    x64, w64 = _to_nchw(x, layout), np.asarray(w, dtype=np.float64)
    n, _, h, width = x64.shape
    _, per_group, kh, kw = w64.shape
    (sh, sw), (dh, dw), (extra_h, extra_w) = _pair(stride), _pair(dilation), _pair(output_padding)
    if extra_h >= max(sh, dh) or extra_w >= max(sw, dw):
        raise ValueError(f"output_padding {extra_h, extra_w} must be smaller than stride or dilation")
    (top, bottom), (left, right) = pads = resolve_padding(padding, (h, width), (kh, kw), (sh, sw), (dh, dw))
    oh = (h - 1) * sh - top - bottom + dh * (kh - 1) + 1 + extra_h
    ow = (width - 1) * sw - left - right + dw * (kw - 1) + 1 + extra_w
    # A convolution of the result may have outputs beyond the pixels of x: they count as zeros.
    x64 = np.pad(x64, ((0, 0), (0, 0), (0, extra_h // sh), (0, extra_w // sw)))
    y = conv2d_input((n, per_group * groups, oh, ow), w64, x64, (sh, sw), pads, (dh, dw), groups)
    return finish(_from_nchw(y, layout), bias, residual, activation, scale, shift, residual_after, layout=layout)


def finish(
    y: ArrayLike,
    bias: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    activation: Activation | None = None,
    scale: ArrayLike | None = None,
    shift: ArrayLike | None = None,
    residual_after: bool = False,
    *,
    layout: str = "NCHW",
) -> Array:
    """Apply what `convkit.conv2d` does after the sums: its epilogue.

    Parameters
    ----------
    y : array_like
        The sums.
    bias, residual, activation, scale, shift, residual_after, layout : optional
        As for `conv2d`.

    Returns
    -------
    ndarray of float64
        ``scale * activation(y + bias [+ residual]) + shift [+ residual]``.
    """

    def channels(values: ArrayLike) -> Array:
        return np.asarray(values, dtype=np.float64).reshape((-1, 1, 1) if layout == "NCHW" else (-1,))

    result = np.asarray(y, dtype=np.float64)
    if bias is not None:
        result = result + channels(bias)
    if residual is not None and not residual_after:
        result = result + np.asarray(residual, dtype=np.float64)
    result = activate(result, activation)
    if scale is not None:
        result = result * channels(scale)
    if shift is not None:
        result = result + channels(shift)
    if residual is not None and residual_after:
        result = result + np.asarray(residual, dtype=np.float64)
    return result


def activate(y: ArrayLike, activation: Activation | None = None) -> Array:
    """Apply an activation as `convkit.conv2d` names them; NaN stays NaN.

    Parameters
    ----------
    y : array_like
        Any shape.
    activation : None, str or tuple
        "relu", "relu6", "silu", "hardswish", "sigmoid", "tanh", "gelu", "gelu_tanh", ("clip", lo, hi) or
        ("leaky_relu", slope).

    Returns
    -------
    ndarray of float64
        Shaped like `y`.
    """
    y = np.asarray(y, dtype=np.float64)
    if activation is None:
        return y
    name, *arguments = (activation,) if isinstance(activation, str) else activation
    if name not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}")
    return np.asarray(_ACTIVATIONS[name](y, *arguments))


def _sigmoid(y: Array) -> Any:
    return 0.5 * (1.0 + np.tanh(0.5 * y))  # tanh never overflows, exp(-y) would


def _gelu(y: Array) -> Any:
    return y * 0.5 * _erfc(-y / np.sqrt(2.0)).astype(np.float64)


_erfc = np.frompyfunc(math.erfc, 1, 1)
_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": lambda y: np.maximum(y, 0.0),
    "relu6": lambda y: np.clip(y, 0.0, 6.0),
    "clip": np.clip,
    "sigmoid": _sigmoid,
    "silu": lambda y: y * _sigmoid(y),
    "hardswish": lambda y: y * np.clip(y + 3.0, 0.0, 6.0) / 6.0,
    "tanh": np.tanh,
    "gelu": _gelu,
    "gelu_tanh": lambda y: 0.5 * y * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (y + 0.044715 * y**3))),
    "leaky_relu": lambda y, slope: np.where(y < 0.0, slope * y, y),
}


def resolve_padding(padding: int | str | Pair | Pads, size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    """Turn any spelling of `padding` into numbers.

    Parameters
    ----------
    padding : int, pair, pair of pairs or str
        As `convkit.conv2d` takes it.
    size, kernel, stride, dilation : pair of int
        Height and width of the image and of the filters, and the convolution's steps.

    Returns
    -------
    pair of pairs
        ((top, bottom), (left, right)).
    """
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding == "same" and stride != (1, 1):
            raise ValueError('padding="same" needs stride 1; "same_upper" and "same_lower" take any stride')
        if padding not in ("same", "same_upper", "same_lower"):
            raise ValueError(f"unknown padding {padding!r}")
        return (
            _same(padding, size[0], kernel[0], stride[0], dilation[0]),
            _same(padding, size[1], kernel[1], stride[1], dilation[1]),
        )
    vertical, horizontal = (padding, padding) if isinstance(padding, int | np.integer) else padding
    return _pair(vertical), _pair(horizontal)


def output_size(size: Pair, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair) -> Pair:
    """Height and width of the output.

    Parameters
    ----------
    size, kernel, stride : pair of int
        Height and width of the image and of the filters, and the step from one output to the next.
    pads : pair of pairs
        ((top, bottom), (left, right)).
    dilation : pair of int
        Distance of the filters' taps.

    Returns
    -------
    pair of int
        Height and width.

    Raises
    ------
    ValueError
        If the dilated filter is larger than the padded input.
    """
    result = []
    for extent, taps, step, (before, after), spread in zip(size, kernel, stride, pads, dilation, strict=True):
        reach = spread * (taps - 1) + 1
        if reach > extent + before + after:
            raise ValueError(f"a filter that spans {reach} does not fit into {extent} + {before} + {after}")
        result.append((extent + before + after - reach) // step + 1)
    return result[0], result[1]


def _same(padding: str, extent: int, taps: int, step: int, spread: int) -> Pair:
    # As ONNX has it: ceil(extent / step) outputs; the odd pixel goes to the end, except for "same_lower".
    outputs = -(-extent // step)
    total = max((outputs - 1) * step + spread * (taps - 1) + 1 - extent, 0)
    less, more = total // 2, total - total // 2
    return (more, less) if padding == "same_lower" else (less, more)


def _windows(padded: Array, kernel: Pair, out: Pair, stride: Pair, dilation: Pair) -> Iterator[tuple[int, int, Array]]:
    # The view of the padded input that tap (i, j) reads: one pixel per output pixel.
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (out[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(left, left + (out[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, padded[:, :, rows, columns]


def _check_gradient(dy: Array, expected: tuple[int, ...]) -> None:
    if dy.shape != expected:
        raise ValueError(f"dy is {dy.shape}, but the convolution's output is {expected} (both as NCHW)")


def _pair(value: int | Pair) -> Pair:
    first, second = (value, value) if isinstance(value, int | np.integer) else value
    return int(first), int(second)


def _to_nchw(x: ArrayLike, layout: str) -> Array:
    x = np.asarray(x, dtype=np.float64)
    return x.transpose(0, 3, 1, 2) if layout == "NHWC" else x


def _from_nchw(y: Array, layout: str) -> Array:
    return np.ascontiguousarray(y.transpose(0, 2, 3, 1) if layout == "NHWC" else y)


def _sizes_nchw(sizes: tuple[int, ...], layout: str) -> tuple[int, int, int, int]:
    n, a, b, c = sizes
    return (n, c, a, b) if layout == "NHWC" else (n, a, b, c)

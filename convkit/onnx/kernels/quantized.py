"""Whole numbers: quantizing and back, and convolutions of whole numbers with exact sums.

Products of 8-bit numbers are summed in float32 where no sum can leave its 24 bits, else in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import convkit as ck
from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.constants import Made
from convkit.onnx.kernels.convolutions import by_taps, sides
from convkit.onnx.kernels.memory import is_float, pixels

__all__: list[str] = []

_EXACT = 1 << 24  # up to here float32 has every whole number


class _Sums:
    """Sums of products as floats that are whole numbers; constant filters are packed once."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._constant = {"ConvInteger": 1, "QLinearConv": 3}[call.op] in call.constants
        self._made = Made()

    def __call__(self, x: Any, x_zero: Any, w: Any, w_zero: Any, b: Any = None) -> Any:
        call = self._call
        if w.ndim != 4:
            sums = by_taps(call, _centred(x, x_zero, 1, np.float64), _centred(w, w_zero, 0, np.float64), None)
            return sums if b is None else sums + b.reshape(-1, *(1,) * (w.ndim - 2))
        strides = call.get("strides") or [1, 1]
        padding = tuple(sides(call, x.shape[2:], w.shape[2:], strides))
        given = x.dtype, x_zero, w, w_zero, b, padding, tuple(strides)
        if self._constant:
            options = x.dtype, padding, _key(x_zero), _key(w_zero)
            layer, dtype = self._made((w, b), options, lambda: self._layer(*given))
        else:
            layer, dtype = self._layer(*given)
        return layer(pixels(_centred(x, x_zero, 1, dtype), call.threads)).transpose(0, 3, 1, 2)

    def _layer(self, kind: Any, x_zero: Any, w: Any, w_zero: Any, b: Any, padding: Any, strides: Any) -> Any:
        filters = _centred(w, w_zero, 0, np.float64)
        bounds = np.iinfo(kind)
        zero = np.zeros(1) if x_zero is None else np.asarray(x_zero, np.float64)
        most = max(np.abs(bounds.min - zero).max(), np.abs(bounds.max - zero).max())
        largest = np.abs(filters).sum(axis=(1, 2, 3)) * most
        if b is not None:
            largest = largest + np.abs(b.astype(np.float64))
        dtype = np.float32 if largest.max(initial=0) < _EXACT else np.float64
        call = self._call
        memory: Any = call.memory
        layer = ck.Conv2d(
            filters.astype(dtype), None if b is None else b.astype(dtype), strides, padding,
            tuple(call.get("dilations") or [1, 1]), call.get("group", 1), layout="NHWC", num_threads=call.threads,
            accuracy="strict", memory=memory, copy=False,
        )  # fmt: skip
        return layer, dtype


def _key(zero: Any) -> Any:
    return None if zero is None else np.asarray(zero).tobytes()


def _centred(q: Any, zero: Any, axis: int, dtype: Any) -> Any:
    """Numbers less their zero, which may differ from channel to channel."""
    values = q.astype(dtype)
    if zero is not None:
        zero = np.asarray(zero, dtype)
        values -= zero.reshape([-1 if i == axis else 1 for i in range(q.ndim)]) if zero.size > 1 else zero.reshape(())
    return values


@implements("ConvInteger")
def conv_integer(call: Call) -> Compute | None:
    """ConvInteger."""
    sums = _Sums(call)

    def compute(x: Any, w: Any, x_zero: Any = None, w_zero: Any = None) -> Any:
        return np.rint(sums(x, x_zero, w, w_zero)).astype(np.int32)

    return compute


@implements("QLinearConv")
def qlinear_conv(call: Call) -> Compute | None:
    """QLinearConv: exact sums, then one rounding half to even, as the operator asks."""
    sums = _Sums(call)

    def compute(
        x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any, y_scale: Any, y_zero: Any, b: Any = None
    ) -> Any:
        y = sums(x, x_zero, w, w_zero, b)
        factor = (x_scale.astype(np.float64) * w_scale / y_scale).reshape(-1)
        if factor.size > 1:
            factor = factor.reshape(-1, *(1,) * (w.ndim - 2))
        y = np.multiply(y, factor, dtype=np.float64)
        return _rounded(y, y_zero, y_zero.dtype)

    return compute


def _rounded(y: Any, zero: Any, dtype: Any) -> Any:
    """Y, which is written over, as the nearest whole numbers, moved by the zero and kept within the type."""
    bounds = np.iinfo(dtype)
    np.rint(y, out=y)
    y += zero
    np.clip(y, bounds.min, bounds.max, out=y)
    return y.astype(dtype)


@implements("QuantizeLinear")
def quantize_linear(call: Call) -> Compute | None:
    """QuantizeLinear of float32 to whole numbers of 8 and 16 bits, by one scale or one for each channel."""
    if call.get("block_size", 0) or call.get("output_dtype", 0) or call.get("precision", 0):
        return None

    def compute(x: Any, scale: Any, zero: Any = None) -> Any:
        dtype = np.dtype(np.uint8) if zero is None else zero.dtype
        if not is_float(x, scale) or x.dtype != np.float32 or dtype not in _NARROW or scale.ndim > 1:
            return NotImplemented
        scale, zero = (
            _along(a, call.get("axis", 1), x.ndim) for a in (scale, np.zeros((), dtype) if zero is None else zero)
        )
        return _rounded(x / scale, zero.astype(np.float32), dtype)

    return compute


@implements("DequantizeLinear")
def dequantize_linear(call: Call) -> Compute | None:
    """DequantizeLinear of whole numbers of 8 and 16 bits to float32."""
    if call.get("block_size", 0) or call.get("output_dtype", 0):
        return None

    def compute(x: Any, scale: Any, zero: Any = None) -> Any:
        if x.dtype not in _NARROW or scale.dtype != np.float32 or scale.ndim > 1:
            return NotImplemented
        y = x.astype(np.float32)
        if zero is not None:
            y -= _along(zero, call.get("axis", 1), x.ndim).astype(np.float32)
        y *= _along(scale, call.get("axis", 1), x.ndim)
        return y

    return compute


_NARROW = tuple(np.dtype(kind) for kind in (np.uint8, np.int8, np.uint16, np.int16))


def _along(a: Any, axis: int, rank: int) -> Any:
    """One number, or one for each place along an axis."""
    return a.reshape(()) if a.size == 1 else a.reshape([-1 if i == axis % rank else 1 for i in range(rank)])

"""Convolutions by convkit: filters that are constants are packed once, results lie in channels-last memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import convkit as ck
from convkit import images
from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.constants import Made
from convkit.onnx.kernels.elementwise import activation
from convkit.onnx.kernels.memory import is_float, pixels

__all__ = ["by_taps", "sides"]

_KEPT = 64  # shapes for which a node remembers its layer


def sides(call: Call, spatial: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Padding before and after each spatial dimension, ``auto_pad`` worked out."""
    n = len(kernel)
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        dilations = call.get("dilations") or [1] * n
        found = []
        for size, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            small, large = total // 2, total - total // 2
            found.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return found
    pads = (call.get("pads") if auto == "NOTSET" else None) or [0] * 2 * n
    return list(zip(pads[:n], pads[n:], strict=True))


@implements("Conv", "FusedConv")
def conv(call: Call) -> Compute | None:
    """Conv of one or two dimensions, with the epilogue that rules gave it (see `rules.epilogue`)."""
    return _Convolution(call)


def _activation_of(call: Call) -> Any:
    """The activation of an epilogue as convkit's calls take it."""
    name, numbers = call.get("activation", ""), call.get("activation_numbers", ())
    return (name, *numbers) if numbers else name or None


class _Layer:
    """A layer of convkit for the last weights, bias and padding that were seen: constants are packed once."""

    def __init__(self, kind: Callable[..., Any]) -> None:
        self._kind = kind
        self._made = Made()

    def __call__(self, w: Any, b: Any, scale: Any, shift: Any, **geometry: Any) -> Any:
        return self._made(
            (w, b, scale, shift), tuple(geometry.values()),
            lambda: self._kind(w, b, scale=scale, shift=shift, **geometry),
        )  # fmt: skip


class _Convolution:
    """``scale * activation(conv(x) + bias [+ residual]) + shift [+ residual]``, all but x and w optional."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.groups = call.get("group", 1)
        self.after = bool(call.get("residual_after", 0))
        name, numbers = call.get("activation", ""), call.get("activation_numbers", ())
        self.activation = _activation_of(call)
        self.act = activation(name, tuple(numbers)) if name else None
        self.packs = 1 in call.constants
        self._layer = _Layer(ck.Conv2d)
        self._signal = Made()
        self._bound: dict[Any, Any] = {}  # layers by what is known to fit them

    def __call__(
        self, x: Any, w: Any, b: Any = None, residual: Any = None, scale: Any = None, shift: Any = None
    ) -> Any:
        if self.packs and w.ndim == 4:
            key = (id(w), x.shape, x.dtype, None if residual is None else (residual.shape, residual.dtype))
            bound = self._bound.get(key)
            if bound is not None and bound[0] is w and bound[1] is b and bound[2] is scale and bound[3] is shift:
                last = x.transpose(0, 2, 3, 1)
                if not last.flags.c_contiguous:
                    last = pixels(x, self.call.threads)
                if residual is not None:
                    residual = residual.transpose(0, 2, 3, 1)
                return bound[4](last, None, residual).transpose(0, 3, 1, 2)
            used: list[Any] = []
            y = self._checked(x, w, b, residual, scale, shift, used)
            if used:
                if len(self._bound) >= _KEPT:
                    self._bound.clear()
                self._bound[key] = (w, b, scale, shift, used[0])
            return y
        return self._checked(x, w, b, residual, scale, shift, [])

    def _checked(self, x: Any, w: Any, b: Any, residual: Any, scale: Any, shift: Any, used: list[Any]) -> Any:
        """The convolution for operands that nobody has seen yet; the layer that has done all of it goes into `used`."""
        rank = w.ndim
        if not is_float(x, w, *(a for a in (b, scale, shift) if a is not None)):
            return NotImplemented if self.call.op == "Conv" else self._in_steps(x, w, b, residual, scale, shift)
        if rank > 4 and x.ndim == rank:
            return self._in_steps(x, w, b, residual, scale, shift)
        if x.ndim != rank or rank < 3:
            raise ValueError(f"input of rank {x.ndim}, weights of rank {rank}")
        n = rank - 2
        strides = tuple(self.call.get("strides") or [1] * n)
        dilations = tuple(self.call.get("dilations") or [1] * n)
        padding = sides(self.call, x.shape[2:], w.shape[2:], strides)
        if n == 1:
            x, w = x[:, :, None], w[:, :, None] if not self.packs else self._lifted(w)
            strides, dilations, padding = (1, *strides), (1, *dilations), [(0, 0), *padding]
        geometry = {
            "stride": strides, "padding": tuple(padding), "dilation": dilations, "groups": self.groups,
            "num_threads": self.call.threads,
        }  # fmt: skip
        size = [
            (x.shape[2 + i] + sum(padding[i]) - (w.shape[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1
            for i in range(2)
        ]
        expected = (x.shape[0], w.shape[0], *(size if n == 2 else size[1:]))
        if residual is not None and (residual.shape != expected or residual.dtype != x.dtype):
            # An addition with broadcasting, or of another type: shapes were not known when the rules ran.
            plain = self._run(x, w, b, None, None, None, {**geometry, "activation": None, "residual_after": False}, [])
            return self._finish(plain if n == 2 else plain[:, :, 0], residual, scale, shift)
        if residual is not None and n == 1:
            residual = residual[:, :, None]
        options = {**geometry, "activation": self.activation, "residual_after": self.after}
        y = self._run(x, w, b, residual, scale, shift, options, used)
        return y if n == 2 else y[:, :, 0]

    def _lifted(self, w: Any) -> Any:
        """Filters of a signal as filters of images, always the same array for the same filters."""
        return self._signal((w,), (), lambda: w[:, :, None])

    def _run(
        self, x: Any, w: Any, b: Any, residual: Any, scale: Any, shift: Any, options: dict[str, Any], used: list[Any]
    ) -> Any:
        x = pixels(x, self.call.threads)
        residual = None if residual is None else residual.transpose(0, 2, 3, 1)
        if self.packs:
            layer = self._layer(w, b, scale, shift, layout="NHWC", memory=self.call.memory, copy=False, **options)
            used.append(layer)
            y = layer(x, None, residual)
        else:
            y = ck.conv2d(x, w, b, layout="NHWC", residual=residual, scale=scale, shift=shift, **options)
        return y.transpose(0, 3, 1, 2)

    def _finish(self, y: Any, residual: Any, scale: Any, shift: Any) -> Any:
        """The epilogue in NumPy."""
        column = (-1, *(1,) * (y.ndim - 2))
        if residual is not None and not self.after:
            y = y + residual
        if self.act is not None:
            y = self.act(y)
        if scale is not None:
            y = y * scale.reshape(column)
        if shift is not None:
            y = y + shift.reshape(column)
        return y + residual if residual is not None and self.after else y

    def _in_steps(self, x: Any, w: Any, b: Any, residual: Any, scale: Any, shift: Any) -> Any:
        return self._finish(by_taps(self.call, x, w, b), residual, scale, shift)


@implements("JoinedConv")
def joined_conv(call: Call) -> Compute | None:
    """A pointwise FusedConv of images side by side, which a rule makes of it and Concat."""
    one = _Convolution(replace(call, constants={i + 1: array for i, array in call.constants.items() if i < 5}))
    layer = _Layer(ck.Conv2d)
    options: Any = {
        "layout": "NHWC", "memory": call.memory, "copy": False, "num_threads": call.threads,
        "activation": one.activation, "residual_after": one.after,
    }  # fmt: skip

    def compute(w: Any, b: Any, residual: Any, scale: Any, shift: Any, *parts: Any) -> Any:
        first = parts[0]
        if (
            is_float(w, *parts, *(a for a in (b, residual, scale, shift) if a is not None))
            and all(part.ndim == 4 and part.shape[2:] == first.shape[2:] and len(part) == len(first) for part in parts)
            and (residual is None or residual.shape == (len(first), len(w), *first.shape[2:]))
        ):
            beside = images.beside([part.transpose(0, 2, 3, 1) for part in parts], call.threads)
            last = None if residual is None else residual.transpose(0, 2, 3, 1)
            y: Any = layer(w, b, scale, shift, **options).joined(beside, last)
            return y.transpose(0, 3, 1, 2)
        return one(np.concatenate(parts, axis=1), w, b, residual, scale, shift)

    return compute


def by_taps(call: Call, x: Any, w: Any, b: Any) -> Any:
    """A convolution of any type and rank as one product for each tap: for what convkit has no kernels for."""
    n = w.ndim - 2
    strides, dilations = call.get("strides") or [1] * n, call.get("dilations") or [1] * n
    padding = sides(call, x.shape[2:], w.shape[2:], strides)
    x = np.pad(x, [(0, 0), (0, 0), *padding])
    groups = call.get("group", 1)
    size = [(x.shape[2 + i] - (w.shape[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(n)]
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, math.prod(size)), x.dtype)
    grouped = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    for tap in np.ndindex(*w.shape[2:]):
        window = tuple(
            slice(t * d, t * d + s * (o - 1) + 1, s) for t, d, s, o in zip(tap, dilations, strides, size, strict=True)
        )
        taken = x[(slice(None), slice(None), *window)].reshape(x.shape[0], groups, w.shape[1], -1)
        y += np.matmul(grouped[(..., *tap)], taken)
    y = y.reshape(x.shape[0], w.shape[0], *size)
    return y if b is None else y + b.reshape(-1, *(1,) * n)


@implements("ConvTranspose", "FusedConvTranspose")
def conv_transpose(call: Call) -> Compute | None:
    """ConvTranspose of one or two dimensions, with the epilogue that rules gave it."""
    layer = _Layer(ck.ConvTranspose2d)
    groups = call.get("group", 1)
    act = _activation_of(call)

    def compute(x: Any, w: Any, b: Any = None, residual: None = None, scale: Any = None, shift: Any = None) -> Any:
        n = w.ndim - 2
        if n not in (1, 2) or not is_float(x, w, *(() if b is None else (b,))):
            return NotImplemented
        strides = call.get("strides") or [1] * n
        dilations = call.get("dilations") or [1] * n
        extra = list(call.get("output_padding") or [0] * n)
        reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
        auto, wanted = call.get("auto_pad", "NOTSET"), call.get("output_shape")
        if wanted is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
            padding = []
            for i in range(n):
                target = list(wanted)[-n:][i] if wanted is not None else x.shape[2 + i] * strides[i]
                total = strides[i] * (x.shape[2 + i] - 1) + extra[i] + reach[i] - target
                small, large = total // 2, total - total // 2
                padding.append((small, large) if auto == "SAME_UPPER" else (large, small))
        else:
            padding = sides(call, x.shape[2:], w.shape[2:], strides)
        # convkit pads by less than the filter's reach: what that leaves too much is cut off.
        crop = [(max(p - r + 1, 0), max(q - r + 1, 0)) for (p, q), r in zip(padding, reach, strict=True)]
        padding = [(p - c, q - d) for (p, q), (c, d) in zip(padding, crop, strict=True)]
        if any(p < 0 or q < 0 for p, q in padding):
            return NotImplemented
        if any(e >= max(s, d) or e >= s for e, s, d in zip(extra, strides, dilations, strict=True)):
            return NotImplemented
        lift = n == 1
        if lift:
            x, w = x[:, :, None], w[:, :, None]
            strides, dilations, padding, extra = [1, *strides], [1, *dilations], [(0, 0), *padding], [0, *extra]
        options = {
            "stride": tuple(strides), "padding": tuple(padding), "output_padding": tuple(extra), "groups": groups,
            "dilation": tuple(dilations), "layout": "NHWC", "num_threads": call.threads,
            "activation": act,
        }  # fmt: skip
        x = pixels(x, call.threads)
        if 1 in call.constants and not lift:
            y = layer(w, b, scale, shift, memory=call.memory, copy=False, **options)(x)
        else:
            y = ck.conv_transpose2d(x, w, b, scale=scale, shift=shift, **options)
        y = y.transpose(0, 3, 1, 2)
        y = y[:, :, 0] if lift else y
        if any(map(any, crop)):
            y = y[(..., *(slice(c, size - d) for (c, d), size in zip(crop, y.shape[2:], strict=True)))]
        return y

    return compute

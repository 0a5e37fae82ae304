"""What a kernel is held against: operands for a problem, the float64 answer and the error that it may have."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convkit import reference
from convkit.problem import Problem

Array = NDArray[Any]
# Names as a runner takes them, and what `convkit.conv2d` calls the same.
ACTIVATIONS: tuple[tuple[str, float, Any], ...] = (
    *((name, 0.0, name) for name in ("gelu", "silu", "hardswish", "sigmoid", "tanh", "gelu_tanh")),
    ("leaky_relu", 0.25, ("leaky_relu", 0.25)),
    ("clamp", 0.0, "relu"),
    ("none", 0.0, None),
)
# What follows the activation: scale, shift, and whether the residual comes last.
FOLLOWING = (
    (True, True, True), (False, False, False), (True, False, False), (False, True, True), (True, True, False),
    (False, False, True), (False, True, False),
)  # fmt: skip


def _absolute(a: Array | None) -> Array | None:
    return None if a is None else np.abs(a)


class Guarded:
    """Memory between two pages that nobody may touch, so that a read past an operand's end is a crash, not a guess."""

    PAGES = 2048

    def __init__(self) -> None:
        page = mmap.PAGESIZE
        self._map = mmap.mmap(-1, (self.PAGES + 2) * page)
        self._view = np.frombuffer(self._map, dtype=np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        for offset in (0, (self.PAGES + 1) * page):
            address = ctypes.c_void_p(self._view.ctypes.data + offset)
            if libc.mprotect(address, ctypes.c_size_t(page), 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self._data = self._view[page : (self.PAGES + 1) * page]

    def place(self, array: Array, at_end: bool) -> Array:
        """A copy of `array` that ends (or begins) where the memory does."""
        size = array.nbytes
        if size > self._data.size:
            raise MemoryError(f"{size} bytes do not fit between the guard pages")
        part = self._data[self._data.size - size :] if at_end else self._data[:size]
        placed = part.view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed


_GUARDED = {name: Guarded() for name in ("x", "w", "bias", "residual", "scale", "shift")}


class Operands:
    """Random operands of a problem, and what the kernel should make of them.

    Attributes
    ----------
    expected : ndarray of float64
    allowed : ndarray of float64
        The largest error of each element, given the kernel's error class.
    """

    def __init__(self, problem: Problem, kernel: Mapping[str, Any], seed: int = 0, at_end: bool = True) -> None:
        rng = np.random.default_rng(seed)
        self.problem, self.kernel = problem, kernel

        def normal(name: str, shape: tuple[int, ...]) -> Array:
            return _GUARDED[name].place(rng.standard_normal(shape).astype(problem.dtype), at_end)

        self._normal = normal
        self.following: dict[str, Any] = {}
        self._sums: tuple[Array, Array] | None = None  # without an epilogue, and of absolute values

        first = problem.y_shape if problem.op == "input_grad" else problem.x_shape
        second = problem.y_shape if problem.op == "weight_grad" else problem.w_shape
        self.x, self.w = normal("x", first), normal("w", second)
        result, channels = (problem.y_shape, problem.o) if problem.op == "forward" else (problem.x_shape, problem.c)
        self._channels = channels
        self.bias = normal("bias", (channels,)) if problem.bias else None
        self.residual = normal("residual", result) if problem.residual else None
        self.activation: Any = None
        self.arguments: dict[str, Any] = {}
        if problem.epilogue == "clamp":
            self.activation = ("clip", -0.5, 0.75) if seed % 2 else "relu"
            lo, hi = (-0.5, 0.75) if seed % 2 else (0.0, np.inf)
            self.arguments = {"activation": "clamp", "lo": lo, "hi": hi}
        elif problem.epilogue == "other":
            self.choose_epilogue(seed % len(ACTIVATIONS), seed % len(FOLLOWING))

    def choose_epilogue(self, activation: int, following: int) -> None:
        """Take the epilogue of these positions in `ACTIVATIONS` and `FOLLOWING`."""
        name, lo, self.activation = ACTIVATIONS[activation]
        self.arguments = {"activation": name, "lo": lo}
        self.following = {}
        for factor, wanted in zip(("scale", "shift"), FOLLOWING[following], strict=False):
            if wanted:
                self.following[factor] = self._normal(factor, (self._channels,))
        self.following["residual_after"] = FOLLOWING[following][2]
        self.arguments.update(self.following)

    def expect(self) -> None:
        """Compute `expected` and `allowed`."""
        p = self.problem
        if self._sums is None:
            self._sums = self._reference(self.x, self.w), self._reference(np.abs(self.x), np.abs(self.w))
        sums, magnitude = self._sums
        self.expected = self._finished(sums)
        magnitude = reference.finish(magnitude, *(_absolute(a) for a in (self.bias, self.residual)), layout=p.layout)
        if not self.kernel["direct"]:
            # A transform mixes all pixels of a tile, so its error follows the largest of them.
            magnitude = np.full_like(magnitude, magnitude.max(initial=0.0))
        # Rounding errors of a sum of K terms add up like a random walk; the factor covers the tail over a whole test
        # run, and the epilogue's roundings.
        eps = np.finfo(p.dtype).eps
        growth = 4.0 + np.sqrt(p.reduction)
        if not self.kernel["direct"]:
            # The stated ratio holds for many channels. The roundings of the transforms do not grow with the sum; with
            # few channels they are most of the error.
            ratio = self.kernel["rms_ratio"]
            growth = growth * max(ratio, 1.0) + 8.0 * ratio
        scale, shift = (_absolute(self.following.get(name)) for name in ("scale", "shift"))
        scale = None if scale is None else np.maximum(scale, 1.0)  # roundings after the activation are not scaled
        self.allowed = eps * reference.finish(
            growth * magnitude + 4.0, scale=scale, shift=None if shift is None else 4.0 * shift, layout=p.layout
        )

    def _finished(self, sums: Array) -> Array:
        if self.problem.op == "weight_grad":
            return sums
        return reference.finish(
            sums, self.bias, self.residual, self.activation, **self.following, layout=self.problem.layout
        )

    def _reference(self, x: Any, w: Any) -> Array:
        p = self.problem
        pads = ((p.pad_top, p.pad_bottom), (p.pad_left, p.pad_right))
        geometry: Any = ((p.stride_h, p.stride_w), pads, (p.dilation_h, p.dilation_w), p.groups)
        if p.op == "input_grad":
            return reference.conv2d_input(p.x_shape, w, x, *geometry, layout=p.layout)
        if p.op == "weight_grad":
            return reference.conv2d_weight(x, p.w_shape, w, *geometry, layout=p.layout)
        return reference.conv2d(x, w, None, *geometry, layout=p.layout)

    def check(self, y: Array) -> None:
        """Fail unless `y` is the answer, within the error that the kernel's class allows."""
        assert y.dtype == self.problem.dtype
        assert y.shape == self.expected.shape
        error = np.abs(y - self.expected)
        wrong = ~(error <= self.allowed)  # true for NaN, too
        if wrong.any():
            where = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error - self.allowed)), error.shape)
            raise AssertionError(
                f"{self.kernel['name']}: {wrong.sum()} of {wrong.size} wrong for {self.problem}; worst at "
                f"{tuple(map(int, where))}: {y[where]!r} instead of {self.expected[where]!r} "
                f"+- {self.allowed[where]:.2g}"
            )

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
OTHER = (("silu", 0.0), ("hardswish", 0.0), ("sigmoid", 0.0), ("tanh", 0.0), ("leaky_relu", 0.25))


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


_GUARDED = {name: Guarded() for name in ("x", "w", "bias", "residual")}


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

        first = problem.y_shape if problem.op == "input_grad" else problem.x_shape
        second = problem.y_shape if problem.op == "weight_grad" else problem.w_shape
        self.x, self.w = normal("x", first), normal("w", second)
        result, channels = (problem.y_shape, problem.o) if problem.op == "forward" else (problem.x_shape, problem.c)
        self.bias = normal("bias", (channels,)) if problem.bias else None
        self.residual = normal("residual", result) if problem.residual else None
        self.activation: Any = None
        self.arguments: dict[str, Any] = {}
        if problem.epilogue == "clamp":
            self.activation = ("clip", -0.5, 0.75) if seed % 2 else "relu"
            lo, hi = (-0.5, 0.75) if seed % 2 else (0.0, np.inf)
            self.arguments = {"activation": "clamp", "lo": lo, "hi": hi}
        elif problem.epilogue == "other":
            name, slope = OTHER[seed % len(OTHER)]
            self.activation = (name, slope) if name == "leaky_relu" else name
            self.arguments = {"activation": name, "lo": slope}

    def expect(self) -> None:
        """Compute `expected` and `allowed`."""
        p = self.problem
        self.expected = self._reference(self.x, self.w, self.bias, self.residual, self.activation)
        magnitude = self._reference(*(None if a is None else np.abs(a) for a in self._arrays), None)
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
        self.allowed = eps * (growth * magnitude + 4.0)

    @property
    def _arrays(self) -> tuple[Array | None, ...]:
        return self.x, self.w, self.bias, self.residual

    def _reference(self, x: Any, w: Any, bias: Any, residual: Any, activation: Any) -> Array:
        p = self.problem
        pads = ((p.pad_top, p.pad_bottom), (p.pad_left, p.pad_right))
        geometry: Any = ((p.stride_h, p.stride_w), pads, (p.dilation_h, p.dilation_w), p.groups)
        if p.op == "input_grad":
            dx = reference.conv2d_input(p.x_shape, w, x, *geometry, layout=p.layout)
            if bias is not None:
                dx += np.asarray(bias, np.float64).reshape((-1, 1, 1) if p.layout == "NCHW" else (-1,))
            return reference.activate(dx if residual is None else dx + residual, activation)
        if p.op == "weight_grad":
            return reference.conv2d_weight(x, p.w_shape, w, *geometry, layout=p.layout)
        return reference.conv2d(x, w, bias, *geometry, layout=p.layout, activation=activation, residual=residual)

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

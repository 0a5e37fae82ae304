"""Types of what convkit's calls take: arrays, and the arguments that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, SupportsIndex, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Accuracy", "Activation", "Algorithm", "Array", "Dtype", "FloatT", "Layout", "Memory", "Mode", "NamedKernel", "Op",
    "Padding", "Padding1d", "Pair", "Shape", "Sides", "SignalLayout", "Single", "SupportsDLPack", "Triple",
]  # fmt: skip

FloatT = TypeVar("FloatT", np.float32, np.float64)
"""The element type of a call: of all its arrays and of its result."""

Array: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
"""An array whose element type is one of the two."""

Shape: TypeAlias = Sequence[SupportsIndex]
"""Sizes, one for each dimension."""

Layout: TypeAlias = Literal["NCHW", "NHWC"]
"""Order of an image's dimensions; weights are OIHW in both."""

Dtype: TypeAlias = Literal["float32", "float64"]
"""Name of an element type."""

Op: TypeAlias = Literal["forward", "input_grad", "weight_grad"]
"""A convolution, or a gradient of it."""

Pair: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
"""Height and width, or one number for both."""

Single: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
"""A number, or a sequence of one."""

Triple: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
"""Depth, height and width, or one number for all."""

SignalLayout: TypeAlias = Literal["NCW", "NWC"]
"""Order of a signal's dimensions."""

Sides: TypeAlias = Pair | Sequence[Sequence[SupportsIndex]]
"""Zeros around an image: as a pair, or ((top, bottom), (left, right))."""

Padding: TypeAlias = Sides | Literal["valid", "same", "same_upper", "same_lower"]
"""Zeros around an image, in numbers or by a rule."""

Padding1d: TypeAlias = Single | Sequence[Sequence[SupportsIndex]] | Literal["valid", "same", "same_upper", "same_lower"]
"""Zeros around a signal: a number, ((before, after),), or a rule."""

Activation: TypeAlias = (
    Literal["relu", "relu6", "silu", "hardswish", "sigmoid", "tanh", "gelu", "gelu_tanh"]
    | tuple[Literal["clip"], float | None, float | None]
    | tuple[Literal["leaky_relu"], float]
)
"""What is done to each output before it is stored."""

Accuracy: TypeAlias = Literal["strict", "standard", "fast"] | float
"""A level, or a bound of the expected RMS error relative to the RMS of the result."""

Memory: TypeAlias = Literal["fast", "low"]
"""Whether a layer keeps what it has packed."""

Mode: TypeAlias = Literal["replay", "online", "tune", "require", "off"]
"""How much a call may learn."""


class SupportsDLPack(Protocol):
    """An array of another library, whose memory NumPy can read without a copy."""

    def __dlpack__(self, /, *, stream: None = ...) -> Any:
        """Return a capsule with the array."""


class NamedKernel(Protocol):
    """A kernel with its parameters, such as a choice that `convkit.explain` returns."""

    @property
    def kernel(self) -> str:
        """Full name."""

    @property
    def parameters(self) -> tuple[int, ...]:
        """Values in the order of the kernel's schema."""


Algorithm: TypeAlias = str | NamedKernel
"""A family of kernels, a kernel, or one with its parameters."""

"""Arguments as SciPy takes them: arrays and what they may be, outputs, axes, boundary modes, origins.

Errors are of SciPy's types, and say what was given and what is allowed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from operator import index
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from convkit import _core
from convkit.typing import Accuracy

__all__ = [
    "ROUNDINGS", "Array", "Mode", "Modes", "Origins", "Output", "array_of", "axes_of", "axis_of",
    "fresh", "is_strict", "mode_of", "modes_of", "number_of", "one_each", "ordered", "origin_of", "result_for",
    "supported", "team", "weights_of", "whole",
]  # fmt: skip

T = TypeVar("T")

Array: TypeAlias = NDArray[Any]

Mode: TypeAlias = Literal[
    "reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "grid-constant"
]
"""What lies beyond the edges."""

Modes: TypeAlias = Mode | Iterable[Mode]
"""One mode for all axes, or one for each."""

Origins: TypeAlias = int | Iterable[int]
"""Shift of the filter along all axes, or along each."""

Output: TypeAlias = Array | DTypeLike | None
"""Where the result goes, or its element type."""

ROUNDINGS = 4
"""Weights may be changed by this many roundings of the result's type when they are taken apart."""

_MODES = {
    "reflect": "reflect", "grid-mirror": "reflect", "mirror": "mirror", "nearest": "nearest", "wrap": "wrap",
    "grid-wrap": "wrap", "constant": "constant", "grid-constant": "constant",
}  # fmt: skip


def supported(dtype: np.dtype[Any]) -> bool:
    """True for the element types that are filtered: bool, integers, float32, float64, and complex ones by parts."""
    return dtype.kind in "biu" or (dtype.kind in "fc" and 4 <= dtype.itemsize // (1 + (dtype.kind == "c")) <= 8)


def array_of(input: ArrayLike, name: str = "input") -> Array:
    """The array to be filtered, of a supported element type."""
    array = np.asarray(input)
    if not supported(array.dtype):
        raise TypeError(f"{name} must be of bool, an integer type, float32, float64 or complex, not {array.dtype}")
    return array


def weights_of(weights: ArrayLike) -> Array:
    """Weights in float64 or complex128."""
    array = np.asarray(weights)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"weights must be numbers, not {array.dtype}")
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)


def result_for(output: Output, input: Array, *, complex_result: bool = False, shape: tuple[int, ...] = ()) -> Array:
    """The array that receives the result: `output`, or a new one of its or the input's element type.

    Parameters
    ----------
    output : array, dtype or None
    input : ndarray
    complex_result : bool
        Whether the result is complex, so that the array must be.
    shape : tuple of int
        Of the result; the input's by default.
    """
    shape = shape or input.shape
    array = None
    if output is None:
        dtype = input.dtype.newbyteorder("=")
    elif isinstance(output, (type, np.dtype, str)):
        try:
            dtype = np.dtype(output)
        except TypeError as error:
            raise TypeError(f"output must be an array or an element type such as 'float32', not {output!r}") from error
    else:
        array = np.asarray(output)
        if array.shape != shape:
            raise RuntimeError(f"output shape not correct: it is {array.shape}, the result's is {shape}")
        if not array.flags.writeable:
            raise ValueError("output is read-only")
        dtype = array.dtype
    if complex_result and dtype.kind != "c":
        if array is not None or isinstance(output, str):
            raise RuntimeError(f"output must have complex dtype, as the result has, not {dtype}")
        if output is not None:
            warnings.warn("promoting specified output dtype to complex", UserWarning, stacklevel=3)
        dtype = np.promote_types(dtype, np.complex64)
    if not supported(dtype):
        raise RuntimeError(f"output must have numeric dtype that is supported: real or complex of at most 64 bits "
                           f"a part, not {dtype}")  # fmt: skip
    if dtype.kind == "c" and not complex_result:
        raise RuntimeError(f"output must have a real dtype, as the result has, not {dtype}")
    return fresh(shape, dtype) if array is None else array


def fresh(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new array, in this machine's byte order, out of memory that earlier results gave back."""
    if dtype.kind == "c":
        return np.empty(shape, dtype.newbyteorder("="))
    return _core.empty(shape, dtype.newbyteorder("="))


def whole(value: int, name: str) -> int:
    """An integer; `name` is the argument's."""
    try:
        return index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, not {value!r}") from error


def ordered(value: T, name: str) -> T:
    """A value that can be held against a number; `name` is the argument's."""
    try:
        bool(value > 0)  # type: ignore[operator]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be a number, or one for each axis, not {value!r}") from error
    return value


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the first."""
    number = whole(axis, "axis")
    if not -rank <= number < rank:
        raise np.exceptions.AxisError(number, rank, _allowed(rank, "axis"))
    return number % rank


def axes_of(axes: int | Iterable[int] | None, rank: int) -> tuple[int, ...]:
    """The axes to be filtered, counted from the first; None are all."""
    if axes is None:
        return tuple(range(rank))
    numbers = []
    for axis in axes if isinstance(axes, Iterable) else (axes,):
        number = whole(axis, "axes")
        if not -rank <= number < rank:
            raise ValueError(f"{_allowed(rank, 'axes')}: {number} is out of range")
        numbers.append(number % rank)
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"axes must be unique, not {tuple(numbers)}")
    return tuple(numbers)


def _allowed(rank: int, name: str) -> str:
    if not rank:
        return f"{name} cannot name a dimension of an input that has none"
    return f"{name} must be from {-rank} to {rank - 1} for an input of {rank} dimensions"


def one_each(value: T | Iterable[T], rank: int, name: str) -> list[T]:
    """A value for each of `rank` axes."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * rank
    values = list(value)
    if len(values) != rank:
        raise RuntimeError(
            f"{name} has {len(values)} items: a sequence argument must have length equal to input rank, "
            f"or to the number of axes, {rank}"
        )
    return values


def mode_of(mode: object) -> str:
    """A boundary mode by the shortest of its names."""
    found = _MODES.get(mode) if isinstance(mode, str) else None
    if found is None:
        raise RuntimeError(f"boundary mode not supported: mode is {mode!r}, it must be one of {', '.join(_MODES)}")
    return found


def modes_of(mode: Modes, rank: int) -> list[str]:
    """A boundary mode for each of `rank` axes."""
    each: list[Any] = one_each(mode, rank, "mode")
    return [mode_of(one) for one in each]


def origin_of(origin: int, size: int, name: str = "origin", *, turned: bool = False) -> int:
    """A shift that keeps the filter's centre within the filter: of a correlation, for a `turned` filter too."""
    shift = whole(origin, name)
    if not -(size // 2) <= shift <= (size - 1) // 2:
        raise ValueError(
            f"invalid origin: {name} is {shift}; for {size} weights it must be at least {-(size // 2)} and at most "
            f"{(size - 1) // 2}"
        )
    return -shift - (size % 2 == 0) if turned else shift


def number_of(cval: complex, real: bool = True) -> complex:
    """A number for what lies beyond the edges."""
    if type(cval) is float:
        return cval
    if real and np.iscomplexobj(cval):
        raise ValueError(f"Cannot provide a complex-valued cval when the input is real: cval is {cval}")
    try:
        return float(cval) if real else complex(cval)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise TypeError(f"cval must be a number, not {cval!r}") from error


def team(num_threads: int | None) -> int:
    """How many threads may compute."""
    if num_threads is None:
        return _core.default_threads()
    threads = whole(num_threads, "num_threads")
    if not 1 <= threads < 2**31:
        raise ValueError(f"num_threads must be at least 1 and below 2**31, not {threads}")
    return threads


def is_strict(accuracy: Accuracy | None, dtype: np.dtype[Any]) -> bool:
    """True if weights may not be taken apart, for a result of this element type."""
    if accuracy is None or accuracy in ("standard", "fast"):
        return False
    if isinstance(accuracy, str):
        if accuracy == "strict":
            return True
    elif not isinstance(accuracy, bool) and accuracy > 0:
        return dtype.kind in "fc" and accuracy < ROUNDINGS * np.finfo(dtype).eps
    raise ValueError(f"accuracy must be 'strict', 'standard', 'fast' or a number greater than 0, not {accuracy!r}")

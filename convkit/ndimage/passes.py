"""One-dimensional filters in turn: each along an axis, two at a time if their axes make planes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from convkit import _core
from convkit.ndimage.arguments import Array, fresh
from convkit.ndimage.planes import FEW_BYTES, are_pixels, as_lines, as_planes, has_short_rows, native

__all__ = ["Pass", "filtered", "in_any_order"]

# Of longer filters, two at a time would need too much memory for the rows that they keep.
_LONGEST_OF_TWO = 1024

_NOTHING = np.ones(1)


@dataclass(frozen=True, slots=True)
class Pass:
    """A one-dimensional filter.

    Attributes
    ----------
    axis : int
    taps : ndarray of float64 or int
        Weights, or the number of elements whose mean is taken.
    mode : str
        What lies beyond the edges.
    origin : int
        As in `correlate1d`.
    """

    axis: int
    taps: Array | int
    mode: str
    origin: int = 0

    @property
    def size(self) -> int:
        """How many elements meet."""
        return self.taps if isinstance(self.taps, int) else len(self.taps)


def in_any_order(passes: Sequence[Pass], input: Array, output: Array, cval: float) -> bool:
    """True if the result does not depend on the order of the passes, rounding of floats aside.

    What lies beyond the edges is the same number in each pass, which only 0 survives. Results that are integers are cut
    to the output's type after each pass. Whole weights on whole numbers leave nothing to cut; what wraps around does
    so in the same way in any order.
    """
    if cval and any(one.mode == "constant" for one in passes):
        return False
    if output.dtype.kind == "f":
        return True
    largest = _largest(input.dtype)
    for one in passes:
        if isinstance(one.taps, int):
            return False
        taps = one.taps.tolist()
        if not all(map(float.is_integer, taps)):
            return False
        largest *= sum(map(abs, taps))
    return largest < _room(output.dtype)


@cache
def _largest(dtype: np.dtype[Any]) -> float:
    """The largest absolute value of an element type, infinity if it has fractions."""
    if dtype.kind == "b":
        return 1
    return -float(np.iinfo(dtype).min) or float(np.iinfo(dtype).max) if dtype.kind in "iu" else np.inf


@cache
def _room(dtype: np.dtype[Any]) -> float:
    """The least number that may come out otherwise than cut to the type's last bits.

    Narrow types are cut out of 32 bits, and unsigned ones of 32 out of 64. Double precision has all whole numbers below
    2**53.
    """
    if dtype.kind == "b":
        return 0
    if dtype.itemsize < 4:
        return 2.0**31
    return min(2.0**53, np.inf if dtype.kind == "u" and dtype.itemsize == 4 else float(np.iinfo(dtype).max))


def filtered(input: Array, output: Array, passes: Sequence[Pass], cval: float, threads: int) -> None:
    """Filter `input` by all passes in turn into `output`, which may be `input`.

    As SciPy does, what is between two passes is stored in the output's element type.

    Parameters
    ----------
    input, output : ndarray
        Of one shape and real element types.
    passes : sequence of Pass
        Of different axes; `in_any_order` says whether they may be sorted.
    cval : float
        What lies beyond the edges in mode constant.
    threads : int
        Size of the team.
    """
    if not input.size:
        return
    if not passes:
        output[...] = input
        return
    if not _ascending(passes) and in_any_order(passes, input, output, cval):
        passes = sorted(passes, key=lambda one: one.axis)
    groups = list(_grouped(passes, input))
    dtype = output.dtype.newbyteorder("=")
    as_it_is = output.dtype.isnative and output.flags.aligned
    # What lies between two passes is never in `output`: it may share memory with `input`.
    target = output if as_it_is and (len(groups) > 1 or not np.may_share_memory(input, output)) else None
    source = native(input)
    spare: list[Array] = []
    for step, group in enumerate(groups, 1):
        if step < len(groups):
            result = spare.pop() if len(spare) > 1 else fresh(input.shape, dtype)
            spare.insert(0, result)
        else:
            result = fresh(input.shape, dtype) if target is None else target
        _run(source, result, group, cval, threads)
        source = result
    if target is None:
        output[...] = source


def _ascending(passes: Sequence[Pass]) -> bool:
    return all(one.axis < other.axis for one, other in pairwise(passes))


def _grouped(passes: Sequence[Pass], input: Array) -> Iterator[tuple[Pass, ...]]:
    """Passes one by one, or two if the second runs along rows, of numbers or of pixels, and the first across them."""
    found: list[tuple[Pass, ...]] = []
    place, last = len(passes), input.ndim - 1
    while place:
        two = place > 1 and passes[place - 2].axis < passes[place - 1].axis
        along = passes[place - 1].axis
        two = two and (are_pixels(input, along) or (along == last and not has_short_rows(input)))
        two = two and max(passes[place - 2].size, passes[place - 1].size) <= _LONGEST_OF_TWO
        place -= 2 if two else 1
        found.append(tuple(passes[place : place + 2]) if two else (passes[place],))
    return reversed(found)


def _run(source: Array, target: Array, group: tuple[Pass, ...], cval: float, threads: int) -> None:
    if len(group) == 2:
        column, row = group
        for planes, result in as_planes((column.axis, row.axis), source, target):
            _separable(planes, result, column, row, cval, threads)
        return
    (one,) = group
    if source.ndim == 1:
        source, target, one = source[None], target[None], replace(one, axis=1)
    short, last = has_short_rows(source), source.ndim - 1
    if source.ndim > 2 and one.axis < last:
        source = np.ascontiguousarray(source)
        result = target if target.flags.c_contiguous else fresh(target.shape, target.dtype)
        if prod(source.shape[one.axis + 1 :]) * source.itemsize < FEW_BYTES:
            across = one.axis - 1 if one.axis and are_pixels(source, one.axis) else last
            for planes, lines in as_planes((across, one.axis), source, result):
                _separable(planes, lines, None, one, cval, threads)
        else:
            _separable(as_lines(source, one.axis), as_lines(result, one.axis), one, None, cval, threads)
        if result is not target:
            target[...] = result
        return
    # Of the last two axes the longer one is along the rows.
    axes = (last, last - 1) if short else (last - 1, last)
    along = one.axis == axes[1]
    for planes, result in as_planes(axes, source, target):
        _separable(planes, result, None if along else one, one if along else None, cval, threads)


def _separable(planes: Array, result: Array, column: Pass | None, row: Pass | None, cval: float, threads: int) -> None:
    """Columns, then rows, of a stack of planes."""
    mean = any(one is not None and isinstance(one.taps, int) for one in (column, row))
    nothing = Pass(0, 1 if mean else _NOTHING, "nearest")
    down, along = column or nothing, row or nothing
    run: Any = _core.filters.uniform if mean else _core.filters.separable
    run(
        planes, down.taps, along.taps, result, row_mode=down.mode, column_mode=along.mode, cval=cval,
        origin=(down.origin, along.origin), threads=threads, rounded=True,
    )  # fmt: skip

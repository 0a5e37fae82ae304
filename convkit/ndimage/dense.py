"""Filters with a weight for each place of a box: of any rank, one at a time or as a bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from convkit import _core
from convkit.ndimage.arguments import Array, fresh
from convkit.ndimage.passes import Pass, filtered, in_any_order
from convkit.ndimage.planes import as_planes, has_short_rows, native
from convkit.ndimage.separation import factors, terms, whole_factors

__all__ = ["Box", "bank_filtered", "box_filtered"]

# What a pair of one-dimensional filters and the addition of its result cost, in weights of a dense filter: for the
# pair, and for each of its taps.
_PASS, _TAP = 35.0, 0.75

# Fewer products of a pixel and a weight than this are done before singular values are found, as are those of images
# with fewer pixels than so many for each row or column of the filter.
_LEAST_WORK, _LEAST_PIXELS = 1 << 18, 100


@dataclass(frozen=True, slots=True)
class Box:
    """A filter along some axes, as a correlation.

    Attributes
    ----------
    weights : ndarray of float64
        A dimension for each axis.
    axes : tuple of int
        Ascending.
    modes : tuple of str
        What lies beyond the edges.
    origins : tuple of int
        As in `correlate`.
    """

    weights: Array
    axes: tuple[int, ...]
    modes: tuple[str, ...]
    origins: tuple[int, ...]

    def without_single_taps(self) -> Box:
        """The same filter without the axes along which it has one weight only."""
        if 1 not in self.weights.shape:
            return self
        kept = [i for i, size in enumerate(self.weights.shape) if size > 1]
        return Box(
            np.squeeze(self.weights), tuple(self.axes[i] for i in kept), tuple(self.modes[i] for i in kept),
            tuple(self.origins[i] for i in kept),
        )  # fmt: skip

    def passes(self, taps: Sequence[Array]) -> list[Pass]:
        """One-dimensional filters along the axes."""
        return [Pass(*one) for one in zip(self.axes, taps, self.modes, self.origins, strict=True)]

    def last_two(self, tap: tuple[int, ...]) -> Box:
        """The plane of the filter at a place of its other axes."""
        return Box(self.weights[tap], self.axes[-2:], self.modes[-2:], self.origins[-2:])


def box_filtered(input: Array, output: Array, box: Box, cval: float, threads: int, strict: bool) -> None:
    """Correlate `input` with a box of weights into `output`, which may be `input`.

    Parameters
    ----------
    input, output : ndarray
        Of one shape and real element types.
    box : Box
    cval : float
        What lies beyond the edges in mode constant.
    threads : int
        Size of the team.
    strict : bool
        True: each weight is multiplied as it is. Else an outer product is run as one-dimensional filters.
    """
    box = box.without_single_taps()
    if not input.ndim:
        input, output = input[None], output[None]
    if not box.axes:
        box = Box(box.weights.reshape(1), (input.ndim - 1,), ("nearest",), (0,))
    if not input.size:
        return
    if len(box.axes) == 1:
        filtered(input, output, box.passes([box.weights]), cval, threads)
        return
    if not strict and _is_worth_a_look(input, box):
        taps = _factors(box, input, output, cval)
        if taps is not None:
            filtered(input, output, box.passes(taps), cval, threads)
            return
    if len(box.axes) == 2 and output.dtype.isnative and output.flags.aligned:
        target = fresh(output.shape, output.dtype) if np.may_share_memory(input, output) else output
        if strict or not _sum_of_outer_products(input, target, box, cval, threads):
            _flat(input, target, box, cval, threads, strict)
    else:
        target = _deep(input, output, box, cval, threads, strict)
    if target is not output:
        filtered(target, output, [Pass(target.ndim - 1, np.ones(1), "nearest")], cval, threads)


def bank_filtered(input: Array, output: Array, box: Box, cval: float, threads: int, strict: bool) -> None:
    """Correlate `input` with each filter of a bank: ``output[k]`` with ``box.weights[k]``; they share no memory."""
    if not input.size:
        return
    if len(box.axes) == 2 and output.dtype.isnative and output.flags.aligned:
        down, along = box.axes
        *_, height, width = np.moveaxis(input, box.axes, (-2, -1)).shape
        moved = np.moveaxis(output, (1 + down, 1 + along), (-2, -1))
        stacks = moved.reshape(len(output), -1, height, width)
        planes = [planes for (planes,) in as_planes(box.axes, native(input))]
        if len(planes) == 1 and np.may_share_memory(stacks, output):
            _planes_filtered(planes[0], stacks, box, cval, threads, strict)
            return
    for weights, result in zip(box.weights, output, strict=True):
        box_filtered(input, result, Box(weights, box.axes, box.modes, box.origins), cval, threads, strict)


def _is_worth_a_look(input: Array, box: Box) -> bool:
    """True if finding out whether weights can be taken apart costs little beside using them as they are."""
    shape = box.weights.shape
    columns = box.weights.size // shape[0]
    return input.size * box.weights.size >= _LEAST_WORK and input.size >= _LEAST_PIXELS * min(shape[0], columns)


def _factors(box: Box, input: Array, output: Array, cval: float) -> list[Array] | None:
    """Taps for each axis, if that computes the same in less time."""
    if box.weights.size < 2 * sum(box.weights.shape):
        return None
    if output.dtype.kind == "f":
        found = factors(box.weights, float(np.finfo(output.dtype).eps))
    else:
        found = whole_factors(box.weights)
    if found is None or not in_any_order(box.passes(found), input, output, cval):
        return None
    return found


def _sum_of_outer_products(input: Array, target: Array, box: Box, cval: float, threads: int) -> bool:
    """Run a filter of low rank as pairs of one-dimensional filters; False if its rank is too high for that."""
    most = int(box.weights.size / (_PASS + _TAP * sum(box.weights.shape)))
    if most < 2 or target.dtype.kind != "f" or not _is_worth_a_look(input, box):
        return False
    pairs = terms(box.weights, float(np.finfo(target.dtype).eps), most)
    if pairs is None or not in_any_order(box.passes(pairs[0]), input, target, cval):
        return False
    part = fresh(target.shape, target.dtype)
    for i, pair in enumerate(pairs):
        filtered(input, part if i else target, box.passes(pair), cval, threads)
        if i:
            np.add(target, part, out=target)
    return True


def _flat(input: Array, target: Array, box: Box, cval: float, threads: int, strict: bool) -> None:
    """A filter along two axes."""
    if box.axes == (input.ndim - 2, input.ndim - 1) and has_short_rows(input):
        box = Box(box.weights.T, box.axes[::-1], box.modes[::-1], box.origins[::-1])
    for planes, result in as_planes((box.axes[0], box.axes[1]), native(input), target):
        _planes_filtered(planes, result, box, cval, threads, strict)


def _planes_filtered(planes: Array, result: Array, box: Box, cval: float, threads: int, strict: bool) -> None:
    (down, along), (before, left) = box.modes, box.origins
    _core.filters.correlate(
        planes, np.ascontiguousarray(box.weights), result, row_mode=down, column_mode=along, cval=cval,
        origin=(before, left), threads=threads, exact=strict,
    )  # fmt: skip


def _deep(input: Array, output: Array, box: Box, cval: float, threads: int, strict: bool) -> Array:
    """A filter along three axes or more: one along two for each place of the others, summed up."""
    single = input.dtype == output.dtype == np.float32
    dtype = np.dtype(np.float32 if single else np.float64)
    total, part = fresh(input.shape, dtype), fresh(input.shape, dtype)
    total[...] = 0
    others = box.axes[:-2]
    moved_total, moved_part = (np.moveaxis(array, others, range(len(others))) for array in (total, part))
    sources = [
        _sources(input.shape[axis], size, mode, origin)
        for axis, size, mode, origin in zip(others, box.weights.shape, box.modes, box.origins, strict=False)
    ]
    for tap in product(*map(range, box.weights.shape[:-2])):
        plane = box.last_two(tap)
        if not plane.weights.any():
            continue
        _flat(input, part, plane, cval, threads, strict)
        runs = [_runs(source[at]) for source, at in zip(sources, tap, strict=True)]
        for places in product(*runs):
            to = tuple(slice(begin, end) for begin, end, _ in places)
            if any(first < 0 for _, _, first in places):
                moved_total[to] += cval * plane.weights.sum()
            else:
                read = tuple(slice(first, first + end - begin) for begin, end, first in places)
                moved_total[to] += moved_part[read]
    return total


def _runs(read: Array) -> list[tuple[int, int, int]]:
    """Stretches (begin, end, first) of places that read elements one after the other from `first` on, or all none."""
    beyond = read < 0
    breaks = np.flatnonzero((beyond[1:] != beyond[:-1]) | ~beyond[1:] & (np.diff(read) != 1)) + 1
    bounds = [0, *breaks.tolist(), len(read)]
    return [(begin, end, int(read[begin])) for begin, end in pairwise(bounds)]


def _sources(extent: int, size: int, mode: str, origin: int) -> Array:
    """Which element each tap reads at each place, -1 if it lies beyond the edges of mode constant: (size, extent)."""
    place: Array = np.arange(extent) + np.arange(size)[:, None] - size // 2 - origin
    if mode == "constant":
        place[(place < 0) | (place >= extent)] = -1
    elif mode == "nearest":
        place = np.clip(place, 0, extent - 1)
    elif mode == "wrap":
        place %= extent
    else:
        period = 2 * extent if mode == "reflect" else max(2 * extent - 2, 1)
        place %= period
        place = np.minimum(place, period - place - (mode == "reflect"))
    return place

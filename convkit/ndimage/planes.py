"""Arrays of any rank as stacks of planes, which is what the core filters."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod

import numpy as np

from convkit.ndimage.arguments import Array

__all__ = ["FEW_BYTES", "are_pixels", "as_lines", "as_planes", "has_short_rows", "native"]

FEW_BYTES = 192
"""Rows that are shorter are not worth their while: lines across them are read with a stride instead."""

_PIXEL_BYTES = 8


def native(array: Array) -> Array:
    """The array as the core can read it: in this machine's byte order, and aligned."""
    if array.dtype.isnative and array.flags.aligned:
        return array
    return array.astype(array.dtype.newbyteorder("="), order="C")


def are_pixels(array: Array, axis: int) -> bool:
    """True if what follows an axis is as small as the colours of a pixel: one of them is read without the others."""
    return axis < array.ndim - 1 and prod(array.shape[axis + 1 :]) * array.itemsize <= _PIXEL_BYTES


def has_short_rows(array: Array) -> bool:
    """True if the last axis is short, and shorter than the one before."""
    return array.ndim > 1 and array.shape[-1] * array.itemsize < FEW_BYTES and array.shape[-1] < array.shape[-2]


def as_lines(array: Array, axis: int) -> Array:
    """A view (before, axis, after) of a C-contiguous array."""
    shape = array.shape
    return array.reshape(prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))


def as_planes(axes: tuple[int, int], *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Views of arrays of one shape as stacks (n, height, width) of planes along two axes.

    One view of each covers all if the other axes can be seen as one in every array; else there are several.
    """
    rank = arrays[0].ndim
    if rank == 2 and axes == (0, 1):
        yield tuple(array[None] for array in arrays)
        return
    moved = [np.moveaxis(array, axes, (rank - 2, rank - 1)) for array in arrays]
    *_, height, width = moved[0].shape
    begin = rank - 2
    while begin > 0 and all(_are_one(array, begin - 1, rank - 2) for array in moved):
        begin -= 1
    for place in np.ndindex(moved[0].shape[:begin]):
        # A view, as these axes can be seen as one.
        yield tuple(array[place].reshape(-1, height, width) for array in moved)


def _are_one(array: Array, begin: int, end: int) -> bool:
    """True if neighbouring axes can be seen as one."""
    long = [axis for axis in range(begin, end) if array.shape[axis] > 1]
    return all(array.strides[outer] == array.shape[inner] * array.strides[inner] for outer, inner in pairwise(long))

"""Filters that are outer products, or sums of a few: what dense weights come to as one-dimensional filters."""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

from convkit.ndimage.arguments import ROUNDINGS

__all__ = ["factors", "terms", "whole_factors"]

Taps = NDArray[np.float64]


def factors(weights: Taps, epsilon: float) -> list[Taps] | None:
    """Taps for each axis whose outer product the weights are, of any rank; None if they are none.

    Parameters
    ----------
    weights : ndarray of float64
    epsilon : float
        Rounding error of the numbers that will be filtered: singular values below four times as much of the largest
        count as none.
    """
    if weights.ndim == 1:
        return [weights]
    found = terms(weights.reshape(len(weights), -1), epsilon, 1)
    if found is None:
        return None
    ((taps, rest),) = found
    others = factors(rest.reshape(weights.shape[1:]), epsilon)
    return None if others is None else [taps, *others]


def terms(weights: Taps, epsilon: float, most: int) -> list[tuple[Taps, Taps]] | None:
    """Pairs of taps (down, along) whose outer products sum up to the weights; None if it takes more than `most`."""
    if not np.isfinite(weights).all():
        return None
    left, values, right = np.linalg.svd(weights, full_matrices=False)
    rank = int(np.count_nonzero(values > ROUNDINGS * epsilon * values[0]))
    if rank > most:
        return None
    return [
        (np.ascontiguousarray(left[:, i] * np.sqrt(values[i])), np.ascontiguousarray(right[i] * np.sqrt(values[i])))
        for i in range(max(rank, 1))
    ]


def whole_factors(weights: Taps) -> list[Taps] | None:
    """Whole numbers for each axis whose outer product the weights are, exactly; None if there are none."""
    if not np.array_equal(weights, np.rint(weights)) or np.abs(weights).max() >= 2**31:
        return None
    found = []
    rest = weights.astype(np.int64)
    while rest.ndim > 1:
        flat = rest.reshape(len(rest), -1)
        filled = np.flatnonzero(flat.any(axis=1))
        if not len(filled):
            return None
        line = flat[filled[0]] // gcd(*map(int, flat[filled[0]]))
        column = flat[:, np.flatnonzero(line)[0]] // line[np.flatnonzero(line)[0]]
        if not np.array_equal(np.multiply.outer(column, line), flat):
            return None
        found.append(column.astype(np.float64))
        rest = line.reshape(rest.shape[1:])
    return [*found, rest.astype(np.float64)]

"""Medians of a few samples and how far they can be trusted.

The module `statistics` would do, but its import takes longer than a first call should.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence


def median(values: Iterable[float]) -> float:
    """The middle of the values, or the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        raise ValueError("there is no median of nothing")
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """An interval of order statistics that holds the median with about 95% probability; all of it for few samples.

    Distribution-free (binomial), so that the long tail that interruptions give to times does not matter.
    """
    n = len(ordered)
    if n < 8:
        return ordered[0], ordered[-1]
    reach = 0.98 * math.sqrt(n)
    return ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach) - 1)]


def paired(
    own: Mapping[int, float], other: Mapping[int, float], rounds: Collection[int]
) -> tuple[float, float, float] | None:
    """The median ratio of times taken in the same rounds, and the interval of it; None without rounds."""
    ratios = sorted(own[number] / other[number] for number in rounds)
    return (median(ratios), *median_interval(ratios)) if ratios else None

"""Learning-rate schedules: functions from the number of a step to the rate of that step."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Schedule", "constant", "cosine", "exponential", "staircase", "warmup"]

Schedule = Callable[[int], float]


def constant(rate: float) -> Schedule:
    """Always the same."""
    return lambda step: rate


def staircase(rate: float, every: int, factor: float = 0.1) -> Schedule:
    """Times `factor` after every so many steps."""
    return lambda step: rate * factor ** (step // every)


def exponential(rate: float, steps: int, last: float) -> Schedule:
    """From `rate` to `last` in `steps` steps, by the same factor each time."""
    return lambda step: rate * (last / rate) ** min(step / max(steps, 1), 1.0)


def cosine(rate: float, steps: int, last: float = 0.0) -> Schedule:
    """Half a cosine from `rate` down to `last` (Loshchilov and Hutter, arXiv 1608.03983)."""
    return lambda step: last + (rate - last) * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))


def warmup(steps: int, after: Schedule) -> Schedule:
    """Rise in a line to what `after` says, for the first steps (Goyal et al., arXiv 1706.02677)."""
    return lambda step: after(step) * min((step + 1) / max(steps, 1), 1.0)

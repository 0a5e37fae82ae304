"""Samples within samples: what is being timed, and how something inside it tells that the time does not count."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any


class Sample:
    """A run of an alternative that is being timed."""

    __slots__ = ("alternative", "counts", "outer", "owner")

    def __init__(self, owner: Any, alternative: str, outer: Sample | None) -> None:
        self.owner = owner
        self.alternative = alternative
        self.outer = outer
        self.counts = True


current_sample: ContextVar[Sample | None] = ContextVar("convkit_best_of", default=None)


def discount() -> None:
    """Tell the samples that are running here that they do not count: something in them is still being tuned."""
    sample = current_sample.get()
    while sample is not None and sample.counts:
        sample.counts = False
        sample = sample.outer

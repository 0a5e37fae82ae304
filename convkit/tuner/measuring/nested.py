"""Samples that do not count: what is being timed, and how something inside it tells that it is still being tuned."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any


class Sample:
    """A run of an alternative that is being timed."""

    __slots__ = ("alternative", "disturbed", "outer", "owner")

    def __init__(self, owner: Any, alternative: str, outer: Sample | None) -> None:
        self.owner = owner
        self.alternative = alternative
        self.outer = outer
        self.disturbed = False


current_sample: ContextVar[Sample | None] = ContextVar("convkit_best_of", default=None)


def disturb() -> None:
    """Tell the samples that are running here that they do not count."""
    sample = current_sample.get()
    while sample is not None and not sample.disturbed:
        sample.disturbed = True
        sample = sample.outer

"""The fastest of any callables, found out on real calls. Knows nothing of convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.lazy import attributes

if TYPE_CHECKING:
    from convkit.best_of.selector import BestOf, Pipeline

__all__ = ["BestOf", "Pipeline"]

if not TYPE_CHECKING:
    __getattr__ = attributes(__name__, dict.fromkeys(__all__, "selector"))

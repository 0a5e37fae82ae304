"""A convolution and its gradients as one pipeline, for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.lazy import attributes

if TYPE_CHECKING:
    from convkit.training.passes import TrainingPass
    from convkit.training.pipeline import PIPELINES, TrainingConv2d

__all__ = ["PIPELINES", "TrainingConv2d", "TrainingPass"]

if not TYPE_CHECKING:
    __getattr__ = attributes(__name__, dict.fromkeys(__all__, "pipeline"))

"""A convolution and its gradients as one pipeline, for training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convkit.training.passes import TrainingPass
    from convkit.training.pipeline import PIPELINES, TrainingConv2d

__all__ = ["PIPELINES", "TrainingConv2d", "TrainingPass"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from convkit.tuner.process import planning

    # A fork while another thread imports would leave the child waiting for that thread.
    with planning:
        from convkit.training import pipeline

        return getattr(pipeline, name)

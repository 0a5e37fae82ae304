"""A convolution and its gradients as one pipeline, for training."""

from convkit.training.pipeline import PIPELINES, TrainingConv2d

__all__ = ["PIPELINES", "TrainingConv2d"]

"""Gradients of `convkit.conv2d`, with the names and argument order of torch.nn.grad."""

from __future__ import annotations

from convkit._core import conv2d_input

__all__ = ["conv2d_input"]

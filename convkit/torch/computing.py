"""Convolutions and gradients of tensors on the CPU, by convkit, without autograd.

They raise what convkit raises; results have the strides of PyTorch's own.
"""

from __future__ import annotations

from typing import Any

import torch

from convkit import _core, grad
from convkit.torch.memory import FLOATS, array_of, is_channels_last, tensor_of
from convkit.torch.packings import packing_of
from convkit.torch.recipe import Recipe

__all__ = ["REFUSED", "convolved", "input_gradient", "known", "weight_gradient"]

REFUSED = (TypeError, ValueError)
"""What convkit raises of operands that it does not take."""

_threads = torch.get_num_threads


def known(x: Any, other: Any) -> bool:
    """Whether two operands are of a kind that convkit computes with."""
    return x.dtype in FLOATS and other.dtype is x.dtype and 3 <= x.dim() <= 4 and other.dim() == x.dim()


def convolved(x: Any, w: Any, beside: tuple[Any, ...], residual: Any, recipe: Recipe) -> Any:
    """A convolution and the steps of its recipe.

    Parameters
    ----------
    x, w : Tensor
    beside : tuple
        The bias or None; with a norm among the steps also its mean, variance, gamma and beta.
    residual : Tensor or None
    recipe : Recipe
    """
    threads = _threads()
    packing = packing_of(w, beside, recipe, threads)
    if packing is None:
        y = _once(x, w, beside[0], recipe, threads)
        return recipe.after(y, beside[1:], residual) if recipe.steps else y
    if packing.last and not is_channels_last(x):
        x = x.contiguous(memory_format=torch.channels_last)
    y = packing.tensor(x, packing.layer(array_of(x), None, array_of(residual) if packing.adds else None))
    if packing.done == len(recipe.steps):
        return y
    return recipe.after(y, beside[1:], residual, packing.done)


def _once(x: Any, w: Any, bias: Any, recipe: Recipe, threads: int) -> Any:
    """A convolution with weights that are not worth packing."""
    last = is_channels_last(x) or is_channels_last(w)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    call = _core.conv_transpose2d if recipe.transposed else _core.conv2d
    biases = None if bias is None else array_of(bias)
    y = call(array_of(x), array_of(w), biases, **recipe.keywords(), num_threads=threads)
    return tensor_of(y, recipe.dims, last)


def input_gradient(dy: Any, w: Any, size: Any, recipe: Recipe) -> Any:
    """Gradient of a convolution's input of this size."""
    last = is_channels_last(dy) or is_channels_last(w)
    if last:
        dy = dy.contiguous(memory_format=torch.channels_last)
    dx = grad.conv2d_input(_four(size), array_of(w), array_of(dy), **recipe.keywords(), num_threads=_threads())
    return tensor_of(dx, recipe.dims, last)


def weight_gradient(x: Any, dy: Any, size: Any, recipe: Recipe) -> Any:
    """Gradient of weights of this size; always contiguous."""
    dw = grad.conv2d_weight(array_of(x), _four(size), array_of(dy), **recipe.keywords(), num_threads=_threads())
    return tensor_of(dw, recipe.dims, False)


def _four(size: Any) -> tuple[int, ...]:
    return tuple(size) if len(size) == 4 else (size[0], size[1], 1, size[2])

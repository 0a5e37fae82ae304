"""PyTorch's convolution modules with another way to compute: what `optimize` turns a model's own modules into.

An object keeps its parameters, hooks, names and everything else that it has; only its class becomes a subclass of what
it was.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from convkit.torch.ops import CONV
from convkit.torch.recipe import Recipe

__all__ = ["SWAPPED", "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "convolution", "recipe_of_module"]

Options = tuple[tuple[str, str], ...]


@lru_cache(maxsize=4096)
def _recipe(
    stride: tuple[int, ...],
    padding: Any,
    dilation: tuple[int, ...],
    groups: int,
    kernel: tuple[int, ...],
    options: Options,
) -> Recipe:
    return Recipe(stride, both_sides(padding, dilation, kernel), dilation, groups=groups, options=options)


@lru_cache(maxsize=4096)
def _transposed(
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    extra: tuple[int, ...],
    options: Options,
) -> Recipe:
    sides = tuple(n for side in padding for n in (side, side))
    return Recipe(stride, sides, dilation, True, extra, groups, options=options)


def both_sides(padding: Any, dilation: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Padding before and after along each dimension, of numbers or of PyTorch's words."""
    if padding == "valid":
        return (0,) * (2 * len(kernel))
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(n for total in totals for n in (total // 2, total - total // 2))
    return tuple(n for side in padding for n in (side, side))


def recipe_of_module(module: Any) -> Recipe:
    """The recipe of a convolution module as it is now; padding that is no zeros is left out."""
    options = module.__dict__.get("_convkit_options", ())
    if module.transposed:
        return _transposed(
            module.stride, module.padding, module.dilation, module.groups, module.output_padding, options
        )
    padding = module.padding if module.padding_mode == "zeros" else "valid"
    return _recipe(module.stride, padding, module.dilation, module.groups, module.kernel_size, options)


def convolution(x: Any, w: Any, bias: Any, text: str) -> Any:
    """The registered operator, on images with or without a batch dimension."""
    if x.dim() == w.dim() - 1:
        return CONV(x.unsqueeze(0), w, bias, text).squeeze(0)
    return CONV(x, w, bias, text)


# Another one's torch.fx takes it as it is.
torch.fx.wrap("convolution")


class _Convolution:
    def _conv_forward(self: Any, input: Any, weight: Any, bias: Any) -> Any:
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return convolution(input, weight, bias, recipe_of_module(self).text)


class _Transposed:
    def forward(self: Any, input: Any, output_size: Any = None) -> Any:
        if output_size is None:
            return convolution(input, self.weight, self.bias, recipe_of_module(self).text)
        extra = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, len(self.kernel_size), self.dilation
        )
        options = self.__dict__.get("_convkit_options", ())
        recipe = _transposed(self.stride, self.padding, self.dilation, self.groups, tuple(extra), options)
        return convolution(input, self.weight, self.bias, recipe.text)


class Conv1d(_Convolution, nn.Conv1d):  # type: ignore[misc]
    """`torch.nn.Conv1d`, computed by convkit."""


class Conv2d(_Convolution, nn.Conv2d):  # type: ignore[misc]
    """`torch.nn.Conv2d`, computed by convkit."""


class ConvTranspose1d(_Transposed, nn.ConvTranspose1d):  # type: ignore[misc]
    """`torch.nn.ConvTranspose1d`, computed by convkit."""


class ConvTranspose2d(_Transposed, nn.ConvTranspose2d):  # type: ignore[misc]
    """`torch.nn.ConvTranspose2d`, computed by convkit."""


SWAPPED: dict[type, type] = {
    nn.Conv1d: Conv1d,
    nn.Conv2d: Conv2d,
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
}
"""PyTorch's classes, and what objects of exactly these become."""

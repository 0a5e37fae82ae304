"""PyTorch's convolution modules with another way to compute: what `optimize` turns a model's own modules into.

An object keeps its parameters, hooks, names and everything else that it has; only its class becomes a subclass of what
it was.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from convkit.torch.ops import CONV
from convkit.torch.recipe import Recipe, constant

__all__ = ["SWAPPED", "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "convolution", "no_script", "text_of"]

Options = tuple[tuple[str, str], ...]


@constant
def _text(
    stride: tuple[int, ...],
    padding: Any,
    dilation: tuple[int, ...],
    groups: int,
    kernel: tuple[int, ...],
    options: Options,
) -> str:
    return Recipe(stride, both_sides(padding, dilation, kernel), dilation, groups=groups, options=options).text


@constant
def _transposed_text(
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    extra: tuple[int, ...],
    options: Options,
) -> str:
    sides = tuple(n for side in padding for n in (side, side))
    return Recipe(stride, sides, dilation, True, extra, groups, options=options).text


def both_sides(padding: Any, dilation: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Padding before and after along each dimension, of numbers or of PyTorch's words."""
    if padding == "valid":
        return (0,) * (2 * len(kernel))
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(n for total in totals for n in (total // 2, total - total // 2))
    return tuple(n for side in padding for n in (side, side))


def text_of(module: Any) -> str:
    """The recipe's text of a convolution module as it is now; padding that is no zeros is left out."""
    m, options = module, module.__dict__.get("_convkit_options", ())
    text: str
    if m.transposed:
        text = _transposed_text(m.stride, m.padding, m.dilation, m.groups, m.output_padding, options)
    else:
        padding = m.padding if m.padding_mode == "zeros" else "valid"
        text = _text(m.stride, padding, m.dilation, m.groups, m.kernel_size, options)
    return text


def convolution(x: Any, w: Any, bias: Any, text: str) -> Any:
    """The registered operator, on images with or without a batch dimension."""
    if x.dim() == w.dim() - 1:
        return CONV(x.unsqueeze(0), w, bias, text).squeeze(0)
    return CONV(x, w, bias, text)


# Another one's torch.fx takes it as it is.
torch.fx.wrap("convolution")


def no_script(module: Any) -> Any:
    """What `torch.jit.script` asks before it compiles a module."""
    raise TypeError(
        "torch.jit.script cannot compile an optimized model, whose convolutions choose their way when they are called: "
        "use torch.jit.trace or torch.export, or script the model that was not optimized"
    )


class _Convolution:
    __prepare_scriptable__ = no_script

    def _conv_forward(self: Any, input: Any, weight: Any, bias: Any) -> Any:
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return convolution(input, weight, bias, text_of(self))


class _Transposed:
    __prepare_scriptable__ = no_script

    def forward(self: Any, input: Any, output_size: Any = None) -> Any:
        if output_size is None:
            return convolution(input, self.weight, self.bias, text_of(self))
        extra = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, len(self.kernel_size), self.dilation
        )
        options = self.__dict__.get("_convkit_options", ())
        text = _transposed_text(self.stride, self.padding, self.dilation, self.groups, tuple(extra), options)
        return convolution(input, self.weight, self.bias, text)


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

"""A chain of a model's own modules as one call, as long as nobody watches what is between them."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from convkit.torch.chains import activation_of
from convkit.torch.modules import SWAPPED, text_of
from convkit.torch.ops import FUSED
from convkit.torch.recipe import ACTIVATIONS, Recipe, Step, constant, recipe_of

__all__ = ["NORMS", "fused", "is_unwatched", "resolved", "spelled"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_OURS = frozenset(SWAPPED.values())
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_non_full_backward_hook",
)  # fmt: skip


def is_unwatched(module: Any) -> bool:
    """Whether calling a module does no more than its class says: it has no hooks and no forward of its own."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return False
    return "forward" not in module.__dict__


def spelled(steps: list[Step], members: list[Any], margins: tuple[int, ...]) -> str:
    """A chain as a text that `fused` reads: a step of a module is told by the module itself."""
    words = [f"pad={','.join(map(str, margins))}"] if margins else []
    for (name, numbers), member in zip(steps, members, strict=True):
        if member is not None:
            words.append("norm" if name == "norm" else "module")
        else:
            words.append(name + ("=" + ",".join("" if n is None else repr(n) for n in numbers) if numbers else ""))
    return " ".join(words)


@constant
def _read(text: str) -> tuple[tuple[int, ...], tuple[Step, ...]]:
    margins: tuple[int, ...] = ()
    steps: list[Step] = []
    for word in text.split():
        name, _, numbers = word.partition("=")
        if name == "pad":
            margins = tuple(map(int, numbers.split(",")))
        else:
            steps.append((name, tuple(float(n) if n else None for n in numbers.split(",")) if numbers else ()))
    return margins, tuple(steps)


@constant
def _whole(convolution: str, margins: tuple[int, ...], steps: tuple[Step, ...]) -> str:
    """The text of a convolution's recipe with more padding and more steps."""
    recipe = recipe_of(convolution)
    padding = tuple(a + b for a, b in zip(recipe.padding, margins, strict=True)) if margins else recipe.padding
    return Recipe(
        recipe.stride, padding, recipe.dilation, recipe.transposed, recipe.output_padding, recipe.groups, steps,
        recipe.options,
    ).text  # fmt: skip


def fused(x: Any, residual: Any, text: str, modules: tuple[Any, ...]) -> Any:
    """A chain's value.

    Parameters
    ----------
    x, residual : Tensor
        Residual is None where the chain has none.
    text : str
        What `spelled` wrote.
    modules : tuple of Module
        The convolution, and one for each step that is a module's.
    """
    margins, steps = _read(text)
    convolution = modules[0]
    found = _steps(convolution, modules, steps)
    if found is None or x.dim() != convolution.weight.dim():
        return _one_by_one(x, residual, margins, steps, modules)
    whole, norm = found
    recipe = _whole(text_of(convolution), margins, whole)
    return FUSED(x, convolution.weight, convolution.bias, *norm, residual, recipe)


def resolved(text: str, modules: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...], Recipe] | None:
    """The weight of a chain as it is now, what `convkit.torch.packings` takes beside it, and the recipe.

    None if the chain is to be computed step by step.
    """
    margins, steps = _read(text)
    found = _steps(modules[0], modules, steps)
    if found is None:
        return None
    whole, norm = found
    convolution = modules[0]
    beside = (convolution.bias,) if norm is _NO_NORM else (convolution.bias, *norm)
    return convolution.weight, beside, recipe_of(_whole(text_of(convolution), margins, whole))


_NO_NORM = (None, None, None, None)


def _steps(convolution: Any, modules: tuple[Any, ...], steps: tuple[Step, ...]) -> Any:
    """The steps with what the modules say now; None if one of them is not what it was."""
    if type(convolution) not in _OURS or not is_unwatched(convolution):
        return None
    if not convolution.transposed and convolution.padding_mode != "zeros":
        return None
    members, norm = iter(modules[1:]), _NO_NORM
    whole: list[Step] = []
    for step in steps:
        if step[0] == "norm":
            member = next(members)
            if type(member) not in NORMS or member.training or member.running_mean is None or not is_unwatched(member):
                return None
            norm = (member.running_mean, member.running_var, member.weight, member.bias)
            whole.append(("norm", (member.eps,)))
        elif step[0] == "module":
            member = next(members)
            told = activation_of(member)
            if told is None or not is_unwatched(member):
                return None
            whole.append(told)
        else:
            whole.append(step)
    return tuple(whole), norm


def _one_by_one(
    x: Any, residual: Any, margins: tuple[int, ...], steps: tuple[Step, ...], modules: tuple[Any, ...]
) -> Any:
    """What the model's author wrote."""
    if margins:
        x = F.pad(x, [n for i in reversed(range(len(margins) // 2)) for n in margins[2 * i : 2 * i + 2]])
    convolution, *members = modules
    y, rest = convolution(x), iter(members)
    for name, numbers in steps:
        if name in ("norm", "module"):
            y = next(rest)(y)
        elif name == "add":
            y = operator.add(y, residual)
        elif name == "scale":
            y = y * numbers[0]
        else:
            y = ACTIVATIONS[name](y, *numbers)
    return y


torch.fx.wrap("fused")

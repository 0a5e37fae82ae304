"""What a convolution does beside reading its tensors: geometry and epilogue, as one short text.

Registered operators take the text: PyTorch's dispatcher hands a string over in a fraction of the time of five lists,
and a graph that was exported or saved says in words what it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

__all__ = ["ACTIVATIONS", "Recipe", "constant", "recipe_of"]

# Texts that programs make: a few for each layer of a model. More than this many are taken for an accident.
_MOST_KEPT = 100_000

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": F.leaky_relu,
    "clip": torch.clamp,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
}
"""Activations by their names in convkit, with PyTorch's function for each; numbers in a step follow the tensor."""

Step = tuple[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Recipe:
    """Geometry and epilogue of a convolution with one or two spatial dimensions.

    Attributes
    ----------
    stride, dilation, output_padding : tuple of int
        One for each spatial dimension.
    padding : tuple of int
        Two for each spatial dimension: before, after.
    transposed : bool
    groups : int
    steps : tuple of (str, numbers)
        What follows the convolution, in order: ``norm`` (batch norm with its epsilon), ``scale``, ``add`` (the
        residual) and activations.
    options : tuple of (str, str)
        ``accuracy`` and ``memory``, as `convkit.Conv2d` takes them.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    steps: tuple[Step, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = ["transposed"] if self.transposed else []
        for name in ("stride", "padding", "dilation", "output_padding"):
            numbers = getattr(self, name)
            if numbers:
                words.append(f"{name}={','.join(map(str, numbers))}")
        words.append(f"groups={self.groups}")
        words += [f"{name}={value}" for name, value in self.options]
        words += ["then"] if self.steps else []
        words += [
            name + ("=" + ",".join("" if n is None else repr(n) for n in numbers) if numbers else "")
            for name, numbers in self.steps
        ]
        object.__setattr__(self, "text", " ".join(words))

    @property
    def dims(self) -> int:
        """Number of spatial dimensions."""
        return len(self.stride)

    @property
    def geometry(self) -> Recipe:
        """The convolution alone."""
        return replace(self, steps=()) if self.steps else self

    def mirrored(self, y: Any) -> tuple[Recipe, Any]:
        """The convolution that this transposed one is the gradient of, and what of `y` it reads.

        Where output_padding is a stride or more, that convolution would have more outputs than the input has pixels: it
        gets less padding at the end, or less of `y` where there was none.
        """
        padding = list(self.padding)
        for i, extra in enumerate(self.output_padding):
            after = padding[2 * i + 1] - extra // self.stride[i] * self.stride[i]
            padding[2 * i + 1] = max(after, 0)
            y = y.narrow(2 + i, 0, y.shape[2 + i] + after) if after < 0 else y
        return replace(self, transposed=False, output_padding=(), steps=(), padding=tuple(padding)), y

    # --- for convkit -------------------------------------------------------------------------------------------------

    def pairs(self, numbers: Sequence[int], neutral: int) -> tuple[int, ...]:
        """Numbers for height and width, where the height of a signal is 1."""
        return tuple(numbers) if self.dims == 2 else (neutral, *numbers)

    def sides(self) -> tuple[tuple[int, int], ...]:
        """Padding as convkit takes it."""
        p = self.padding if self.dims == 2 else (0, 0, *self.padding)
        return (p[0], p[1]), (p[2], p[3])

    def keywords(self) -> dict[str, Any]:
        """Geometry and accuracy as convkit's calls take them."""
        found: dict[str, Any] = {
            "stride": self.pairs(self.stride, 1),
            "padding": self.sides(),
            "dilation": self.pairs(self.dilation, 1),
            "groups": self.groups,
        }
        if self.transposed:
            found["output_padding"] = self.pairs(self.output_padding or (0,) * self.dims, 0)
        for name, value in self.options:
            if name == "accuracy":
                found[name] = value if value.isalpha() else float(value)
        return found

    def kept(self) -> dict[str, Any]:
        """What a layer keeps, as convkit's layers take it: weights are the tensor's own, packings by the option."""
        return {"copy": False, "memory": dict(self.options).get("memory", "fast")}

    # --- for PyTorch -------------------------------------------------------------------------------------------------

    def symmetric(self) -> tuple[int, ...] | None:
        """Padding as PyTorch's convolutions take it; None where two sides differ or one is negative."""
        before, after = self.padding[::2], self.padding[1::2]
        return before if before == after and min(before, default=0) >= 0 else None

    def margins(self) -> list[int]:
        """Padding as `torch.nn.functional.pad` takes it."""
        found: list[int] = []
        for i in reversed(range(self.dims)):
            found += self.padding[2 * i : 2 * i + 2]
        return found

    def in_torch(self, x: Any, w: Any, bias: Any = None) -> Any:
        """PyTorch's own convolution, without the steps."""
        padding = self.symmetric()
        if self.transposed:
            call = torch.conv_transpose2d if self.dims == 2 else torch.conv_transpose1d
            extra = self.output_padding or (0,) * self.dims
            return call(x, w, bias, self.stride, padding, extra, self.groups, self.dilation)
        if padding is None:
            x, padding = F.pad(x, self.margins()), (0,) * self.dims
        call = torch.conv2d if self.dims == 2 else torch.conv1d
        return call(x, w, bias, self.stride, padding, self.dilation, self.groups)

    def after(self, y: Any, norm: Sequence[Any], residual: Any, first: int = 0) -> Any:
        """The steps from `first` on as PyTorch's own operations; `norm` is mean, variance, gamma and beta."""
        for name, numbers in self.steps[first:]:
            if name == "norm":
                y = F.batch_norm(y, *norm, training=False, momentum=0.0, eps=numbers[0])
            elif name == "scale":
                y = y * numbers[0]
            elif name == "add":
                y = y + residual
            else:
                y = ACTIVATIONS[name](y, *numbers)
        return y

    def size(self, x: Sequence[Any], w: Sequence[Any]) -> list[Any]:
        """Shape of the result; sizes may be symbolic."""
        spatial = []
        for i in range(self.dims):
            reach = self.dilation[i] * (w[2 + i] - 1) + 1
            before, after = self.padding[2 * i : 2 * i + 2]
            if self.transposed:
                extra = self.output_padding[i] if self.output_padding else 0
                spatial.append((x[2 + i] - 1) * self.stride[i] - before - after + reach + extra)
            else:
                spatial.append((x[2 + i] + before + after - reach) // self.stride[i] + 1)
        return [x[0], w[1] * self.groups if self.transposed else w[0], *spatial]

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """The recipe of a text.

        Raises
        ------
        ValueError
            If the text is none.
        """
        geometry, _, steps = text.partition(" then ")
        found: dict[str, Any] = {}
        options = []
        try:
            for word in geometry.split():
                name, _, value = word.partition("=")
                if name == "transposed":
                    found[name] = True
                elif name == "groups":
                    found[name] = int(value)
                elif name in ("accuracy", "memory"):
                    options.append((name, value))
                else:
                    found[name] = tuple(map(int, value.split(",")))
            return cls(**found, steps=tuple(map(_step, steps.split())), options=tuple(options))
        except (TypeError, ValueError) as error:
            raise ValueError(f"recipe is {text!r}, which convkit.torch did not write: {error}") from None


def _step(word: str) -> Step:
    name, _, numbers = word.partition("=")
    if name not in ("norm", "scale", "add", *ACTIVATIONS):
        raise ValueError(f"there is no step {name!r}")
    return name, tuple(float(n) if n else None for n in numbers.split(",")) if numbers else ()


def constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers and texts, computed once for each; Dynamo asks it and does not look inside."""
    remembered = lru_cache(maxsize=65536)(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        return remembered(*arguments)

    call.__dict__["_dynamo_marked_constant"] = True  # torch.compiler.assume_constant_result would import all of Dynamo
    return call


_recipes: dict[str, Recipe] = {}


def recipe_of(text: str) -> Recipe:
    """The recipe of a text, parsed once."""
    recipe = _recipes.get(text)
    if recipe is None:
        if len(_recipes) >= _MOST_KEPT:
            _recipes.clear()
        recipe = _recipes[text] = Recipe.parse(text)
    return recipe

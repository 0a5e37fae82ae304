"""Every convolution of PyTorch's on the CPU, whoever calls it: for programs whose models one never holds.

PyTorch's operator ``aten::convolution`` gets another kernel for the CPU, and so does its gradient. The registration is
the process's; whether it computes is a matter of the calling context.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch

from convkit.torch.computing import REFUSED, convolved, input_gradient, known, weight_gradient
from convkit.torch.memory import is_channels_last
from convkit.torch.recipe import Recipe
from convkit.tuner.process import planning

__all__ = ["NAMES", "disable", "enable", "enabled"]

NAMES = ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d")
"""What can be included."""

_NOTHING: frozenset[str] = frozenset()
# Changed under the planning lock, for which a fork waits: a child has all kernels registered or none of them.
_library: Any = None
_pytorch_s: dict[str, Any] = {}
_holders = 0
_everywhere: frozenset[str] = _NOTHING
_here: ContextVar[frozenset[str] | None] = ContextVar("convkit_torch_enabled", default=None)


def enable(include: Collection[str] = NAMES) -> None:
    """Let convkit compute PyTorch's convolutions on the CPU in the whole process, until `disable`.

    Models need not be changed, or known. Nothing is fused, so that `optimize` is faster where a model is at hand.
    TorchScript's frozen graphs and those of ``torch.compile`` with freezing have convolutions of their own, which this
    does not reach.

    Parameters
    ----------
    include : collection of {"conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"}
        Which convolutions; their gradients are included.

    Raises
    ------
    ValueError
        If there is no such name.
    """
    global _everywhere
    wanted = _checked(include)
    with planning:
        if not _everywhere:
            _register()
        _everywhere = wanted


def disable() -> None:
    """Undo `enable`."""
    global _everywhere
    with planning:
        if _everywhere:
            _everywhere = _NOTHING
            _release()


@contextmanager
def enabled(include: Collection[str] = NAMES) -> Iterator[None]:
    """As `enable`, for a block of code and the thread or task that runs it.

    Parameters
    ----------
    include : collection of str
        As in `enable`; empty: none, whatever is enabled around the block.

    Yields
    ------
    None
    """
    wanted = _checked(include) if include else _NOTHING
    with planning:
        _register()
    token = _here.set(wanted)
    try:
        yield
    finally:
        _here.reset(token)
        with planning:
            _release()


def _checked(include: Collection[str]) -> frozenset[str]:
    names = frozenset((include,) if isinstance(include, str) else include)
    if not names or names - set(NAMES):
        raise ValueError(f"include must be some of {', '.join(NAMES)}, got {include!r}")
    return names


def _register() -> None:
    global _library, _holders
    if not _holders:
        _unregister()  # what is left if Ctrl-C came before the end, last time: PyTorch's kernels are found without it
        _library = torch.library.Library("aten", "IMPL")
        kernels: dict[str, Any] = {"convolution": _convolution}
        if hasattr(torch.library, "get_kernel"):  # without it PyTorch's own gradient would be out of reach
            kernels["convolution_backward"] = _convolution_backward
            for name in kernels:
                _pytorch_s[name] = torch.library.get_kernel(f"aten::{name}", "CPU")
        for name, kernel in kernels.items():
            _library.impl(name, kernel, "CPU", with_keyset=True)
    _holders += 1


def _release() -> None:
    global _holders
    _holders -= 1
    if not _holders:
        _unregister()


def _unregister() -> None:
    global _library
    if _library is not None:
        _library._destroy()
    _library = None


@lru_cache(maxsize=4096)
def _recipe(stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int, dims: int) -> Recipe:
    def each(numbers: tuple[int, ...]) -> tuple[int, ...]:
        return numbers * dims if len(numbers) == 1 else numbers

    sides = tuple(n for side in each(padding) for n in (side, side))
    return Recipe(each(stride), sides, each(dilation), transposed, each(extra) if transposed else (), groups)


def _taken(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int) -> Any:
    """The recipe of a call that convkit computes; None if PyTorch does."""
    dims = w.dim() - 2
    if dims not in (1, 2) or x.dim() != w.dim():
        return None
    here = _here.get()
    names = _everywhere if here is None else here
    if NAMES[dims - 1 + 2 * transposed] not in names or not known(x, w) or not x.numel() or not w.numel():
        return None
    # In double precision PyTorch's results are contiguous whatever the operands are, and graphs count on it.
    if x.dtype is torch.float64 and (is_channels_last(x) or is_channels_last(w)):
        return None
    return _recipe(tuple(stride), tuple(padding), tuple(dilation), transposed, tuple(extra), groups, dims)


def _convolution(keys: Any, x: Any, w: Any, bias: Any, *geometry: Any) -> Any:
    recipe = _taken(x, w, *geometry)
    if recipe is not None:
        try:
            return convolved(x, w, (bias,), None, recipe)
        except REFUSED:
            pass  # PyTorch says in its own words what is wrong
    if "convolution" in _pytorch_s:
        return _pytorch_s["convolution"].call_boxed(keys, x, w, bias, *geometry)
    return torch.ops.aten._convolution.default(x, w, bias, *geometry, False, False, True, True)


def _convolution_backward(keys: Any, dy: Any, x: Any, w: Any, bias_sizes: Any, *given: Any) -> Any:
    *geometry, wanted = given
    recipe = _taken(x, w, *geometry)
    if recipe is not None and dy.dtype is x.dtype:
        try:
            return _gradients(dy, x, w, recipe, *wanted)
        except REFUSED:
            pass
    return _pytorch_s["convolution_backward"].call_boxed(keys, dy, x, w, bias_sizes, *given)


def _gradients(dy: Any, x: Any, w: Any, recipe: Recipe, for_x: bool, for_w: bool, for_bias: bool) -> Any:
    dx = dw = None
    if recipe.transposed:
        mirrored, read = recipe.mirrored(dy)
        dx = convolved(read, w, (None,), None, mirrored) if for_x else None
        dw = weight_gradient(read, x, w.shape, mirrored) if for_w else None
    else:
        dx = input_gradient(dy, w, x.shape, recipe) if for_x else None
        dw = weight_gradient(x, dy, w.shape, recipe) if for_w else None
    return dx, dw, dy.sum((0, *range(2, dy.dim()))) if for_bias else None

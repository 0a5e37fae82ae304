"""The operators that PyTorch knows: a convolution, its gradients, and one with all that follows it.

``convkit::conv``, ``conv_input`` and ``conv_weight`` are linear in each operand and each other's gradients, so that
gradients of any order exist. ``convkit::fused`` is for inference: its gradients compute everything again, without
fusing.

A kernel that stands for autograd on the CPU computes at once where nothing has to be recorded: a second way through the
dispatcher would cost as much as all the rest of a small call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from convkit.torch.computing import REFUSED, convolved, input_gradient, known, weight_gradient
from convkit.torch.memory import format_of, is_channels_last
from convkit.torch.recipe import Recipe, recipe_of

__all__ = ["CONV", "CONV_INPUT", "CONV_WEIGHT", "FUSED"]

_library = torch.library.Library("convkit", "DEF")
_NORM = "Tensor? mean, Tensor? variance, Tensor? gamma, Tensor? beta"
_library.define("conv(Tensor x, Tensor w, Tensor? bias, str recipe) -> Tensor")
_library.define("conv_input(Tensor dy, Tensor w, SymInt[] size, str recipe) -> Tensor")
_library.define("conv_weight(Tensor x, Tensor dy, SymInt[] size, str recipe) -> Tensor")
_library.define(f"fused(Tensor x, Tensor w, Tensor? bias, {_NORM}, Tensor? residual, str recipe) -> Tensor")

CONV = torch.ops.convkit.conv.default
CONV_INPUT = torch.ops.convkit.conv_input.default
CONV_WEIGHT = torch.ops.convkit.conv_weight.default
FUSED = torch.ops.convkit.fused.default

_Key = torch._C.DispatchKey
# Tensors of which nothing special is to be known: no subclass, no mode, no transform, no lazy negation.
_PLAIN = (torch._C.DispatchKeySet(_Key.CPU) | torch._C.DispatchKeySet(_Key.AutogradCPU)).raw_repr()


# --- on the CPU ------------------------------------------------------------------------------------------------------
#
# Where convkit refuses operands, PyTorch says in its own words what is wrong, or does what convkit does not: a residual
# that is broadcast.


def _fused(x: Any, w: Any, bias: Any, mean: Any, variance: Any, gamma: Any, beta: Any, residual: Any, text: str) -> Any:
    recipe = recipe_of(text)
    try:
        if known(x, w):
            return convolved(x, w, (bias,) if mean is None else (bias, mean, variance, gamma, beta), residual, recipe)
    except REFUSED:
        pass
    return recipe.after(recipe.in_torch(x, w, bias), (mean, variance, gamma, beta), residual)


def _conv(x: Any, w: Any, bias: Any, text: str) -> Any:
    recipe = recipe_of(text)
    try:
        if known(x, w):
            return convolved(x, w, (bias,), None, recipe)
    except REFUSED:
        pass
    return recipe.in_torch(x, w, bias)


def _conv_input(dy: Any, w: Any, size: Any, text: str) -> Any:
    recipe = recipe_of(text)
    try:
        if known(dy, w):
            return input_gradient(dy, w, size, recipe)
    except REFUSED:
        pass
    return _torch_input(dy, w, size, recipe)


def _conv_weight(x: Any, dy: Any, size: Any, text: str) -> Any:
    recipe = recipe_of(text)
    try:
        if known(x, dy):
            return weight_gradient(x, dy, size, recipe)
    except REFUSED:
        pass
    return _torch_weight(x, dy, size, recipe)


def _torch_input(dy: Any, w: Any, size: Any, recipe: Recipe) -> Any:
    """PyTorch's gradient of an input of this size."""
    margins = recipe.margins()
    spatial = [n + margins[-2 * i - 2] + margins[-2 * i - 1] for i, n in enumerate(size[2:])]
    x = dy.new_empty((size[0], size[1], *spatial))
    dx = _backward(dy, x, w, recipe, (True, False, False))[0]
    return torch.nn.functional.pad(dx, [-n for n in margins])


def _torch_weight(x: Any, dy: Any, size: Any, recipe: Recipe) -> Any:
    """PyTorch's gradient of weights of this size."""
    x = torch.nn.functional.pad(x, recipe.margins())
    return _backward(dy, x, dy.new_empty(tuple(size)), recipe, (False, True, False))[1].contiguous()


def _backward(dy: Any, x: Any, w: Any, recipe: Recipe, wanted: tuple[bool, bool, bool]) -> Any:
    """PyTorch's gradients without padding."""
    none = [0] * recipe.dims
    return torch.ops.aten.convolution_backward.default(
        dy, x, w, None, recipe.stride, none, recipe.dilation, False, none, recipe.groups, wanted
    )


# --- on other devices, and where there are no values -----------------------------------------------------------------


def _elsewhere(x: Any, w: Any, bias: Any, text: str) -> Any:
    return recipe_of(text).in_torch(x, w, bias)


def _fused_elsewhere(
    x: Any, w: Any, bias: Any, mean: Any, variance: Any, gamma: Any, beta: Any, residual: Any, text: str
) -> Any:
    recipe = recipe_of(text)
    return recipe.after(recipe.in_torch(x, w, bias), (mean, variance, gamma, beta), residual)


def _conv_shape(x: Any, w: Any, bias: Any, text: str) -> Any:
    recipe = recipe_of(text)
    return _empty(x, recipe.size(x.shape, w.shape), is_channels_last(x) or is_channels_last(w))


def _fused_shape(
    x: Any, w: Any, bias: Any, mean: Any, variance: Any, gamma: Any, beta: Any, residual: Any, text: str
) -> Any:
    return _conv_shape(x, w, bias, text)


def _empty(like: Any, size: Any, last: bool) -> Any:
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=format_of(last))


# --- autograd --------------------------------------------------------------------------------------------------------


def _nothing_recorded(keys: Any, *operands: Any) -> bool:
    return bool(
        keys.raw_repr() == _PLAIN
        and forward_ad._current_level < 0
        and not (torch.is_grad_enabled() and torch._C._any_requires_grad(*operands))
    )


def _transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode AD is on: PyTorch's operations know them all."""
    return forward_ad._current_level >= 0 or bool(torch._C._are_functorch_transforms_active())


class _Conv(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, keys: Any, x: Any, w: Any, bias: Any, text: str) -> Any:
        ctx.save_for_backward(x, w)
        ctx.text, ctx.biased = text, bias is not None
        with torch._C._AutoDispatchBelowAutograd():
            return CONV.redispatch(keys & torch._C._after_autograd_keyset, x, w, bias, text)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, w = ctx.saved_tensors
        _, for_x, for_w, for_bias, _ = ctx.needs_input_grad
        recipe, whole = recipe_of(ctx.text), dy
        dx = dw = db = None
        if recipe.transposed:
            mirrored, dy = recipe.mirrored(dy)
            text = mirrored.text
            dx = CONV(dy, w, None, text) if for_x else None
            dw = CONV_WEIGHT(dy, x, w.shape, text) if for_w else None
        else:
            dx = CONV_INPUT(dy, w, x.shape, ctx.text) if for_x else None
            dw = CONV_WEIGHT(x, dy, w.shape, ctx.text) if for_w else None
        if for_bias and ctx.biased:
            db = whole.sum((0, *range(2, dy.dim())))
        return None, dx, dw, db, None


class _ConvInput(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, keys: Any, dy: Any, w: Any, size: Any, text: str) -> Any:
        ctx.save_for_backward(dy, w)
        ctx.text = text
        with torch._C._AutoDispatchBelowAutograd():
            return CONV_INPUT.redispatch(keys & torch._C._after_autograd_keyset, dy, w, size, text)

    @staticmethod
    def backward(ctx: Any, x: Any) -> Any:
        dy, w = ctx.saved_tensors
        _, for_dy, for_w, _, _ = ctx.needs_input_grad
        return (
            None,
            CONV(x, w, None, ctx.text) if for_dy else None,
            CONV_WEIGHT(x, dy, w.shape, ctx.text) if for_w else None,
            None,
            None,
        )


class _ConvWeight(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, keys: Any, x: Any, dy: Any, size: Any, text: str) -> Any:
        ctx.save_for_backward(x, dy)
        ctx.text = text
        with torch._C._AutoDispatchBelowAutograd():
            return CONV_WEIGHT.redispatch(keys & torch._C._after_autograd_keyset, x, dy, size, text)

    @staticmethod
    def backward(ctx: Any, w: Any) -> Any:
        x, dy = ctx.saved_tensors
        _, for_x, for_dy, _, _ = ctx.needs_input_grad
        return (
            None,
            CONV_INPUT(dy, w, x.shape, ctx.text) if for_x else None,
            CONV(x, w, None, ctx.text) if for_dy else None,
            None,
            None,
        )


class _Fused(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, keys: Any, text: str, *tensors: Any) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.text = text
        with torch._C._AutoDispatchBelowAutograd():
            return FUSED.redispatch(keys & torch._C._after_autograd_keyset, *tensors, text)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        recipe = recipe_of(ctx.text)
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            # Views, so that a tensor that came twice has two gradients.
            own = [None if t is None else t.view_as(t) for t in ctx.saved_tensors]
            x, w, bias, *norm, residual = own
            y = recipe.after(CONV(x, w, bias, recipe.geometry.text), norm, residual)
        wanted = [t for t, needed in zip(own, ctx.needs_input_grad[2:], strict=True) if needed]
        found = iter(torch.autograd.grad(y, wanted, dy, create_graph=further, allow_unused=True))
        return None, None, *(next(found) if needed else None for needed in ctx.needs_input_grad[2:])


def _conv_autograd(keys: Any, x: Any, w: Any, bias: Any, text: str) -> Any:
    if _nothing_recorded(keys, x, w, bias):
        return _conv(x, w, bias, text)
    return _elsewhere(x, w, bias, text) if _transformed() else _Conv.apply(keys, x, w, bias, text)


def _conv_input_autograd(keys: Any, dy: Any, w: Any, size: Any, text: str) -> Any:
    if _nothing_recorded(keys, dy, w):
        return _conv_input(dy, w, size, text)
    return _torch_input(dy, w, size, recipe_of(text)) if _transformed() else _ConvInput.apply(keys, dy, w, size, text)


def _conv_weight_autograd(keys: Any, x: Any, dy: Any, size: Any, text: str) -> Any:
    if _nothing_recorded(keys, x, dy):
        return _conv_weight(x, dy, size, text)
    return _torch_weight(x, dy, size, recipe_of(text)) if _transformed() else _ConvWeight.apply(keys, x, dy, size, text)


def _fused_autograd(keys: Any, *operands: Any) -> Any:
    tensors, text = operands[:-1], operands[-1]
    if _nothing_recorded(keys, *tensors):
        return _fused(*operands)
    return _fused_elsewhere(*operands) if _transformed() else _Fused.apply(keys, text, *tensors)


# --- torch.vmap ------------------------------------------------------------------------------------------------------


def _batched(op: Any, places: int) -> Any:
    """The rule of an operator whose first `places` operands are tensors.

    Images that are batched once more are a larger batch; where weights differ, each is convolved by itself.
    """

    def rule(info: Any, dims: Any, *operands: Any) -> Any:
        n = info.batch_size
        images = [i for i in _IMAGES[op] if operands[i] is not None]
        others = [i for i in range(places) if i not in images]
        if images and all(dims[i] is not None for i in images) and all(dims[i] is None for i in others):
            folded = list(operands)
            for i in images:
                folded[i] = operands[i].movedim(dims[i], 0).flatten(0, 1)
            if op is CONV_INPUT:
                folded[2] = [n * operands[2][0], *operands[2][1:]]
            return op(*folded).unflatten(0, (n, -1)), 0
        batched = [i for i in range(places) if dims[i] is not None]
        each = []
        for k in range(n):
            one = list(operands)
            for i in batched:
                one[i] = operands[i].select(dims[i], k)
            each.append(op(*one))
        return torch.stack(each), 0

    return rule


# Operands that have a batch of their own; a gradient of weights sums over it.
_IMAGES: dict[Any, tuple[int, ...]] = {CONV: (0,), CONV_INPUT: (0,), CONV_WEIGHT: (), FUSED: (0, 7)}


def _register() -> None:
    conv_like = (
        ("conv", _conv, _conv_autograd, _elsewhere, _conv_shape, 3),
        ("fused", _fused, _fused_autograd, _fused_elsewhere, _fused_shape, 8),
        ("conv_input", _conv_input, _conv_input_autograd, None, None, 2),
        ("conv_weight", _conv_weight, _conv_weight_autograd, None, None, 2),
    )
    for name, on_cpu, autograd, elsewhere, shape, places in conv_like:
        qualified = f"convkit::{name}"
        _library.impl(name, on_cpu, "CPU")
        _library.impl(name, autograd, "Autograd", with_keyset=True)
        _library.impl(name, elsewhere or _gradient_elsewhere(name), "CompositeExplicitAutograd")
        if elsewhere is not None:
            _library.impl(name, elsewhere, "AutocastCPU")
        torch.library.register_fake(qualified, shape or _gradient_shape(name), lib=_library)
        torch.library.register_vmap(qualified, _batched(getattr(torch.ops.convkit, name).default, places), lib=_library)


def _gradient_elsewhere(name: str) -> Any:
    compute = _torch_input if name == "conv_input" else _torch_weight
    return lambda a, b, size, text: compute(a, b, size, recipe_of(text))


def _gradient_shape(name: str) -> Any:
    def shape(a: Any, b: Any, size: Any, text: str) -> Any:
        last = name == "conv_input" and (is_channels_last(a) or is_channels_last(b))
        return _empty(a, tuple(size), last)

    return shape


_register()

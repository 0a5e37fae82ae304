"""What is found out on a sample: the memory format within a model, and which layers PyTorch computes faster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from convkit.torch import packings
from convkit.torch.blocks import Block, block_of, rewrite
from convkit.torch.computing import convolved, known
from convkit.torch.memory import is_channels_last
from convkit.torch.modules import SWAPPED, text_of
from convkit.torch.recipe import recipe_of

__all__ = ["pick_formats", "slower_layers"]

Call = Callable[[], Any]

# By how much an alternative must be faster: less is noise. What is fused saves more than the convolution itself shows.
_CLEARLY, _FUSED = 1.04, 1.5
_ROUNDS = 5
# Shorter calls cost what is around them, which is less where convkit computes.
_SHORT = 1e-4
# Longer calls are timed fewer times, and what is clear after two rounds is not timed on.
_LONG, _FAR = 0.05, 1.5


def in_turns(first: Call, second: Call) -> float:
    """How much longer the second of two calls takes than the first."""
    first(), second()
    ratios: list[float] = []
    for i in range(_ROUNDS):
        seconds = [0.0, 0.0]
        for which in (0, 1) if i % 2 else (1, 0):
            begin = time.perf_counter()
            (first, second)[which]()
            seconds[which] = time.perf_counter() - begin
        ratios.append(seconds[1] / max(seconds[0], 1e-9))
        clear = not 1 / _FAR < statistics.median(ratios) < _FAR
        if i and (clear or (i >= 2 and seconds[0] > _LONG)):
            break
    return statistics.median(ratios)


def _shortest(call: Call) -> float:
    """Seconds of a call's best of a few."""
    seconds = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def pick_formats(model: Any, run: Call) -> list[str]:
    """Let regions of a model be channels last inside, where the whole model is faster that way.

    The model itself is tried first, and if it is faster as it is, its parts one by one.

    Parameters
    ----------
    model : Module
        With blocks.
    run : callable
        Computes the model on the sample.

    Returns
    -------
    list of str
        Names of the regions; the model's own is empty.
    """
    if any(is_channels_last(weight) for weight in model.parameters()):
        return []  # as its owner wants it
    if _is_faster_turned(model, run):
        return [""]
    return [name for name, region in _parts(model) if _is_faster_turned(region, run)]


def _parts(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The modules that a model's forward calls, with their names."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _parts(child, f"{prefix}{name}.")
        elif any(isinstance(inner, tuple(SWAPPED.values())) for inner in child.modules()):
            yield f"{prefix}{name}", child


def _is_faster_turned(region: Any, run: Call) -> bool:
    """Whether a model is faster with a region channels last; then it stays so."""
    block = rewrite(region, always=True)
    if block is None or block.last:
        return False

    def turned(last: bool) -> Call:
        def call() -> None:
            block_to_turn.last = last
            run()

        return call

    block_to_turn: Block = block
    block.last = in_turns(turned(True), turned(False)) > _CLEARLY
    return block.last


def slower_layers(model: Any, run: Call) -> dict[Any, float]:
    """The convolutions that take longer than PyTorch's on what they are given in a run.

    Parameters
    ----------
    model : Module
    run : callable

    Returns
    -------
    dict of Module to float
        How many times as long.
    """
    ratios: dict[Any, float] = {}

    def race(module: Any, given: tuple[Any, ...]) -> None:
        x = given[0] if given else None
        if module in ratios or not isinstance(x, torch.Tensor) or x.dim() != module.weight.dim():
            return
        text, w, bias = text_of(module), module.weight, module.bias
        recipe = recipe_of(text)
        if not known(x, w):
            return

        def own() -> None:
            convolved(x, w, (bias,), None, recipe)

        if _shortest(own) > _SHORT:
            ratios[module] = in_turns(lambda: recipe.in_torch(x, w, bias), own)
        packings.forget([w])

    kinds = tuple(SWAPPED.values())
    fused = _fused(model)
    slow: dict[Any, float] = {m: 0.0 for m in model.modules() if isinstance(m, kinds)}
    for _ in range(2):  # who is slower twice is slower
        ratios.clear()
        handles = [m.register_forward_pre_hook(race) for m in slow]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
        slow = {m: ratio for m, ratio in ratios.items() if ratio > (_FUSED if m in fused else _CLEARLY)}
    return slow


def _fused(model: Any) -> set[Any]:
    """The convolutions that are computed with more than themselves."""
    blocks = ((module, block_of(module)) for module in model.modules())
    used = ((module, block) for module, block in blocks if block is not None and not block.why)
    return {module.get_submodule(name) for module, block in used for name in block.convolutions}

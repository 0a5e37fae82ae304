"""PyTorch's functional convolutions, computed by convkit's operators: what the tests of `convkit.torch` share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from convkit.torch.modules import both_sides, convolution
from convkit.torch.recipe import Recipe, Step


@pytest.fixture(autouse=True)
def no_races(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that `optimize` times is as fast as the other: no test depends on a time."""
    from convkit.torch import measuring

    monkeypatch.setattr(measuring, "in_turns", lambda first, second: (first(), second(), 1.0)[-1])
    return


OPS = {
    "conv1d": (1, False),
    "conv2d": (2, False),
    "conv_transpose1d": (1, True),
    "conv_transpose2d": (2, True),
}


def recipe(
    name: str,
    kernel: tuple[int, ...],
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    output_padding: Any = 0,
    steps: tuple[Step, ...] = (),
) -> Recipe:
    """The recipe of a call of a functional convolution."""
    dims, transposed = OPS[name]

    def each(value: Any) -> tuple[int, ...]:
        return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)

    sides = both_sides(padding if isinstance(padding, str) else each(padding), each(dilation), kernel)
    extra = each(output_padding) if transposed else ()
    return Recipe(each(stride), sides, each(dilation), transposed, extra, groups, steps)


def ours(name: str, x: Any, w: Any, bias: Any = None, **keywords: Any) -> Any:
    """What ``torch.nn.functional``'s function of this name returns."""
    return convolution(x, w, bias, recipe(name, tuple(w.shape[2:]), **keywords).text)


def close(found: Any, wanted: Any, tolerance: float = 1e-5, strides: bool = True) -> None:
    """Assert that two tensors agree, relative to the largest value, in shape, type and strides."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert found.stride() == wanted.stride() or 0 in found.shape or not strides
    largest = wanted.abs().max().item() if wanted.numel() else 0.0
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance * max(largest, 1e-30))

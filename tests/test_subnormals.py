"""Numbers below the smallest normal one: zeros, unless accuracy is "strict"; and what the caller set is kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from calls import Array, normal

import convkit as ck

TINY = float(np.finfo(np.float32).tiny)


def magnitudes(y: Array) -> tuple[int, int, int]:
    """How many elements are zero, subnormal, normal."""
    size = np.abs(y.astype(np.float64))
    return int((size == 0).sum()), int(((size > 0) & (size < TINY)).sum()), int((size >= TINY).sum())


def near_underflow(*shape: int) -> Array:
    """Numbers of which many have products with each other that are subnormal, whatever is summed over."""
    channels, columns = np.linspace(-10, 0, shape[1]), np.linspace(-66, -58, shape[3])
    return (normal(*shape) * np.exp2(channels[:, None, None] + columns)).astype(np.float32)


CALLS: dict[str, Callable[[str], Array]] = {
    "conv2d": lambda accuracy: ck.conv2d(X, W, accuracy=accuracy),
    "Conv2d": lambda accuracy: ck.Conv2d(W, accuracy=accuracy)(X),
    "conv_transpose2d": lambda accuracy: ck.conv_transpose2d(X, V, accuracy=accuracy),
    "conv2d_input": lambda accuracy: ck.grad.conv2d_input(X.shape, W, DY, accuracy=accuracy),
    "conv2d_weight": lambda accuracy: ck.grad.conv2d_weight(X, W.shape, DY, accuracy=accuracy),
}
X, W, V, DY = (near_underflow(*shape) for shape in ((2, 8, 20, 21), (9, 8, 3, 3), (8, 9, 3, 3), (2, 9, 18, 19)))


@pytest.mark.parametrize("name", CALLS)
def test_results_are_zero_or_normal_unless_strict(name: str) -> None:
    call = CALLS[name]
    strict, standard = call("strict"), call("standard")
    assert magnitudes(strict)[1] > 0
    assert magnitudes(standard)[1] == 0
    assert magnitudes(standard)[2] > 0
    # Whatever is lost was lost among subnormals.
    assert float(np.abs(strict.astype(np.float64) - standard).max()) <= 4000 * TINY


@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
def test_subnormal_operands_are_zeros_unless_strict(algorithm: str) -> None:
    x, w = normal(1, 8, 12, 12), normal(8, 8, 3, 3)
    tiny = np.float32(1e-40)
    for a, b in ((x * tiny, w), (x, w * tiny)):
        assert not ck.conv2d(a, b, algorithm=algorithm).any()
        exact = ck.conv2d(a.astype(np.float64), b.astype(np.float64))
        y = ck.conv2d(a, b, algorithm=algorithm, accuracy="strict")
        assert np.abs(y - exact).max() <= 80 * 2.0**-149


def test_the_caller_s_own_arithmetic_is_as_it_was() -> None:
    smallest = np.float32(2.0**-149)
    ck.conv2d(normal(1, 8, 40, 40), normal(8, 8, 3, 3), num_threads=2)
    assert smallest * np.float32(1) == smallest
    assert np.float32(TINY) / np.float32(2) > 0


def test_float64_keeps_its_subnormals_by_default() -> None:
    x, w = np.full((1, 1, 4, 4), 1e-200), np.full((1, 1, 2, 2), 1e-110)
    assert ck.conv2d(x, w).any()
    assert not ck.conv2d(x, w, accuracy="standard").any()

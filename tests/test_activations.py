"""Activations by every instruction set: the same values, down to where the exponential vanishes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import convkit as ck
from convkit import _core


def everywhere(dtype: Any) -> Any:
    """Numbers of both signs among all there are, more of them where exponentials vanish, NaN and infinity."""
    bits = np.int32 if dtype == np.float32 else np.int64
    largest = int(np.array(np.finfo(dtype).max).view(bits))
    positive = np.linspace(0, largest, 20001).astype(bits).view(dtype)
    reach = 110 if dtype == np.float32 else 760
    near = np.linspace(-reach, reach, 20001).astype(dtype)
    return np.concatenate([positive, -positive, near, np.array([np.nan, np.inf, -np.inf], dtype)])


@pytest.mark.parametrize("activation", ["silu", "sigmoid", "tanh", "gelu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_instruction_sets_agree(dtype: Any, activation: str) -> None:
    """One scales by a power of two in one instruction, others by two products: also where the result is subnormal."""
    x, one = everywhere(dtype).reshape(1, 1, -1, 1), np.ones((1, 1, 1, 1), dtype)
    by_isa = []
    for isa in _core.usable_isas():
        name = f"f{np.dtype(dtype).itemsize * 8}_pointwise_nhwc__{isa}"
        conv = ck.Conv2d(one, layout="NHWC", activation=activation, accuracy="strict", algorithm=name)
        by_isa.append(conv(x))
    best = by_isa[0]
    assert np.isnan(best[..., -3, 0]).all()
    for other in by_isa[1:]:
        # Few units in the last place: not every instruction set has multiply-adds that round once.
        np.testing.assert_allclose(
            other, best, rtol=8 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).smallest_subnormal
        )

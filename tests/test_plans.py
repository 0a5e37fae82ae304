"""What finds a call's plan again: a key of all that decides it, and of nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
from calls import Array, normal

import convkit as ck
from convkit import _core


def aside(a: Array) -> Array:
    """The same values two bytes off."""
    return np.frombuffer(b"00" + a.tobytes(), np.uint8)[2:].view(a.dtype).reshape(a.shape)


def test_each_kind_of_call_has_a_plan_of_its_own() -> None:
    x, w, four = normal(1, 4, 8, 8), normal(4, 4, 3, 3), normal(4)
    y, wide = ck.conv2d(x, w), normal(1, 6, 6, 4)
    given: list[tuple[Array, ...]] = [
        (x, w), (x[0], w), (x[:, :, ::-1], w), (x, w.transpose(0, 1, 3, 2)), (aside(x), w), (x, aside(w)),
        (x.astype(float), w.astype(float)), (x, w, four), (x, w, aside(four)), (x, w, np.stack([four, four], 1)[:, 0]),
    ]  # fmt: skip
    named: list[dict[str, Any]] = [
        {"num_threads": 2}, {"stride": 2}, {"stride": (1, 2)}, {"stride": (2, 1)}, {"dilation": 2}, {"padding": 2},
        {"padding": (0, 2)}, {"padding": "same"}, {"groups": 2, "w": w[:, :2].copy()}, {"activation": "relu"},
        {"residual": y}, {"residual": y, "residual_after": True}, {"out": np.empty_like(y)}, {"scale": four},
        {"shift": four}, {"scale": 2.0}, {"shift": 2.0}, {"algorithm": "direct"}, {"accuracy": "fast"},
        {"accuracy": 1.0}, {"workspace_limit": 1 << 20}, {"layout": "NHWC", "x": wide},
    ]  # fmt: skip
    calls = [{"num_threads": 1, **dict(zip(("x", "w", "bias"), arrays, strict=False))} for arrays in given]
    calls += [{"num_threads": 1, "x": x, "w": w, **options} for options in named]
    _core.clear_plans()
    for expected in (len(calls), 0):
        before = _core.counters()["plan_misses"]
        for call in calls:
            # Names made at run time, which are no objects that the library knows.
            ck.conv2d(**{"".join(list(name)): value for name, value in call.items()})
        assert _core.counters()["plan_misses"] == before + expected

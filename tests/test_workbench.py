"""The gate: its sampled reference agrees with the oracle and notices what a wrong kernel would do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_problem import problems

from convkit import reference
from convkit.problem import Problem
from convkit.tuner.inventory import direct_error
from convkit.tuner.measuring.workbench import Workbench


def exact(bench: Workbench) -> np.ndarray[Any, Any]:
    """The whole result, by the oracle."""
    p = bench.problem
    pads = ((p.pad_top, p.pad_bottom), (p.pad_left, p.pad_right))
    common: dict[str, Any] = {
        "stride": (p.stride_h, p.stride_w),
        "padding": pads,
        "dilation": (p.dilation_h, p.dilation_w),
        "groups": p.groups,
        "layout": p.layout,
    }
    if p.op == "input_grad":
        return reference.conv2d_input(p.x_shape, bench.w, bench.x, **common)
    if p.op == "weight_grad":
        return reference.conv2d_weight(bench.x, p.w_shape, bench.w, **common)
    activation = {"none": None, "clamp": ("clip", *bench.limits), "other": "silu"}[p.epilogue]
    return reference.conv2d(bench.x, bench.w, bench.bias, activation=activation, residual=bench.residual, **common)


def small(problem: Problem) -> Problem:
    """Few enough multiply-adds for the oracle, and an epilogue only where a kernel may have one."""
    changes: dict[str, Any] = {
        "n": problem.n % 3,
        "c": problem.groups * (1 + problem.c % 3),
        "o": problem.groups * (1 + problem.o % 3),
        "h": min(problem.h, 24),
        "w": min(problem.w, 24),
    }
    if problem.op != "forward":
        changes |= {"epilogue": "none", "bias": False, "residual": False}
    return problem.replace(**changes)


@given(problems().map(small))
def test_the_reference_is_the_oracle(problem: Problem) -> None:
    bench = Workbench(problem, 1)
    y = exact(bench)
    assert y.shape == bench.result_shape
    assert bench.error(y) < 1e-12
    assert bench.error(y.astype(np.float32)) < 1e-5


@given(st.sampled_from(["forward", "input_grad", "weight_grad"]), st.sampled_from(["NCHW", "NHWC"]), st.integers(0, 3))
def test_wrong_results_do_not_pass(op: Any, layout: Any, kind: int) -> None:
    problem = Problem(n=2, c=6, h=9, w=10, o=5, kh=3, kw=3, pad_top=1, pad_left=1, op=op, layout=layout)
    bench = Workbench(problem, 1)
    y = exact(bench)
    if kind == 0:
        y = np.roll(y, 1, axis=1)
    elif kind == 1:
        y *= 1.001
    elif kind == 2:
        y[-1, -1, -1, -1] += 1.0
    else:
        y[0, 0, 0, 0] = np.nan
    assert bench.error(y) > 30 * direct_error(problem)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operands_can_be_repeated(dtype: Any) -> None:
    problem = Problem(n=1, c=300, h=64, w=64, o=4, kh=1, kw=1, dtype=dtype)
    first, second = Workbench(problem, 1), Workbench(problem, 2)
    np.testing.assert_array_equal(first.x, second.x)
    assert first.x.dtype == dtype
    assert 0.9 < first.x.std() < 1.1
    assert Workbench(problem, 1, seed=1).x[0, 0, 0, 0] != first.x[0, 0, 0, 0]

"""Problem: its tuple, its text and the arguments it comes from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit import _core
from convkit.problem import DTYPES, EPILOGUES, LAYOUTS, OPS, Problem


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    groups = draw(st.integers(1, 4))
    kh, kw = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    dilation_h, dilation_w = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Problem(
        n=draw(st.integers(0, 9)),
        c=groups * draw(st.integers(1, 99)),
        h=dilation_h * (kh - 1) + draw(st.integers(1, 300)),
        w=dilation_w * (kw - 1) + draw(st.integers(1, 300)),
        o=groups * draw(st.integers(1, 99)),
        kh=kh,
        kw=kw,
        op=draw(st.sampled_from(OPS)),
        dtype=draw(st.sampled_from(DTYPES)),
        layout=draw(st.sampled_from(LAYOUTS)),
        stride_h=draw(st.integers(1, 4)),
        stride_w=draw(st.integers(1, 4)),
        pad_top=draw(st.integers(0, 5)),
        pad_bottom=draw(st.integers(0, 5)),
        pad_left=draw(st.integers(0, 5)),
        pad_right=draw(st.integers(0, 5)),
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        groups=groups,
        epilogue=draw(st.sampled_from(EPILOGUES)),
        bias=draw(st.booleans()),
        residual=draw(st.booleans()),
        packed=draw(st.booleans()),
    )


@given(problems())
def test_text_and_tuple_round_trip(problem: Problem) -> None:
    assert Problem.parse(str(problem)) == problem
    assert Problem.from_core(problem.to_core()) == problem
    assert len(problem.to_core()) == 23
    assert all(type(value) is int for value in problem.to_core())


@given(st.text(max_size=200))
def test_parse_refuses_other_text(text: str) -> None:
    with pytest.raises(ValueError, match="not a problem"):
        Problem.parse(text)


@pytest.mark.parametrize(
    "change", [("n1c", "n01c"), ("k3x3", "k999x3"), ("g1", "g2"), ("s1x1", "s0x1"), ("c3", "c" + "9" * 30)]
)
def test_parse_refuses_impossible_sizes(change: tuple[str, str]) -> None:
    text = str(Problem(n=1, c=3, h=8, w=8, o=5, kh=3, kw=3))
    with pytest.raises(ValueError, match="problem"):
        Problem.parse(text.replace(*change))


def test_sizes_and_flops() -> None:
    problem = Problem(n=2, c=4, h=9, w=10, o=6, kh=3, kw=2, stride_h=2, pad_top=1, groups=2, layout="NHWC")
    assert (problem.oh, problem.ow) == (4, 9)
    assert problem.x_shape == (2, 9, 10, 4)
    assert problem.w_shape == (6, 2, 3, 2)
    assert problem.y_shape == (2, 4, 9, 6)
    assert problem.flops == 2 * 2 * 4 * 9 * 6 * 2 * 3 * 2


@pytest.mark.parametrize(
    ("padding", "stride", "pads"),
    [
        (1, 1, (1, 1, 1, 1)),
        ((1, 2), 1, (1, 1, 2, 2)),
        (((0, 1), (2, 3)), 1, (0, 1, 2, 3)),
        ("valid", 2, (0, 0, 0, 0)),
        ("same", 1, (1, 1, 1, 2)),
        ("same_upper", 2, (0, 1, 1, 1)),
        ("same_lower", 2, (1, 0, 1, 1)),
    ],
)
def test_padding_of_a_call(padding: object, stride: int, pads: tuple[int, ...]) -> None:
    problem = Problem.from_call((1, 3, 8, 8), (5, 3, 3, 4), padding=padding, stride=stride)
    assert (problem.pad_top, problem.pad_bottom, problem.pad_left, problem.pad_right) == pads


def test_from_call_reads_arrays() -> None:
    x = np.zeros((2, 8, 8, 3), np.float64)
    w = np.zeros((5, 3, 3, 3), np.float64)
    problem = Problem.from_call(x, w, np.zeros(5), activation=("clip", 0, 1), layout="NHWC", packed=True)
    assert (problem.dtype, problem.layout, problem.c, problem.epilogue) == ("float64", "NHWC", 3, "clamp")
    assert problem.bias
    assert not problem.residual
    assert problem.packed
    view = x.transpose(0, 3, 1, 2)
    assert Problem.from_call(view, w).layout == "NHWC"
    assert Problem.from_call(view.copy(), w).layout == "NCHW"
    assert Problem.from_call(x[0].transpose(2, 0, 1).copy(), w).n == 1


def test_from_call_refuses() -> None:
    with pytest.raises(ValueError, match="channels"):
        Problem.from_call((1, 4, 8, 8), (5, 3, 3, 3))
    with pytest.raises(ValueError, match="same_upper"):
        Problem.from_call((1, 3, 8, 8), (5, 3, 3, 3), padding="same", stride=2)
    with pytest.raises(ValueError, match="layout"):
        Problem.from_call((1, 3, 8, 8), (5, 3, 3, 3), layout="CHWN")
    with pytest.raises(TypeError, match="float32, float64"):
        Problem.from_call((1, 3, 8, 8), (5, 3, 3, 3), dtype="int8")
    with pytest.raises(ValueError, match="activation"):
        Problem.from_call((1, 3, 8, 8), (5, 3, 3, 3), activation="gelu")


@given(problems())
def test_from_call_reads_arguments_as_the_call_does(problem: Problem) -> None:
    small = problem.replace(n=1, c=problem.groups, o=problem.groups, op="forward", packed=False, residual=False)
    arguments = {
        "bias": np.zeros(small.o, small.dtype) if small.bias else None,
        "stride": (small.stride_h, small.stride_w),
        "padding": ((small.pad_top, small.pad_bottom), (small.pad_left, small.pad_right)),
        "dilation": (small.dilation_h, small.dilation_w),
        "groups": small.groups,
        "layout": small.layout,
        "activation": {"none": None, "clamp": "relu", "other": "silu"}[small.epilogue],
    }
    x, w = np.zeros(small.x_shape, small.dtype), np.zeros(small.w_shape, small.dtype)
    fields, _ = _core.problem_of(x, w, **arguments)
    assert Problem.from_core(fields) == small
    assert Problem.from_call(x, w, **arguments) == small
    assert Problem.from_call(x.shape, w.shape, **arguments, dtype=small.dtype) == small

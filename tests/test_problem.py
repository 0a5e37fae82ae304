"""Problem: its tuple, its text and the arguments it comes from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.problem import DTYPES, EPILOGUES, LAYOUTS, OPS, Problem, epilogue_class, of_call


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


def test_what_makes_no_difference_is_written_in_one_way() -> None:
    pads = {"pad_top": 1, "pad_bottom": 2, "pad_left": 3, "pad_right": 4}
    problem = Problem(1, 3, 8, 9, 5, 1, 1, stride_h=99, stride_w=99, dilation_h=7, dilation_w=8, **pads)
    assert (problem.stride_h, problem.stride_w) == (8 + 1 + 2, 9 + 3 + 4)
    assert (problem.dilation_h, problem.dilation_w) == (1, 1)
    kept = Problem(1, 3, 8, 9, 5, 2, 2, stride_h=11, stride_w=16, dilation_h=3, dilation_w=4, **pads)
    assert (kept.stride_h, kept.stride_w, kept.dilation_h, kept.dilation_w) == (11, 16, 3, 4)


def test_an_input_smaller_than_the_filter_is_refused_with_both_sizes() -> None:
    pads = {"pad_top": 1, "pad_bottom": 2, "pad_left": 3, "pad_right": 4}
    with pytest.raises(ValueError, match=r"input \(11, 16\) is smaller than the dilated filter \(16, 19\)"):
        Problem(1, 3, 8, 9, 5, 6, 7, dilation_h=3, dilation_w=3, **pads)


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
    problem, _ = of_call((1, 3, 8, 8), (5, 3, 3, 4), padding=padding, stride=stride)
    assert (problem.pad_top, problem.pad_bottom, problem.pad_left, problem.pad_right) == pads


def test_a_call_with_arrays() -> None:
    x = np.zeros((2, 8, 8, 3), np.float64)
    w = np.zeros((5, 3, 3, 3), np.float64)
    problem, threads = of_call(x, w, np.zeros(5), activation=("clip", 0, 1), layout="NHWC", packed=True, num_threads=2)
    assert (problem.dtype, problem.layout, problem.c, problem.epilogue, threads) == ("float64", "NHWC", 3, "clamp", 2)
    assert problem.bias
    assert not problem.residual
    assert problem.packed
    view = x.transpose(0, 3, 1, 2)
    assert of_call(view, w)[0].layout == "NHWC"
    assert of_call(view.copy(), w)[0].layout == "NCHW"
    assert of_call(x[0].transpose(2, 0, 1).copy(), w)[0].n == 1


def test_a_call_with_shapes_says_what_is_there() -> None:
    shapes = (1, 3, 8, 8), (5, 3, 3, 3)
    for bias in (True, (5,), [5]):
        assert of_call(*shapes, bias=bias)[0].bias
    for residual in (True, (1, 5, 6, 6)):
        assert of_call(*shapes, residual=residual)[0].residual
    none, _ = of_call(*shapes, bias=False, residual=None)
    assert (none.bias, none.residual) == (False, False)


@pytest.mark.parametrize(
    ("x", "keywords", "error", "text"),
    [
        ((1, 4, 8, 8), {}, ValueError, "x of shape .*channels"),
        ((1, 3, 8, 8), {"padding": "same", "stride": 2}, ValueError, "same_upper"),
        ((1, 3, 8, 8), {"layout": "CHWN"}, ValueError, "layout"),
        ((1, 3, 8, 8), {"dtype": "int8"}, TypeError, "x has dtype int8"),
        ((1, 3, 8, 8), {"dtype": "float33"}, TypeError, "float33"),
        ((1, 3, 8, 8), {"activation": "gelu_erf"}, ValueError, "activation"),
        ((1, 3, 8, 8), {"bias": (4,)}, ValueError, "bias"),
        ((1, 3, 8, 8), {"residual": (1, 5, 8, 8)}, ValueError, "residual"),
        ((0, 3, 8, 8), {}, ValueError, "the batch is empty"),
        ((1, 3, 2**31, 8), {}, ValueError, "2\\*\\*31"),
        ((1, 3, 2**62, 8), {}, (TypeError, ValueError), "x"),
        ((1, 3, -8, 8), {}, TypeError, "x must be an array, or a shape"),
        ("1x3x8x8", {}, TypeError, "x must be an array, or a shape"),
        (7, {}, TypeError, "x must be an array, or a shape"),
    ],
)
def test_a_call_refuses_what_conv2d_refuses(x: object, keywords: dict[str, object], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        of_call(x, (5, 3, 3, 3), **keywords)


def test_gradients_of_a_call_and_of_a_transposed_one() -> None:
    call, _ = of_call((1, 3, 8, 8), (5, 3, 3, 3), bias=True, residual=True, activation="relu", packed=True)
    dx, dw = call.of_op("input_grad"), call.of_op("weight_grad")
    assert call.of_op("forward") == call
    assert (dx, dw) == (call.of_op("input"), call.of_op("weight"))
    assert [(p.op, p.epilogue, p.bias, p.residual, p.packed) for p in (dx, dw)] == [
        ("input_grad", "none", False, False, True), ("weight_grad", "none", False, False, False),
    ]  # fmt: skip
    assert (dx.of_op("input").op, dx.of_op("weight").op) == ("forward", "weight_grad")
    with pytest.raises(ValueError, match="op must be one of"):
        call.of_op("backward")


@pytest.mark.parametrize(
    ("activation", "name"), [(None, "none"), ("relu6", "clamp"), (("clip", None, 1), "clamp"), ("tanh", "other")]
)
def test_classes_of_activations(activation: object, name: str) -> None:
    assert epilogue_class(activation) == name


@given(problems())
def test_shapes_are_read_as_arrays_are(problem: Problem) -> None:
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
    assert of_call(x, w, **arguments)[0] == small
    assert of_call(x.shape, w.shape, **arguments, dtype=small.dtype)[0] == small


SMALL = Problem(n=2, c=6, h=9, w=10, o=4, kh=3, kw=2, stride_h=2, stride_w=2, groups=2)


def test_terms_and_bytes_of_an_element() -> None:
    assert (SMALL.oh, SMALL.ow) == (4, 5)
    assert SMALL.reduction == 3 * 3 * 2
    assert SMALL.of_op("input").reduction == 2 * 3 * 2
    assert SMALL.of_op("weight").reduction == 2 * 4 * 5
    assert type(SMALL.ow) is type(SMALL.reduction) is int
    assert [SMALL.replace(dtype=dtype).itemsize for dtype in ("float32", "float64")] == [4, 8]


def test_what_is_left_out_is_the_simplest() -> None:
    plain = Problem(n=1, c=1, h=4, w=5, o=1, kh=1, kw=1)
    assert str(plain) == "forward-float32-NCHW-n1c1h4w5-o1k1x1-s1x1-p0,0,0,0-d1x1-g1-none-packed"
    assert not plain.bias
    assert not plain.residual


def test_problems_that_answer_for_each_other() -> None:
    own = SMALL.replace(epilogue="clamp", bias=True, residual=True)
    assert own.bare() == SMALL.replace(epilogue="none", bias=False, residual=False)
    texts = own.texts()
    assert texts[0] == str(own)
    assert len(texts) == len(set(texts)) == 12
    assert {Problem.parse(text).bare() for text in texts} == {own.bare()}
    gradient = SMALL.of_op("weight")
    assert gradient.texts() == [str(gradient)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("op", "backward"), ("dtype", "float16"), ("layout", "CHWN"), ("epilogue", "all"), ("c", 5), ("o", 3),
        ("kh", 0), ("groups", 0), ("pad_left", -1), ("h", 2**31), ("w", 1.5), ("h", 2), ("w", 1),
    ],
)  # fmt: skip
def test_each_field_is_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match="problem"):
        SMALL.replace(**{field: value})


def test_the_largest_size_is_a_size() -> None:
    assert SMALL.replace(h=2**31 - 1).h == 2**31 - 1


@pytest.mark.parametrize(
    ("residual", "after", "epilogue"), [(True, True, "other"), (True, False, "none"), (False, True, "none")]
)
def test_a_residual_that_comes_last_is_an_epilogue_of_its_own(residual: bool, after: bool, epilogue: str) -> None:
    shapes = (1, 3, 8, 8), (5, 3, 3, 3)
    assert of_call(*shapes, residual=residual, residual_after=after)[0].epilogue == epilogue
    assert not of_call(*shapes)[0].packed


@pytest.mark.parametrize("name", ["scale", "shift"])
def test_a_factor_may_be_a_number(name: str) -> None:
    for value in (2.5, (5,)):
        assert of_call((1, 3, 8, 8), (5, 3, 3, 3), **{name: value})[0].epilogue == "other"

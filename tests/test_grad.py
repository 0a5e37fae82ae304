"""The input gradient and the transposed convolution: against the oracle, against differences, against the adjoint."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import convkit as ck
from convkit import _core, reference
from convkit.problem import Problem
from strategies import FAMILIES, Source, make_problem

DTYPES = ("float32", "float64")
SHAPE: dict[str, Any] = {"op": "input_grad", "dtypes": DTYPES, "layouts": ("NCHW", "NHWC")}


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    return rng.standard_normal(shape).astype(dtype)


def geometry(p: Problem) -> dict[str, Any]:
    return {
        "stride": (p.stride_h, p.stride_w),
        "padding": ((p.pad_top, p.pad_bottom), (p.pad_left, p.pad_right)),
        "dilation": (p.dilation_h, p.dilation_w),
        "groups": p.groups,
        "layout": p.layout,
    }


@st.composite
def problems(draw: Any) -> Problem:
    family = FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]
    kernel = {**SHAPE, "dtypes": (draw(st.sampled_from(DTYPES)),)}
    return make_problem(Source(draw=draw), kernel, family)


def close(actual: Any, expected: Any, magnitude: Any, terms: int) -> None:
    """Within what a Winograd kernel may err on a sum of so many terms."""
    eps = np.finfo(actual.dtype).eps
    allowed = eps * (16 * (4 + np.sqrt(terms)) * np.max(magnitude, initial=0.0) + 4)
    assert actual.shape == expected.shape
    np.testing.assert_array_less(np.abs(actual - expected), allowed)


@given(problem=problems(), seed=st.integers(0, 9))
def test_input_gradient_is_the_oracle_s(problem: Problem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, dy = normal(rng, problem.w_shape, problem.dtype), normal(rng, problem.y_shape, problem.dtype)
    dx = ck.grad.conv2d_input(problem.x_shape, w, dy, **geometry(problem))
    assert dx.dtype == problem.dtype
    expected = reference.conv2d_input(problem.x_shape, w, dy, **geometry(problem))
    magnitude = reference.conv2d_input(problem.x_shape, np.abs(w), np.abs(dy), **geometry(problem))
    close(dx, expected, magnitude, problem.reduction)


@given(problem=problems(), seed=st.integers(0, 9))
def test_input_gradient_is_the_adjoint(problem: Problem, seed: int) -> None:
    # <conv(x, w), dy> = <x, conv_input(w, dy)>
    rng = np.random.default_rng(seed)
    x, w, dy = (normal(rng, s, problem.dtype) for s in (problem.x_shape, problem.w_shape, problem.y_shape))
    y = ck.conv2d(x, w, **geometry(problem))
    dx = ck.grad.conv2d_input(x.shape, w, dy, **geometry(problem))
    forward, backward = (np.vdot(a.astype(float), b.astype(float)) for a, b in ((y, dy), (x, dx)))
    size = np.linalg.norm(x) * np.linalg.norm(w) * np.linalg.norm(dy)
    assert abs(forward - backward) <= 64 * np.finfo(problem.dtype).eps * size


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 1, 1, 1), (2, 1, 1, 1), ((2, 3), (0, 2), 1, 2), (1, 3, 2, 2), (3, ((0, 1), (2, 0)), (2, 1), 1)],
)
def test_input_gradient_is_the_derivative(layout: str, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 7, 8) if layout == "NCHW" else (2, 7, 8, 4))
    w = rng.standard_normal((6, 4 // groups, 3, 2))
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    options["layout"] = layout
    dy = rng.standard_normal(ck.conv2d(x, w, **options).shape)
    dx = ck.grad.conv2d_input(x.shape, w, dy, **options)
    for index in zip(*(rng.integers(size, size=12) for size in x.shape), strict=True):
        step = np.zeros_like(x)
        step[index] = 0.5  # the convolution is linear: any step gives its derivative
        difference = np.vdot(ck.conv2d(x + step, w, **options) - ck.conv2d(x - step, w, **options), dy)
        np.testing.assert_allclose(dx[index], difference, rtol=1e-10, atol=1e-10)


@st.composite
def transposed(draw: Any) -> dict[str, Any]:
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    return {
        "n": draw(st.integers(0, 2)),
        "size": draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
        "channels": (groups * draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        "kernel": draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        "stride": stride,
        "padding": draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
        "output_padding": tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)),
        "groups": groups,
        "dilation": dilation,
        "dtype": draw(st.sampled_from(DTYPES)),
        "layout": draw(st.sampled_from(("NCHW", "NHWC"))),
        "activation": draw(st.sampled_from((None, "relu", ("clip", -0.5, 1.0), "silu", ("leaky_relu", 0.1)))),
        "residual": draw(st.booleans()),
        "batch": draw(st.booleans()),
    }


@given(case=transposed(), seed=st.integers(0, 9))
def test_transposed_convolution_is_the_oracle_s(case: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtype, layout = case["dtype"], case["layout"]
    c, per_group = case["channels"]
    x = normal(rng, (case["n"], c, *case["size"]), dtype)
    w, bias = normal(rng, (c, per_group, *case["kernel"]), dtype), normal(rng, (per_group * case["groups"],), dtype)
    options = {name: case[name] for name in ("stride", "padding", "output_padding", "groups", "dilation")}
    expected = reference.conv_transpose2d(x, w, bias, **options)
    assume(0 not in expected.shape[1:])
    if layout == "NHWC":
        x, expected = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), expected.transpose(0, 2, 3, 1)
    residual = normal(rng, expected.shape, dtype) if case["residual"] else None
    expected = reference.activate(expected if residual is None else expected + residual, case["activation"])
    if case["n"] == 1 and not case["batch"]:
        x, expected = x[0], expected[0]
        residual = None if residual is None else residual[0]
    options |= {"layout": layout, "activation": case["activation"]}
    y = ck.conv_transpose2d(x, w, bias, residual=residual, **options)
    assert y.dtype == dtype
    magnitude = np.abs(w).sum() * np.max(np.abs(x), initial=0.0) + 4
    close(y, expected, magnitude, c)
    layer = ck.ConvTranspose2d(w, bias, **options)
    for _ in range(2):
        close(layer(x, residual=residual), expected, magnitude, c)


def test_strides_of_operands_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    w = normal(rng, (3, 3, 5, 4), "float32").transpose(3, 2, 0, 1)  # HWIO
    dy = normal(rng, (2, 8, 9, 4), "float32")[:, ::-1, ::2].transpose(0, 3, 1, 2)
    dx = ck.grad.conv2d_input((2, 5, 17, 11), w, dy, stride=2, padding=(0, 0), dilation=(1, 1))
    expected = reference.conv2d_input((2, 5, 17, 11), w, dy, 2)
    np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-4)
    channels_last = np.ascontiguousarray(dy.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    dx = ck.grad.conv2d_input((2, 5, 17, 11), w, channels_last, stride=2)
    assert dx.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-4)


def test_out_and_algorithm() -> None:
    rng = np.random.default_rng(2)
    w, dy = normal(rng, (4, 3, 3, 3), "float32"), normal(rng, (1, 4, 4, 4), "float32")
    out = np.full((1, 3, 9, 9), np.nan, np.float32)
    assert ck.grad.conv2d_input((1, 3, 9, 9), w, dy, 2, out=out) is out
    np.testing.assert_allclose(out, reference.conv2d_input((1, 3, 9, 9), w, dy, 2), rtol=1e-4, atol=1e-4)
    families = {k["family"] for k in _core.kernels() if k["op"] == "input_grad"}
    assert {"direct", "im2col"} <= families
    ck.grad.conv2d_input((1, 3, 9, 9), w, dy, 2, algorithm="direct")
    with pytest.raises(ck.UnsupportedAlgorithmError):
        ck.grad.conv2d_input((1, 3, 9, 9), w, dy, 2, algorithm="im2col")


def test_every_problem_has_an_input_gradient_kernel() -> None:
    kernels = [k for k in _core.kernels() if k["op"] == "input_grad" and k["direct"]]
    for dtype in DTYPES:
        for layout in ("NCHW", "NHWC"):
            for pad, stride, dilation in ((0, 1, 1), (5, 1, 1), (5, 3, 2), (1, 4, 3)):
                problem = Problem(
                    n=1, c=6, h=9, w=7, o=4, kh=3, kw=2, groups=2, op="input_grad", dtype=dtype, layout=layout,
                    stride_h=stride, stride_w=1, pad_top=pad, pad_left=pad, dilation_h=dilation,
                )  # fmt: skip
                assert any(
                    dtype in k["dtypes"] and layout in k["layouts"] and _core.applies(k["index"], problem.to_core())
                    for k in kernels
                )


def test_layer_copies_and_updates() -> None:
    rng = np.random.default_rng(3)
    x = normal(rng, (2, 6, 5, 5), "float32")
    w, bias = normal(rng, (6, 2, 4, 4), "float32"), normal(rng, (4,), "float32")
    layer = ck.ConvTranspose2d(w, bias, 2, 1, groups=2, activation="relu")
    y = layer(x)
    np.testing.assert_allclose(
        y, reference.conv_transpose2d(x, w, bias, 2, 1, groups=2, activation="relu"), rtol=1e-4, atol=1e-4
    )
    assert "6 -> 4, 4x4" in repr(layer)
    for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert isinstance(twin, ck.ConvTranspose2d)
        np.testing.assert_array_equal(twin(x), y)
    layer.update(-w, -bias)
    np.testing.assert_allclose(
        layer(x), reference.conv_transpose2d(x, -w, -bias, 2, 1, groups=2, activation="relu"), rtol=1e-4, atol=1e-4
    )


def scattered(x: Any, w: Any, stride: Any, padding: int, output_padding: Any, dilation: Any) -> Any:
    """A transposed convolution as its definition says: every pixel adds a scaled copy of the filters to the result."""
    n, _, h, width = x.shape
    _, o, kh, kw = w.shape
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, (kh, kw), strict=True)]
    size = [(s - 1) * step + r + extra
            for s, step, r, extra in zip((h, width), stride, reach, output_padding, strict=True)]  # fmt: skip
    y = np.zeros((n, o, *size))
    for i, j in np.ndindex(h, width):
        top, left = i * stride[0], j * stride[1]
        window = y[:, :, top : top + reach[0] : dilation[0], left : left + reach[1] : dilation[1]]
        window += np.einsum("nc,cokl->nokl", x[:, :, i, j], w)
    return y[:, :, padding : size[0] - padding, padding : size[1] - padding]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_output_padding_is_smaller_than_stride_or_dilation(stride: int, dilation: int, layout: str) -> None:
    rng = np.random.default_rng(4)
    x, w, bias = rng.standard_normal((2, 4, 4, 5)), rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(3)
    given = x if layout == "NCHW" else x.transpose(0, 2, 3, 1)
    for extra in itertools.product(range(max(stride, dilation)), repeat=2):
        for padding in (0, 1):
            shape = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation}
            expected = scattered(x, w, (stride,) * 2, padding, extra, (dilation,) * 2)
            expected = np.maximum(expected + bias[:, None, None], 0)
            np.testing.assert_allclose(reference.conv_transpose2d(x, w, bias, activation="relu", **shape), expected,
                                       atol=1e-12)  # fmt: skip
            if layout == "NHWC":
                expected = expected.transpose(0, 2, 3, 1)
            options = {**shape, "layout": layout, "activation": "relu"}
            layer = ck.ConvTranspose2d(w, bias, **options)
            for y in (ck.conv_transpose2d(given, w, bias, **options), layer(given), layer(given)):
                np.testing.assert_allclose(y, expected, atol=1e-12)
            single = ck.conv_transpose2d(given[0], w, bias, **options)
            np.testing.assert_allclose(single, expected[0], atol=1e-12)
    for extra in ((0, max(stride, dilation)), (max(stride, dilation), 0)):
        with pytest.raises(ValueError, match="output_padding must be smaller"):
            ck.conv_transpose2d(x, w, stride=stride, dilation=dilation, output_padding=extra)


def test_output_padding_beyond_the_stride_keeps_the_memory_order() -> None:
    x = np.ones((1, 4, 4, 8), np.float32).transpose(0, 3, 1, 2)
    y = ck.conv_transpose2d(x, np.ones((8, 16, 3, 3), np.float32), dilation=2, output_padding=1)
    assert y.shape == (1, 16, 9, 9)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(y[:, :, 8], 0)


X, W = np.ones((1, 3, 4, 4)), np.ones((3, 2, 2, 2))


@pytest.mark.parametrize(
    ("text", "arguments", "options"),
    [
        ("takes 3 input channels, x has 2", (X[:, :2], W), {}),
        ("padding of a transposed convolution", (X, W), {"padding": "same"}),
        ("output_padding must be smaller", (X, W), {"output_padding": 1}),
        ("0 x 0 pixels", (X[..., :1, :1], W), {"padding": 1}),
        (r"bias has shape \(3,\)", (X, W, np.ones(3)), {}),
        ("not divisible by groups=2", (X, W), {"groups": 2}),
        ("expected .C, O/groups, KH, KW.", (X, W[0]), {}),
    ],
)
def test_transposed_convolution_refuses(text: str, arguments: Any, options: Any) -> None:
    with pytest.raises(ValueError, match=text):
        ck.conv_transpose2d(*arguments, **options)


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        (ValueError, "has outputs of 4 x 4", ((1, 2, 5, 5), W, X[..., 1:, 1:])),
        (ValueError, "does not go with weight", ((1, 3, 5, 5), W, X)),
        (ValueError, "does not go with weight", ((2, 2, 5, 5), W, X)),
        (ValueError, "input_size must have 4 numbers", ((2, 5, 5), W, X)),
        (TypeError, "input_size must be a sequence", (7, W, X)),
        (TypeError, "input_size must be an int", ((1, 2, 5.0, 5), W, X)),
        (TypeError, "grad_output has dtype float32 and weight has dtype float64", ((1, 2, 5, 5), W, np.float32(X))),
        (TypeError, "missing its argument 'grad_output'", ((1, 2, 5, 5), W)),
    ],
)
def test_input_gradient_refuses(error: type[Exception], text: str, arguments: Any) -> None:
    with pytest.raises(error, match=text):
        ck.grad.conv2d_input(*arguments)


def test_the_layer_explains_torch_s_arguments() -> None:
    with pytest.raises(TypeError, match=r"unlike torch.nn.ConvTranspose2d\(in_channels"):
        ck.ConvTranspose2d(64, 32, 2)

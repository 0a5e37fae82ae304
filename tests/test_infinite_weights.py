"""Infinite weights at the border: under accuracy "strict" padding multiplies like any zero, whatever kernel runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from calls import Array

import convkit as ck
from convkit import _core, reference
from convkit.problem import Problem
from strategies import sample_problems

DIRECT = [kernel for kernel in _core.kernels() if kernel["direct"] and kernel["op"] != "weight_grad"]
# Without padding, on one side, on all; taps that no pixel of a small image meets; strides that skip columns.
SHAPES = [
    {"n": 2, "c": 4, "h": 5, "w": 7, "o": 6, "kh": 3, "kw": 3, "pads": (1, 1, 1, 1)},
    {"n": 1, "c": 4, "h": 1, "w": 1, "o": 4, "kh": 3, "kw": 3, "pads": (1, 1, 1, 1)},
    {"n": 1, "c": 2, "h": 9, "w": 30, "o": 5, "kh": 5, "kw": 5, "pads": (2, 0, 0, 3)},
    {"n": 1, "c": 3, "h": 20, "w": 21, "o": 8, "kh": 3, "kw": 3, "stride": 2, "pads": (1, 1, 1, 1)},
    {"n": 1, "c": 8, "h": 7, "w": 6, "o": 8, "kh": 1, "kw": 1, "stride": 2, "pads": (0, 0, 2, 2)},
    {"n": 1, "c": 8, "h": 12, "w": 10, "o": 8, "kh": 3, "kw": 3, "groups": 8, "pads": (1, 1, 1, 1)},
    {"n": 1, "c": 16, "h": 9, "w": 9, "o": 16, "kh": 3, "kw": 3, "groups": 2, "pads": (2, 2, 1, 1), "dilation": 2},
]


def expected(problem: Problem, x: Array, w: Array) -> Array:
    """The float64 answer; a gradient is the convolution of the spread and padded dy that it is the same as."""
    p = problem
    pads = ((p.pad_top, p.pad_bottom), (p.pad_left, p.pad_right))
    strides, dilations = (p.stride_h, p.stride_w), (p.dilation_h, p.dilation_w)
    with np.errstate(invalid="ignore"):
        if p.op == "forward":
            return reference.conv2d(x, w, None, strides, pads, dilations, p.groups, layout=p.layout)
        return _gradient(p, x if p.layout == "NCHW" else x.transpose(0, 3, 1, 2), w)


def _gradient(p: Problem, dy: Array, w: Array) -> Array:
    dx = np.zeros((p.n, p.c, p.h, p.w))
    outputs, inputs = p.o // p.groups, p.c // p.groups
    for row in range(p.h):
        for column in range(p.w):
            for i in range(p.kh):
                for j in range(p.kw):
                    y, x = row + p.pad_top - i * p.dilation_h, column + p.pad_left - j * p.dilation_w
                    if y % p.stride_h or x % p.stride_w:
                        continue  # no output has this tap at this pixel, inside or outside of the image
                    y, x = y // p.stride_h, x // p.stride_w
                    inside = 0 <= y < p.oh and 0 <= x < p.ow
                    taken = dy[:, :, y, x] if inside else np.zeros((p.n, p.o))
                    for g in range(p.groups):
                        taps = w[g * outputs : (g + 1) * outputs, :, i, j].astype(np.float64)
                        terms = taken[:, g * outputs : (g + 1) * outputs, None] * taps
                        dx[:, g * inputs : (g + 1) * inputs, row, column] += terms.sum(axis=1)
    return dx if p.layout == "NCHW" else dx.transpose(0, 2, 3, 1)


def problems(kernel: Any) -> Iterator[Problem]:
    for shape in SHAPES:
        for layout in kernel["layouts"]:
            sizes = {key: shape[key] for key in ("n", "c", "h", "w", "o", "kh", "kw")}
            stride, dilation = shape.get("stride", 1), shape.get("dilation", 1)
            yield Problem(
                op=kernel["op"], dtype=kernel["dtypes"][0], layout=layout, groups=shape.get("groups", 1),
                stride_h=stride, stride_w=stride, dilation_h=dilation, dilation_w=dilation,
                **sizes, **dict(zip(("pad_top", "pad_bottom", "pad_left", "pad_right"), shape["pads"], strict=True)),
            )  # fmt: skip
    for problem in sample_problems(kernel, 4):
        yield problem.replace(epilogue="none", bias=False, residual=False, packed=False)


@pytest.mark.parametrize("kernel", DIRECT, ids=[kernel["name"] for kernel in DIRECT])
def test_padding_multiplies(kernel: Any) -> None:
    ran = 0
    for seed, problem in enumerate(problems(kernel)):
        if not _core.applies(kernel["index"], problem.to_core()):
            continue
        ran += 1
        rng = np.random.default_rng(seed)
        gradient = problem.op == "input_grad"
        x = rng.standard_normal(problem.y_shape if gradient else problem.x_shape).astype(problem.dtype)
        w = rng.standard_normal(problem.w_shape).astype(problem.dtype)
        w.ravel()[rng.integers(w.size, size=2)] = np.inf, -np.inf
        p = problem
        keywords: dict[str, Any] = {
            "stride": (p.stride_h, p.stride_w),
            "padding": ((p.pad_top, p.pad_bottom), (p.pad_left, p.pad_right)),
            "dilation": (p.dilation_h, p.dilation_w),
            "groups": p.groups,
            "layout": p.layout,
            "algorithm": kernel["name"],
            "accuracy": "strict",
            "num_threads": 2,
        }
        exact = expected(problem, x, w)
        if gradient:
            results = [ck.grad.conv2d_input(p.x_shape, w, x, **keywords)]
        else:
            strided = np.asfortranarray(w)
            results = [ck.conv2d(x, w, **keywords), ck.conv2d(x, strided, **keywords), ck.Conv2d(w, **keywords)(x)]
        for y in results:
            np.testing.assert_array_equal(np.isnan(y), np.isnan(exact), err_msg=str(problem))
            np.testing.assert_array_equal(np.isposinf(y), np.isposinf(exact), err_msg=str(problem))
            np.testing.assert_array_equal(np.isneginf(y), np.isneginf(exact), err_msg=str(problem))
            np.testing.assert_allclose(y[np.isfinite(exact)], exact[np.isfinite(exact)], rtol=2e-4, atol=2e-4)
    assert ran


def test_nan_survives_the_activation_and_reaches_out() -> None:
    x, w = np.ones((1, 8, 6, 6), np.float32), np.ones((8, 8, 3, 3), np.float32)
    w[2, 1, 0, 0] = np.inf
    out = np.empty((1, 8, 6, 12), np.float32)[..., ::2]
    y = ck.conv2d(x, w, padding=1, accuracy="strict", activation="relu6", out=out)
    assert y is out
    assert np.isnan(y[0, 2, 0]).all()
    assert np.isnan(y[0, 2, :, 0]).all()
    assert np.isfinite(y[0, [0, 1, 3, 4, 5, 6, 7]]).all()


def test_updated_weights_are_looked_at_again() -> None:
    x, w = np.ones((1, 4, 5, 5), np.float32), np.ones((4, 4, 3, 3), np.float32)
    layer = ck.Conv2d(w, padding=1, accuracy="strict")
    assert np.isfinite(layer(x)).all()
    w[0, 0, 2, 2] = np.inf
    layer.update(w)
    assert np.isnan(layer(x)[0, 0, -1]).all()
    w[0, 0, 2, 2] = 1
    layer.update(w)
    assert np.isfinite(layer(x)).all()

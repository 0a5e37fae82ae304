"""The oracle against the definition, written out as seven loops, and against the adjoint identity."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from convkit import reference


def by_definition(x: Any, w: Any, stride: Any, pads: Any, dilation: Any, groups: int) -> Any:
    """Cross-correlation as the textbook has it, one output at a time."""
    (top, bottom), (left, right) = pads
    (n, _, h, width), (o, per_group, kh, kw) = x.shape, w.shape
    oh = (h + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, o, oh, ow))
    for image, k, p, q, channel, i, j in itertools.product(*map(range, (n, o, oh, ow, per_group, kh, kw))):
        row, column = p * stride[0] + i * dilation[0] - top, q * stride[1] + j * dilation[1] - left
        if 0 <= row < h and 0 <= column < width:
            group = k // (o // groups)
            y[image, k, p, q] += w[k, channel, i, j] * x[image, group * per_group + channel, row, column]
    return y


CASES = [
    # stride, pads, dilation, groups
    ((1, 1), ((0, 0), (0, 0)), (1, 1), 1),
    ((1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    ((2, 1), ((0, 2), (1, 0)), (1, 2), 1),
    ((1, 3), ((3, 0), (2, 1)), (2, 1), 2),
    ((2, 2), ((1, 0), (0, 1)), (1, 1), 4),
]


@pytest.mark.parametrize(("stride", "pads", "dilation", "groups"), CASES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_forward_is_the_definition(stride: Any, pads: Any, dilation: Any, groups: int, layout: str) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((8, 4 // groups, 3, 2))
    expected = by_definition(x, w, stride, pads, dilation, groups)
    if layout == "NHWC":
        x, expected = x.transpose(0, 2, 3, 1), expected.transpose(0, 2, 3, 1)
    y = reference.conv2d(x, w, None, stride, pads, dilation, groups, layout=layout)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("stride", "pads", "dilation", "groups"), CASES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradients_are_adjoint(stride: Any, pads: Any, dilation: Any, groups: int, layout: str) -> None:
    """<conv(x, w), dy> = <x, input gradient> = <w, weight gradient> for every dy: the definition of a gradient."""
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((8, 4 // groups, 3, 2))
    if layout == "NHWC":
        x = x.transpose(0, 2, 3, 1)
    arguments: Any = (stride, pads, dilation, groups)
    y = reference.conv2d(x, w, None, *arguments, layout=layout)
    dy = rng.standard_normal(y.shape)
    dx = reference.conv2d_input(x.shape, w, dy, *arguments, layout=layout)
    dw = reference.conv2d_weight(x, w.shape, dy, *arguments, layout=layout)
    assert dx.shape == x.shape
    assert dw.shape == w.shape
    product = np.vdot(y, dy)
    np.testing.assert_allclose([np.vdot(x, dx), np.vdot(w, dw)], product, rtol=1e-11)


@pytest.mark.parametrize("output_padding", [0, 1])
def test_transposed_convolution_undoes_the_size(output_padding: int) -> None:
    rng = np.random.default_rng(3)
    x, w, bias = rng.standard_normal((1, 4, 5, 6)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(6)
    y = reference.conv_transpose2d(x, w, bias, 2, 1, output_padding, groups=2)
    assert y.shape == (1, 6, 9 + output_padding, 11 + output_padding)
    expected = reference.conv2d_input(y.shape, w, x, 2, 1, 1, 2) + bias[:, None, None]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


def test_bias_residual_activation_in_this_order() -> None:
    x, w = np.full((1, 1, 2, 2), -1.0), np.ones((1, 1, 1, 1))
    residual = np.array([0.0, 1.0, 2.0, np.nan]).reshape(1, 1, 2, 2)
    y = reference.conv2d(x, w, [0.5], activation="relu", residual=residual)
    np.testing.assert_array_equal(y.ravel(), [0.0, 0.5, 1.5, np.nan])


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (2, ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        (((0, 1), (2, 3)), ((0, 1), (2, 3))),
        ("valid", ((0, 0), (0, 0))),
        ("same_upper", ((1, 1), (0, 1))),
        ("same_lower", ((1, 1), (1, 0))),
    ],
)
def test_spellings_of_padding(padding: Any, expected: Any) -> None:
    assert reference.resolve_padding(padding, (7, 8), (3, 3), (2, 2), (1, 1)) == expected


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="stride 1"):
        reference.resolve_padding("same", (7, 8), (3, 3), (2, 2), (1, 1))
    with pytest.raises(ValueError, match="does not fit"):
        reference.conv2d(np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 3, 3)))
    with pytest.raises(ValueError, match="groups=2"):
        reference.conv2d(np.zeros((1, 4, 5, 5)), np.zeros((2, 3, 3, 3)), groups=2)

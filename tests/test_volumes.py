"""Convolution along three dimensions, held against sums over depth in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calls import normal
from numpy.typing import NDArray

import convkit as ck
from convkit import reference


def exact(x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> NDArray[np.float64]:
    """Each slice of the filter with each slice of the input, two by two."""
    d = x.shape[2]
    count = (d + 2 * padding[0] - dilation[0] * (w.shape[2] - 1) - 1) // stride[0] + 1
    found = []
    for place in range(count):
        total: Any = bias[:, None, None]
        for tap in range(w.shape[2]):
            read = place * stride[0] + tap * dilation[0] - padding[0]
            image = x[:, :, read] if 0 <= read < d else np.zeros_like(x[:, :, 0])
            total = total + reference.conv2d(image, w[:, :, tap], None, stride[1:], padding[1:], dilation[1:], groups)
        found.append(total)
    return np.stack(found, axis=2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [((1, 1, 1), (0, 0, 0), (1, 1, 1), 1), ((2, 1, 2), (1, 2, 0), (1, 1, 1), 2), ((1, 2, 1), (2, 1, 2), (2, 1, 2), 4)],
)
def test_calls(dtype: str, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    x = normal(2, 4, 7, 8, 9, dtype=dtype)
    w, bias = normal(8, 4 // groups, 3, 2, 3, dtype=dtype), normal(8, dtype=dtype)
    y = ck.conv3d(x, w, bias, stride, padding, dilation, groups)
    right = exact(x, w, bias, stride, padding, dilation, groups)
    assert y.dtype == x.dtype
    assert y.shape == right.shape
    assert np.allclose(y, right, atol=1e-4 if dtype == "float32" else 1e-12)
    relu = ck.conv3d(x[0], w, bias, stride, padding, dilation, groups, activation="relu", num_threads=1)
    assert np.allclose(relu, np.maximum(right[0], 0), atol=1e-4)


def test_sizes() -> None:
    w = normal(5, 3, 2, 3, 4)
    assert ck.conv3d(normal(0, 3, 6, 7, 8), w, padding=1).shape == (0, 5, 7, 7, 7)
    x = normal(1, 3, 6, 7, 8)
    same = ck.conv3d(x, w, padding="same")
    assert same.shape == (1, 5, 6, 7, 8)
    assert np.allclose(same[:, :, :-1, 1:-1, 1:-2], ck.conv3d(x, w, padding="valid"), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"x": normal(3, 5, 5)}, ValueError, "x must have 5 dimensions"),
        ({"groups": 2}, ValueError, "do not go together with groups=2"),
        ({"stride": (1, 1)}, TypeError, "stride must be an int or three of them"),
        ({"dilation": 0}, ValueError, "dilation must be at least 1"),
        ({"padding": "full"}, ValueError, "padding must be 'valid', 'same' or numbers"),
        ({"padding": "same", "stride": 2}, ValueError, "needs a stride of 1"),
        ({"dilation": 3}, ValueError, "the dilated filter is deeper than the padded input, 7 slices on 5"),
    ],
)
def test_what_is_wrong(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"x": normal(1, 3, 5, 9, 9), "w": normal(4, 3, 3, 3, 3)} | change
    with pytest.raises(error, match=text):
        ck.conv3d(**arguments)

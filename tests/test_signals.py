"""Convolutions along one dimension, held against the oracle's along two, and their arguments."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from calls import check, normal

import convkit as ck
from convkit import reference


def upright(x: Any, layout: str) -> Any:
    """Signals as images with a height of 1."""
    return x[..., None, :] if layout == "NCW" else x[:, None]


@pytest.mark.parametrize("layout", ["NCW", "NWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (2, (3,), 1, 2), ([1], "same", [3], 1), (3, ((2, 0),), 2, 2), (2, "same_lower", 1, 1)],
)
def test_calls_and_layers(layout: Any, dtype: str, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    x = normal(2, 4, 17, dtype=dtype) if layout == "NCW" else normal(2, 17, 4, dtype=dtype)
    w, bias = normal(6, 4 // groups, 4, dtype=dtype), normal(6, dtype=dtype)
    options: dict[str, Any] = {"layout": layout, "activation": "relu"}
    y = ck.conv1d(x, w, bias, stride, padding, dilation, groups, **options)
    sides = padding if isinstance(padding, str) else padding if isinstance(padding, int) else padding[0]
    in_2d: dict[str, Any] = {
        "stride": (1, np.ravel(stride)[0]),
        "padding": sides if isinstance(sides, str) else ((0, 0), (sides, sides) if isinstance(sides, int) else sides),
        "dilation": (1, np.ravel(dilation)[0]),
        "groups": groups,
        "layout": "NCHW" if layout == "NCW" else "NHWC",
        "activation": "relu",
    }
    check(upright(y, layout), upright(x, layout), w[:, :, None], bias, **in_2d)
    conv = ck.Conv1d(w, bias, stride, padding, dilation, groups, **options)
    residual, out = np.ones_like(y), np.empty_like(y)
    for layer in (conv, copy.copy(conv), pickle.loads(pickle.dumps(conv))):
        assert layer(x, out) is out
        assert np.allclose(out, y, atol=1e-4)
        check(upright(layer(x, residual=residual), layout), upright(x, layout), w[:, :, None], bias,
              residual=upright(residual, layout), **in_2d)  # fmt: skip
    assert np.allclose(ck.conv1d(x[0], w, bias, stride, padding, dilation, groups, **options), y[0], atol=1e-4)
    assert ck.conv1d(x, w, bias, stride, padding, dilation, groups, out=out, residual=out, **options) is out


@pytest.mark.parametrize("layout", ["NCW", "NWC"])
def test_transposed_calls(layout: Any) -> None:
    x = normal(2, 6, 9) if layout == "NCW" else normal(2, 9, 6)
    w, bias = normal(6, 2, 5), normal(4)
    y = ck.conv_transpose1d(x, w, bias, 3, ((1, 2),), (2,), 2, 2, layout=layout)
    exact = reference.conv_transpose2d(
        upright(x, layout), w[:, :, None], bias, (1, 3), ((0, 0), (1, 2)), (0, 2), 2, (1, 2),
        layout="NCHW" if layout == "NCW" else "NHWC",
    )  # fmt: skip
    assert np.allclose(upright(y, layout), exact, atol=1e-4)
    out = np.empty_like(y)
    assert ck.conv_transpose1d(x, w, bias, 3, ((1, 2),), 2, 2, 2, layout=layout, out=out) is out


def test_a_layer_s_weights() -> None:
    w, bias, x = normal(4, 3, 5), normal(4), normal(1, 3, 20)
    conv = ck.Conv1d(w, bias, copy=False, memory="low")
    assert np.shares_memory(conv.weight, w)
    assert conv.weight.shape == w.shape
    assert conv.packed_nbytes == 0 < conv.nbytes
    assert repr(conv).startswith("<convkit.Conv1d 3 -> 4, 5, float32")
    conv.update(2 * w, bias=bias)
    assert np.allclose(conv(x), ck.conv1d(x, 2 * w, bias), atol=1e-4)
    assert conv.bias is not None
    assert ck.Conv1d(w).bias is None


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"x": normal(3, 3, 3, 3)}, ValueError, "x must have 3 dimensions, or 2 without a batch"),
        ({"w": normal(4, 3)}, ValueError, "w must have 3 dimensions"),
        ({"layout": "NCHW"}, ValueError, "layout must be 'NCW' or 'NWC', not 'NCHW'"),
        ({"stride": (1, 1)}, TypeError, "stride must be an int or one in a sequence"),
        ({"padding": (1, 1)}, TypeError, "padding must be an int"),
        ({"padding": "full"}, ValueError, "padding"),
        ({"x": [[1.0]]}, TypeError, "x must be a NumPy array"),
        ({"residual": normal(1, 4, 3)}, ValueError, "residual has shape"),
    ],
)
def test_what_is_wrong(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"x": normal(1, 3, 9), "w": normal(4, 3, 3)} | change
    with pytest.raises(error, match=text):
        ck.conv1d(**arguments)

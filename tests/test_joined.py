"""Layers of images whose channels lie in several arrays: as if they were joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calls import check, normal

import convkit as ck
from convkit import _core

# Channels of the parts, of the result; height, width.
CASES = [
    ((16, 16), 64, 9, 11),
    ((5, 32, 1, 20), 70, 7, 9),
    ((3,) * 32, 17, 3, 5),
    ((64, 32, 32, 32), 130, 13, 13),
    ((7,), 1, 1, 1),
]


def images(channels: Any, height: int, width: int, dtype: str, n: int = 2) -> list[Any]:
    """The second one lies in a larger image, another one is read-only."""
    found = [normal(n, height, width, c, dtype=dtype, seed=i) for i, c in enumerate(channels)]
    if len(found) > 1:
        wide = normal(n, height, width, channels[1] + 9, dtype=dtype)
        wide[..., 4 : 4 + channels[1]] = found[1]
        found[1] = wide[..., 4 : 4 + channels[1]]
        found[0].flags.writeable = False
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_pointwise_kernels_read_parts(case: Any, dtype: str) -> None:
    channels, outputs, height, width = case
    parts = images(channels, height, width, dtype)
    x = np.concatenate(parts, axis=3)
    w, bias = normal(outputs, x.shape[3], 1, 1, dtype=dtype), normal(outputs, dtype=dtype)
    residual = normal(2, height, width, outputs, dtype=dtype)
    names = [kernel["name"] for kernel in _core.kernels()]
    pointwise = [name for name in names if name.startswith(f"f{dtype[-2:]}_pointwise_nhwc__")]
    assert pointwise
    for name in pointwise:
        options: dict[str, Any] = {"layout": "NHWC", "algorithm": name, "activation": "silu"}
        for threads in (1, 2):
            conv = ck.Conv2d(w, bias, num_threads=threads, **options)
            with ck.profile() as calls:
                y = conv.joined(parts)
            assert [record.kernel for record in calls.records] == [name]
            assert np.array_equal(y, conv(x))  # sums in the same order
            check(y, x, w, bias, layout="NHWC", activation="silu")
            check(conv.joined(parts, residual), x, w, bias, layout="NHWC", activation="silu", residual=residual)
        late = ck.Conv2d(w, memory="low", scale=2, shift=bias, residual_after=True, **options)
        asked = {"scale": 2, "shift": bias, "residual_after": True, "residual": residual}
        check(late.joined(tuple(parts), residual=residual), x, w, layout="NHWC", activation="silu", **asked)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_kernels_have_them_joined(dtype: str) -> None:
    parts = images((16, 8), 12, 10, dtype)
    x, w = np.concatenate(parts, axis=3), normal(8, 24, 3, 3, dtype=dtype)
    conv = ck.Conv2d(w, padding=1, layout="NHWC")
    for _ in range(2):
        assert np.array_equal(conv.joined(parts), conv(x))
    grouped = ck.Conv2d(w[:, :12, :1, :1], groups=2, layout="NHWC", algorithm="pointwise")
    assert np.array_equal(grouped.joined(parts), grouped(x))
    up = ck.ConvTranspose2d(normal(24, 5, 2, 2, dtype=dtype), stride=2, layout="NHWC")
    assert np.array_equal(up.joined(parts), up(x))


def test_parts_without_channels_and_batches_without_images() -> None:
    w = normal(6, 9, 1, 1)
    conv = ck.Conv2d(w, layout="NHWC")
    parts = images((0, 4, 0, 5), 3, 4, "float32")
    check(conv.joined(parts), np.concatenate(parts, axis=3), w, layout="NHWC")
    assert conv.joined(images((4, 5), 3, 4, "float32", n=0)).shape == (0, 3, 4, 6)


X = normal(1, 3, 4, 5)
CONV = ck.Conv2d(normal(6, 10, 1, 1), layout="NHWC")


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: CONV.joined([]), ValueError, "parts must be 1 to 32 arrays, not 0"),
        (lambda: CONV.joined([X] * 33), ValueError, "parts must be 1 to 32 arrays, not 33"),
        (lambda: CONV.joined(3), TypeError, "parts must be a sequence of arrays"),
        (lambda: CONV.joined([X, "x"]), TypeError, "part must be a NumPy array"),
        (lambda: CONV.joined([X, X[:, 1:]]), ValueError, "differ in their channels only"),
        (lambda: CONV.joined([X, X.astype(float)]), TypeError, "part is float64, but the first one is float32"),
        (lambda: CONV.joined([X, X[..., ::-1]]), ValueError, "channels side by side"),
        (lambda: CONV.joined([X, X[0]]), ValueError, "4 dimensions"),
        (lambda: CONV.joined([X]), ValueError, "channels"),
        (lambda: CONV.joined([X, X], X), ValueError, "residual"),
        (lambda: CONV.joined(), TypeError, "parts"),
        (lambda: ck.Conv2d(normal(6, 10, 1, 1)).joined([X, X]), ValueError, "layout='NHWC'"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call()

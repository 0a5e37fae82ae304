"""`convkit.images` on every instruction set, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shims import fresh

from convkit import _core, images

X = np.zeros((1, 4, 5, 8), np.float32)
ROWS = np.zeros(3, np.int64)
READ_ONLY = np.zeros((4, 5, 8), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize("isa", _core.build_info()["isas"])
def test_every_function_is_numpys(isa: str) -> None:
    if isa not in _core.usable_isas():
        pytest.skip(f"this CPU cannot run {isa}")
    script = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from convkit import _core
        from image_calls import check_all
        assert _core.active_isa() == sys.argv[2]
        check_all()
    """
    fresh(script, str(Path(__file__).parent), isa, CONVKIT_ISA=isa)


def test_results_are_the_same_for_every_team() -> None:
    x = np.random.default_rng(0).normal(size=(1, 200, 300, 48)).astype(np.float32)
    flat, pieces = x.reshape(1, -1, 48), x.reshape(50, -1, 48)
    y = images.pool(x, 3, 2, 1, 1, (100, 150))
    for one, two in (
        [images.moments(flat, True, n)[1] for n in (1, 2)],
        [images.scale_shift(flat, activation="gelu", num_threads=n) for n in (1, 2)],
        [images.layer_norm(flat[0], num_threads=n) for n in (1, 2)],
        [images.pool(x, 3, 2, 1, 1, (100, 150), num_threads=n) for n in (1, 2)],
        [images.pool_gradient(y, x, y, 3, 2, 1, 1, n) for n in (1, 2)],
        [images.gradient_sums(pieces, pieces, activation="relu", num_threads=n)[1] for n in (1, 2)],
        [images.scale_gradient(pieces, pieces, activation="relu", num_threads=n) for n in (1, 2)],
    ):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: images.pool(X[0], 2, 2, 1, 0, 2), ValueError, "x must have 4 dimensions"),
        (lambda: images.pool(X[:, ::2], 2, 2, 1, 0, 2), ValueError, "x must be C-contiguous"),
        (lambda: images.pool(X.astype(np.int32), 2, 2, 1, 0, 2), TypeError, "x has dtype int32"),
        (lambda: images.pool(X, 0, 2, 1, 0, 2), ValueError, "kernel"),
        (lambda: images.pool(X, 2, 2, 1, 0, 2, np.ones(2, np.float32)), ValueError, "both or not at all"),
        (
            lambda: images.pool(X, 2, 2, 1, 0, 2, np.ones(3, np.float32), np.ones(2, np.float32)),
            ValueError,
            "row_factors must have the shape",
        ),
        (lambda: images.pool(X, 2, 2, 1, 0, 2, np.ones(2), np.ones(2)), TypeError, "row_factors is float64"),
        (lambda: images.pool(X, 1, 1, 1, 0, 2**31 - 1), MemoryError, "."),
        (lambda: images.resample(X, ROWS + 4, ROWS), IndexError, "rows has position 4 of 4"),
        (lambda: images.resample(X, ROWS, ROWS - 1), IndexError, "columns has position -1 of 5"),
        (
            lambda: images.resample(X, ROWS.astype(np.int32), ROWS),
            TypeError,
            "rows must be a contiguous array of int64",
        ),
        (lambda: images.resample(X, ROWS, ROWS, ROWS[:2], ROWS), ValueError, "rows_above has 2 positions"),
        (lambda: images.resample(X, ROWS, ROWS, ROWS, ROWS), TypeError, "row_weights and column_weights"),
        (lambda: images.moments(X[0, :, :0]), ValueError, "no elements"),
        (lambda: images.scale_shift(X[0], np.ones((4, 7), np.float32)), ValueError, "scale must have the shape"),
        (lambda: images.scale_shift(X[0], activation="sine"), ValueError, "activation"),
        (lambda: images.gradient_sums(X[0, 1:], X[0]), ValueError, "dy must have x's shape"),
        (lambda: images.gradient_sums(X[0].astype(float), X[0]), TypeError, "dy is float64"),
        (lambda: images.gradient_sums(X[0], X[0], np.ones(8, np.float32)), ValueError, "centre must have 2 dimensions"),
        (lambda: images.gradient_sums(X[0], X[0], activation="silu"), ValueError, "'clip', lo, hi"),
        (lambda: images.scale_gradient(X[0], X[0], X[0, 0]), ValueError, "dy_factor must have the shape"),
        (lambda: images.scale_gradient(READ_ONLY, X[0], in_place=True), ValueError, "dy is read-only"),
        (lambda: images.pool_gradient(X, X, X[..., 1:].copy(), 1, 1, 1, 0), ValueError, "as many images and channels"),
        (lambda: images.pool_gradient(X, X, X[:, 1:], 1, 1, 1, 0), ValueError, "dy must have y's shape"),
        (lambda: images.pool_gradient(X, X, X.astype(float), 1, 1, 1, 0), TypeError, "y is float64"),
        (lambda: images.pool_gradient(X, X, X, 0, 1, 1, 0), ValueError, "kernel"),
        (lambda: images.layer_norm(X[0, 0], np.ones(5, np.float32)), ValueError, "weight must have the shape"),
        (lambda: images.softmax(X[0, 0], 0), ValueError, "num_threads"),
        (lambda: images.join([]), ValueError, "parts must be 1 to 32 arrays, not 0"),
        (lambda: images.join([X, X[:, 1:]]), ValueError, "differ in their channels only"),
        (lambda: images.join([X, X.astype(float)]), TypeError, "part is float64"),
        (lambda: images.join([X[:, :, ::-1]]), ValueError, "channels side by side"),
        (lambda: images.empty((1, -1), X.dtype), ValueError, "not be negative, not -1"),
        (lambda: images.empty((1, 1), np.complex64), TypeError, "not complex64"),
        (lambda: images.empty((2**31 - 1,) * 4, X.dtype), MemoryError, "larger than any memory"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call()


def test_nothing_in_nothing_out() -> None:
    assert images.softmax(np.zeros((0, 5), np.float32)).shape == (0, 5)
    assert images.pool(X[:0], 2, 2, 1, 0, 2).shape == (0, 2, 2, 8)
    assert images.scale_shift(X[0, :0]).shape == (0, 5, 8)
    assert images.scale_gradient(X[0, :0], X[0, :0]).shape == (0, 5, 8)
    assert images.pool_gradient(X[:0], X[:0], X[:0], 2, 2, 1, 0).shape == (0, 4, 5, 8)
    no_rows = np.zeros((4, 0, 8), np.float32)
    np.testing.assert_array_equal(images.gradient_sums(no_rows, no_rows), np.zeros((2, 4, 8)))


def test_more_parts_than_one_join_takes() -> None:
    parts = [X[..., :3] + i for i in range(70)]
    np.testing.assert_array_equal(images.concatenate(parts), np.concatenate(parts, axis=3))

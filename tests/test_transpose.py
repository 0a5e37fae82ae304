"""transpose, nchw_to_nhwc and nhwc_to_nchw against NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convkit as ck
from convkit import _core

DTYPES = (np.float32, np.float64)


def numbered(shape: tuple[int, ...], dtype: Any) -> Any:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [axes for n in range(1, 5) for axes in itertools.permutations(range(n))])
def test_every_permutation(axes: tuple[int, ...], dtype: Any) -> None:
    for sizes in ((3, 5, 17, 19), (2, 33, 4, 64), (1, 16, 1, 31), (70, 3, 2, 9)):
        x = numbered(sizes[: len(axes)], dtype)
        y = ck.transpose(x, axes)
        np.testing.assert_array_equal(y, x.transpose(axes))
        assert y.flags.c_contiguous
        assert y.dtype == dtype
        assert not np.shares_memory(x, y)


@given(st.data())
def test_any_strides_on_both_sides(data: st.DataObject) -> None:
    ndim = data.draw(st.integers(1, 4))
    axes = data.draw(st.permutations(range(ndim)))
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(st.tuples(*[st.integers(0, 40)] * ndim))

    def strided(sizes: tuple[int, ...]) -> Any:
        steps = [data.draw(st.sampled_from((1, 1, 2, -1, -3))) for _ in sizes]
        base = numbered(tuple(size * abs(step) for size, step in zip(sizes, steps, strict=True)), dtype)
        view = base[tuple(slice(None, None, step) for step in steps)]
        order = data.draw(st.permutations(range(ndim)))
        return np.asarray(view, order=data.draw(st.sampled_from("KF"))).transpose(order).transpose(np.argsort(order))

    x = strided(shape)
    out = strided(tuple(shape[axis] for axis in axes))
    expected = x.transpose(axes)
    np.testing.assert_array_equal(ck.transpose(x, axes), expected)
    assert ck.transpose(x, axes, out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [16, 48])
def test_dense_results_from_anywhere_within_a_line(channels: int, dtype: Any) -> None:
    line = 64 // np.dtype(dtype).itemsize
    for pixels in (1, 2, 7, 16, 33, 300):
        for offset in range(line):
            x = np.empty(2 * channels * pixels + line, dtype)[offset % 5 :][: 2 * channels * pixels]
            x = x.reshape(2, channels, pixels)
            x[...] = numbered(x.shape, dtype)
            memory = np.full(x.size + 3 * line, np.nan, dtype)
            start = -(memory.ctypes.data // memory.itemsize) % line + offset
            out = memory[start : start + x.size].reshape(2, pixels, channels)
            ck.transpose(x, (0, 2, 1), out)
            np.testing.assert_array_equal(out, x.transpose(0, 2, 1))
            assert np.isnan(memory[:start]).all()
            assert np.isnan(memory[start + x.size :]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_that_bypass_the_caches(threads: int, dtype: Any) -> None:
    elements = max(_core.cpu()["l3"] // 4, 1 << 20) // np.dtype(dtype).itemsize + 1
    x = numbered((2, 64, elements // 128 // 256 + 1, 256), dtype)
    y = ck.nchw_to_nhwc(x, num_threads=threads)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(ck.nhwc_to_nchw(y, num_threads=threads), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [1, 4, 7])
def test_results_that_bypass_the_caches_from_within_a_line(offset: int, dtype: Any) -> None:
    rows = max(_core.cpu()["l3"] // 4, 1 << 20) // np.dtype(dtype).itemsize // 96 + 1
    x = numbered((96, rows), dtype)
    out = np.zeros(x.size + offset, dtype)[offset:].reshape(rows, 96)
    np.testing.assert_array_equal(ck.transpose(x, (1, 0), out), x.T)


def test_every_bit_survives() -> None:
    patterns = np.array([0x7F800001, 0xFFC12345, 0x00000001, 0x80000000], dtype=np.uint32).view(np.float32)
    x = np.tile(patterns, (24, 6))
    assert ck.transpose(x, (1, 0)).view(np.uint32).tolist() == x.T.view(np.uint32).tolist()


def test_one_image_and_batches() -> None:
    x = numbered((3, 7, 5), np.float32)
    np.testing.assert_array_equal(ck.nchw_to_nhwc(x), x.transpose(1, 2, 0))
    np.testing.assert_array_equal(ck.nhwc_to_nchw(x), x.transpose(2, 0, 1))
    with pytest.raises(ValueError, match=r"3 or 4 dimensions, not shape \(3, 7\)"):
        ck.nchw_to_nhwc(x[:, :, 0])
    with pytest.raises(TypeError, match="x must be an array, not list"):
        ck.nhwc_to_nchw([[[1.0]]])


@pytest.mark.parametrize("axes", [(0, 1), (0, 1, 1), (0, 1, 3), (0, 1, 2, 3), (-4, 0, 1)])
def test_axes_that_are_no_permutation(axes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="each of the 3 dimensions of x once"):
        ck.transpose(np.zeros((2, 3, 4)), axes)


def test_negative_axes() -> None:
    x = numbered((2, 3, 4), np.float64)
    np.testing.assert_array_equal(ck.transpose(x, (-1, 0, -2)), x.transpose(-1, 0, -2))


def test_arguments_that_do_not_fit() -> None:
    x = np.zeros((4, 6), dtype=np.float32)
    with pytest.raises(TypeError, match="int64"):
        ck.transpose(x.astype(np.int64), (1, 0))
    with pytest.raises(TypeError, match="out is float64, but x is float32"):
        ck.transpose(x, (1, 0), np.zeros((6, 4)))
    with pytest.raises(ValueError, match=r"out has shape \(4, 6\), but the result has \(6, 4\)"):
        ck.transpose(x, (1, 0), np.zeros((4, 6), dtype=np.float32))
    with pytest.raises(ValueError, match="shares memory with x"):
        ck.transpose(x[:, :4], (1, 0), x[:, 2:])
    with pytest.raises(ValueError, match="at most 4"):
        ck.transpose(x[None, None, None], (4, 3, 2, 1, 0))
    with pytest.raises(ValueError, match=r"num_threads must be at least 1 .* not 0"):
        ck.transpose(x, (1, 0), num_threads=0)
    with pytest.raises(TypeError, match="axes must be a sequence of integers"):
        ck.transpose(x, 1)
    with pytest.raises(TypeError, match=r"axes must be an int, not 0\.5"):
        ck.transpose(x, (1, 0.5))
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        ck.transpose(np.ones((6, 4), dtype=np.float32), (1, 0), x)

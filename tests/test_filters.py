"""The compiled filters of images against float64 NumPy, on every instruction set."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from filter_oracle import MODES, converted, correlate, windows
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit import _core
from oracle import Guarded

filters = _core.filters

INTEGERS = tuple(np.dtype(name) for name in ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"))
FLOATS = (np.dtype("f4"), np.dtype("f8"))
# One, primes, both sides of the widths of vectors and of blocks of columns.
SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 67)
WIDE = (1021, 1024, 1025, 1601)

IMAGE, RESULT = Guarded(), Guarded()


@pytest.fixture(params=_core.usable_isas(), scope="module")
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set in turn."""
    return str(request.param)


class Case:
    """Images and how to filter them, drawn by hypothesis."""

    def __init__(self, data: st.DataObject, window: int = 13, inputs: Any = INTEGERS + FLOATS) -> None:
        draw = data.draw
        height, width = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
        if draw(st.integers(0, 9)) == 0:
            height, width = draw(st.sampled_from((3, 5))), draw(st.sampled_from(WIDE))
        self.shape = (draw(st.sampled_from((1, 1, 2))), height, width)
        self.random = np.random.default_rng(draw(st.integers(0, 1000)))
        self.dtype = draw(st.sampled_from(inputs))
        self.image = self.strided(draw, self.dtype, IMAGE)
        self.image[...] = self.values(self.shape)
        self.window = (draw(st.integers(1, window)), draw(st.integers(1, window)))
        self.modes = (draw(st.sampled_from(MODES)), draw(st.sampled_from(MODES)))
        self.cval = draw(st.sampled_from((0.0, 3.0)))
        self.origin = tuple(draw(st.integers(-(size // 2), (size - 1) // 2)) for size in self.window)
        self.threads = draw(st.sampled_from((1, 2, 3)))

    def strided(self, draw: Any, dtype: Any, guarded: Guarded, lead: tuple[int, ...] = ()) -> Any:
        """Memory of the case's shape, mostly dense, full of NaN if the dtype has it, beside what nobody may touch."""
        steps = draw(st.sampled_from(((1, 1, 1), (1, 1, 1), (1, 2, 1), (1, 1, 2), (-1, 1, -1), (1, -2, 1))))
        shape = lead + tuple(size * abs(step) for size, step in zip(self.shape, steps, strict=True))
        memory = guarded.place(np.full(shape, np.nan if dtype.kind == "f" else 1, dtype), draw(st.booleans()))
        return memory[(..., *(slice(None, None, step) for step in steps))]

    def values(self, shape: tuple[int, ...]) -> Any:
        """What the image is filled with."""
        if self.dtype.kind == "f":
            return self.random.standard_normal(shape)
        return self.random.integers(0, 2 if self.dtype.kind == "b" else 100, shape)

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments that all three calls take."""
        return {
            "row_mode": self.modes[0],
            "column_mode": self.modes[1],
            "cval": self.cval,
            "origin": self.origin,
            "threads": self.threads,
        }

    def result(self, draw: Any, lead: tuple[int, ...] = ()) -> Any:
        """Memory for the result: of the image's dtype, or of any."""
        dtype = self.dtype if draw(st.booleans()) else draw(st.sampled_from(INTEGERS + FLOATS))
        return self.strided(draw, dtype, RESULT, lead)

    def check(self, out: Any, expected: Any, magnitude: float) -> None:
        """`out` is what float64 gives, to the rounding of sums that are no larger than `magnitude`."""
        if out.dtype.kind == "f":
            single = out.dtype == np.float32
            np.testing.assert_allclose(out, expected, rtol=0, atol=magnitude * (1e-6 if single else 1e-14))
        else:
            np.testing.assert_array_equal(out, converted(expected, out.dtype))


def whole(case: Case, shape: tuple[int, ...]) -> Any:
    """Weights whose sums are exact, if the image's elements are integers; any otherwise."""
    if case.dtype.kind == "f":
        return case.random.standard_normal(shape)
    return case.random.integers(-4, 5, shape) / 4


@given(st.data())
@settings(max_examples=40)
def test_correlate(isa: str, data: st.DataObject) -> None:
    case = Case(data)
    bank = data.draw(st.sampled_from((0, 0, 1, 3)))
    weights = whole(case, (bank, *case.window) if bank else case.window)
    if data.draw(st.booleans()):
        weights[case.random.random(weights.shape) < 0.5] = 0
    out = case.result(data.draw, (bank,) if bank else ())
    if out.dtype.kind != "f" and case.dtype.kind == "f":
        return
    filters.correlate(case.image, weights, out, isa=isa, **case.keywords)
    for some, got in zip(weights, out, strict=True) if bank else [(weights, out)]:
        expected = correlate(case.image, some, case.modes, case.cval, case.origin)
        case.check(got, expected, 3 + 4 * np.abs(some).sum() * max(1.0, float(np.abs(expected).max())))


@given(st.data())
@settings(max_examples=15)
def test_large_windows_from_fewer_products(isa: str, data: st.DataObject) -> None:
    case = Case(data, window=33, inputs=(np.dtype("f4"),))
    case.window = (data.draw(st.integers(9, 33)), data.draw(st.integers(15, 33)))
    case.origin = (case.origin[0] % 5, case.origin[1] % 5)
    weights = case.random.standard_normal(case.window)
    out = case.strided(data.draw, case.dtype, RESULT)
    filters.correlate(case.image, weights, out, exact=False, isa=isa, **case.keywords)
    expected = correlate(case.image, weights, case.modes, case.cval, case.origin)
    case.check(out, expected, 3 + np.abs(weights).sum())


@given(st.data())
@settings(max_examples=40)
def test_separable(isa: str, data: st.DataObject) -> None:
    case = Case(data, window=data.draw(st.sampled_from((3, 9, 45))))
    taps = [whole(case, (size,)) for size in case.window]
    kind = data.draw(st.sampled_from(("any", "even", "odd")))
    for values in taps:
        if kind != "any" and len(values) % 2:
            values[: len(values) // 2 : 1] = values[: len(values) // 2 : -1] * (1 if kind == "even" else -1)
    rounded = data.draw(st.booleans())
    out = case.result(data.draw)
    if out.dtype.kind != "f" and case.dtype.kind == "f":
        return
    if rounded and out.dtype.kind == "u":  # -1 would become a number whose sums pass the largest
        taps = [np.abs(values) for values in taps]
    filters.separable(case.image, *taps, out, rounded=rounded, isa=isa, **case.keywords)
    down, along = (values.reshape(shape) for values, shape in zip(taps, ((-1, 1), (1, -1)), strict=True))
    middle = correlate(case.image, down, case.modes, case.cval, (case.origin[0], 0))
    if rounded:
        middle = converted(middle, out.dtype)
    expected = correlate(middle, along, case.modes, case.cval, (0, case.origin[1]))
    case.check(out, expected, 10 * np.abs(taps[0]).sum() * np.abs(taps[1]).sum())


@given(st.data())
@settings(max_examples=40)
def test_uniform(isa: str, data: st.DataObject) -> None:
    case = Case(data, window=data.draw(st.sampled_from((3, 9, 70))))
    rounded = data.draw(st.booleans())
    out = case.result(data.draw)
    if out.dtype.kind != "f" and (case.dtype.kind == "f" or not rounded):
        return
    filters.uniform(case.image, *case.window, out, rounded=rounded, isa=isa, **case.keywords)
    middle = sum(windows(case.image.astype(np.float64), 1, case.window[0], case.origin[0], case.modes[0], case.cval))
    middle = middle / case.window[0]
    if rounded:
        middle = converted(middle, out.dtype)
    sums = sum(windows(middle.astype(np.float64), 2, case.window[1], case.origin[1], case.modes[1], case.cval))
    case.check(out, sums / case.window[1], 100)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (5, 4), (7, 7), (11, 13), (12, 31)])
def test_windows_inside_a_large_image(isa: str, size: tuple[int, int], at_end: bool) -> None:
    random = np.random.default_rng(3)
    image = IMAGE.place(random.standard_normal((2, 70, 301), np.float32), at_end)
    weights = random.standard_normal(size)
    expected = correlate(image, weights, ("mirror", "wrap"), 0.0, (0, 1))
    for exact in (True, False):
        out = RESULT.place(np.full_like(image, np.nan), at_end)
        filters.correlate(
            image, weights, out, row_mode="mirror", column_mode="wrap", cval=0.0, origin=(0, 1), isa=isa, exact=exact
        )
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6 * (3 + np.abs(weights).sum()))


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.int32])
def test_the_bits_are_scipys(isa: str, dtype: Any) -> None:
    scipy = pytest.importorskip("scipy.ndimage")
    random = np.random.default_rng(4)
    image = (random.random((1, 45, 90)) * 200).astype(dtype)
    out = np.empty_like(image)
    keywords: dict[str, Any] = {"row_mode": "reflect", "column_mode": "reflect", "cval": 0.0, "isa": isa}
    for size in (1, 2, 3, 4, 5, 7, 9, 12, 17):
        whole, half = random.standard_normal(size), random.standard_normal(size // 2)
        middle = whole[: size % 2]
        for taps in (
            whole,
            np.concatenate([half, middle, half[::-1]]),
            np.concatenate([half, 0 * middle, -half[::-1]]),
        ):
            filters.separable(image, taps, taps, out, origin=(0, 0), rounded=True, **keywords)
            expected = scipy.correlate1d(scipy.correlate1d(image[0], taps, 0), taps, 1)
            np.testing.assert_array_equal(out[0], expected)
        weights = random.standard_normal((size, 3))
        filters.correlate(image, weights, out, origin=(0, 0), **keywords)
        np.testing.assert_array_equal(out[0], scipy.correlate(image[0], weights))
        if dtype != np.float64:
            filters.uniform(image, size, size, out, origin=(0, 0), **keywords)
            np.testing.assert_array_equal(out[0], scipy.uniform_filter(image[0], size))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("shape", [(37, 61), (300, 1100)])
def test_every_team_gives_the_same_bits(isa: str, shape: tuple[int, int], dtype: Any) -> None:
    random = np.random.default_rng(5)
    image = (random.random((2, *shape)) * 100).astype(dtype)
    keywords: dict[str, Any] = {"row_mode": "reflect", "column_mode": "wrap", "cval": 0.0, "isa": isa}
    weights, taps = random.standard_normal((2, 5, 7)), random.standard_normal(9)
    large = random.standard_normal((11, 13))
    result = np.float32 if dtype == np.float32 else np.float64
    results = []
    for threads in (1, 2, 3, 7):
        out, bank = np.empty((4, *image.shape), result), np.empty((2, *image.shape), dtype)
        filters.separable(image, taps, taps[:5], out[0], origin=(0, 0), threads=threads, **keywords)
        filters.uniform(image, 11, 6, out[1], origin=(1, -1), threads=threads, **keywords)
        filters.correlate(image, weights[0], out[2], origin=(0, 1), threads=threads, **keywords)
        filters.correlate(image, weights, bank, origin=(0, 1), threads=threads, **keywords)
        filters.correlate(image, large, out[3], origin=(0, 1), threads=threads, exact=False, **keywords)
        results.append((out, bank))
    for out, bank in results[1:]:
        np.testing.assert_array_equal(out, results[0][0])
        np.testing.assert_array_equal(bank, results[0][1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 1), (2, 3)])
def test_windows_much_longer_than_the_image(isa: str, shape: tuple[int, int], mode: str) -> None:
    image = np.arange(1.0, 1 + shape[0] * shape[1]).reshape(1, *shape)
    weights = np.random.default_rng(1).standard_normal((23, 31))
    out = np.full(image.shape, np.nan)
    keywords: dict[str, Any] = {"row_mode": mode, "column_mode": mode, "cval": 2.0, "origin": (-7, 9), "isa": isa}
    filters.correlate(image, weights, out, **keywords)
    np.testing.assert_allclose(out, correlate(image, weights, (mode, mode), 2.0, (-7, 9)), atol=1e-11)
    filters.uniform(image, 23, 31, out, **keywords)
    np.testing.assert_allclose(
        out, correlate(image, np.full((23, 31), 1 / (23 * 31)), (mode, mode), 2.0, (-7, 9)), atol=1e-12
    )


def test_weights_of_zero_meet_nothing() -> None:
    image = np.full((1, 9, 9), np.nan)
    image[0, 4, 4] = 1.0
    image[0, 2, 6] = np.inf
    weights = np.zeros((3, 3))
    weights[1, 1] = 2.0
    out = np.empty_like(image)
    filters.correlate(image, weights, out, row_mode="reflect", column_mode="reflect", cval=0.0, origin=(0, 0))
    np.testing.assert_array_equal(out, 2 * image)


def test_nothing_outside_of_the_result_is_written(isa: str) -> None:
    for offset in (0, 1, 3):
        for width in (5, 16, 29, 64):
            memory = np.full((2, 3, 20, width + 40), 7.0, np.float32)
            image = np.random.default_rng(2).standard_normal((3, 20, width)).astype(np.float32)
            for out in (memory[0, :, 2:-2, offset : offset + width], memory[1, :, 2:-2, offset : offset + width]):
                image = image[:, : out.shape[1]]
                keywords: dict[str, Any] = {"row_mode": "nearest", "column_mode": "mirror", "cval": 0.0, "isa": isa}
                taps = np.array([1.0, 2.0, 1.0])
                filters.separable(image, taps, taps, out, origin=(0, 0), **keywords)
                filters.correlate(image, np.outer(taps, taps), out, origin=(0, 0), **keywords)
                filters.uniform(image, 3, 3, out, origin=(0, 0), **keywords)
                out[...] = 7.0
            np.testing.assert_array_equal(memory, 7.0)


def test_nothing_is_filtered_where_there_is_nothing() -> None:
    for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        image = np.ones(shape)
        out = np.empty(shape)
        filters.correlate(image, np.ones((3, 3)), out, row_mode="wrap", column_mode="mirror", cval=0.0, origin=(0, 0))


def test_arguments_that_do_not_fit() -> None:
    image, out = np.ones((1, 4, 5)), np.empty((1, 4, 5))
    keywords: dict[str, Any] = {"row_mode": "wrap", "column_mode": "wrap", "cval": 0.0, "origin": (0, 0)}
    one = np.ones((1, 1))
    with pytest.raises(ValueError, match="image must have 3 dimensions, not 2"):
        filters.correlate(image[0], one, out, **keywords)
    with pytest.raises(ValueError, match=r"out has shape \(1, 4, 4\), but image has \(1, 4, 5\)"):
        filters.correlate(image, one, out[:, :, :4], **keywords)
    with pytest.raises(ValueError, match="there are 2 filters"):
        filters.correlate(image, np.ones((2, 1, 1)), out, **keywords)
    with pytest.raises(ValueError, match="weights must have 2 or 3 dimensions, not 1"):
        filters.correlate(image, np.ones(3), out, **keywords)
    with pytest.raises(ValueError, match="the window's width must be at least 1, not 0"):
        filters.uniform(image, 1, 0, out, **keywords)
    with pytest.raises(ValueError, match="origin 2 is outside of a window of 3"):
        filters.uniform(image, 3, 3, out, **{**keywords, "origin": (2, 0)})
    with pytest.raises(ValueError, match="row_mode must be reflect, mirror, nearest, wrap or constant, not grid"):
        filters.uniform(image, 1, 1, out, **{**keywords, "row_mode": "grid"})
    with pytest.raises(TypeError, match="image must hold booleans, integers, float32 or float64, not complex128"):
        filters.uniform(image.astype(complex), 1, 1, out, **keywords)
    with pytest.raises(TypeError, match="not >f8"):
        filters.uniform(image.astype(">f8"), 1, 1, out, **keywords)
    with pytest.raises(ValueError, match="isa must be one of usable_isas"):
        filters.uniform(image, 1, 1, out, isa="sse9", **keywords)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        filters.uniform(image, 1, 1, out, **keywords)


def test_a_child_after_fork_filters() -> None:
    code = """
import os
import numpy as np
from convkit import _core
image, out = np.ones((1, 600, 700)), np.empty((1, 600, 700))
def run():
    out[...] = 0
    _core.filters.uniform(image, 9, 9, out, row_mode="wrap", column_mode="wrap", cval=0.0, origin=(0, 0), threads=2)
    assert abs(out - 1).max() < 1e-12
run()
child = os.fork()
run()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

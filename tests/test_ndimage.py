"""Image filters beside SciPy's: any rank, element type, memory order, mode, origin and output."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convkit import ndimage
from convkit.ndimage import dense, separation

scipy_ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")

Array = NDArray[Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

MODES = ("reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap", "grid-constant")
WHOLE = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "bool")
FLOATS = ("float32", "float64", "complex64", "complex128")


def beside(theirs: Array, ours: Array, exact: bool = True) -> None:
    """Fail unless two results are the same: integers to the last bit, or, not `exact`, but for a cut the other way."""
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if ours.dtype.kind in "fc":
        largest = np.abs(theirs).max(initial=1.0)
        assert np.abs(theirs - ours).max(initial=0.0) <= 200 * np.finfo(ours.dtype).eps * largest
    elif exact:
        assert np.array_equal(theirs, ours)
    else:
        apart = theirs.astype(np.int64) - ours.astype(np.int64)
        assert np.abs(apart).max(initial=0) <= 1
        assert np.count_nonzero(apart) <= 0.2 * apart.size


@st.composite
def arrays(draw: Draw, longest: int = 9) -> Array:
    """Arrays of any rank, element type and memory order."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3, 4]))
    shape = [draw(st.integers(1, longest if rank < 3 else 5)) for _ in range(rank)]
    if draw(st.integers(0, 3)) == 0:
        shape[draw(st.sampled_from([0, -1]))] = draw(st.sampled_from([0, 17, 40, 70]))
    dtype = np.dtype(draw(st.sampled_from(WHOLE + 2 * FLOATS)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    if dtype.kind in "iub":
        values = rng.integers(-40 if dtype.kind == "i" else 0, 2 if dtype.kind == "b" else 40, shape).astype(dtype)
    else:
        values = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype("complex128")
        values = (values if dtype.kind == "c" else values.real).astype(dtype)
    order = draw(st.sampled_from(["C", "C", "F", "swapped", "apart", "backwards", "first axis last"]))
    if order == "F":
        return np.asfortranarray(values)
    if order == "swapped":
        return values.astype(dtype.newbyteorder())
    if order == "apart":
        return np.repeat(values, 2, axis=-1)[..., ::2]
    if order == "first axis last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 0, -1)), -1, 0)
    return values[::-1] if order == "backwards" else values


@st.composite
def weights(draw: Draw, shape: tuple[int, ...]) -> Array:
    """Whole numbers, outer products, anything, complex numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kind = draw(st.sampled_from(["whole", "product", "any", "complex"]))
    if kind == "whole":
        return rng.integers(-3, 4, shape).astype(float)
    if kind == "product":
        taps: Any = np.ones(())
        for size in shape:
            taps = np.multiply.outer(taps, rng.integers(-2, 4, size))
        return np.asarray(taps, dtype=float)
    parts = rng.standard_normal((2, *shape))
    return parts[0] + 1j * parts[1] if kind == "complex" else np.asarray(parts[0])


@st.composite
def calls(draw: Draw, name: str) -> tuple[Array, list[Any], dict[str, Any]]:
    """An array and further arguments for a function."""
    x = draw(arrays())
    rank = x.ndim
    keywords: dict[str, Any] = {"mode": draw(st.sampled_from(MODES)), "cval": draw(st.sampled_from([0, 0, 1.5, -3]))}
    axes = draw(st.none() | st.permutations(range(-rank, 0)).map(lambda all_axes: tuple(all_axes[: max(1, rank - 1)])))
    if name in ("gaussian_gradient_magnitude",):
        axes = None
    along = rank if axes is None else len(axes)
    if axes is not None and "1d" not in name and name not in ("sobel", "prewitt"):
        keywords["axes"] = axes if along < rank else tuple(sorted(axes))
    elif "1d" in name or name in ("sobel", "prewitt"):
        keywords["axis"] = draw(st.integers(-rank, rank - 1))
    several = name in ("gaussian_filter", "uniform_filter", "laplace", "gaussian_laplace")
    if several and draw(st.booleans()):
        keywords["mode"] = [draw(st.sampled_from(MODES)) for _ in range(along)]
    positional: list[Any] = []
    sizes = tuple(draw(st.integers(1, 5)) for _ in range(1 if "1d" in name else along))
    turned = "convolve" in name
    if "correlate" in name or turned:
        positional = [draw(weights(sizes))]
        ascending = sorted(axis % rank for axis in keywords.get("axes", range(rank)))
        shifts = {}
        for axis, size in zip(ascending, sizes, strict=False):
            shift = draw(st.integers(-(size // 2), (size - 1) // 2))
            shifts[axis] = -shift - (size % 2 == 0) if turned else shift
        keywords["origin"] = (
            next(iter(shifts.values()))
            if "1d" in name
            else [shifts[axis % rank] for axis in keywords.get("axes", ascending)]
        )
    elif name.startswith("uniform"):
        positional = [sizes[0] if "1d" in name else list(sizes)]
    elif name.startswith("gaussian"):
        positional = [draw(st.sampled_from([0.5, 0.9, 1.4]))]
        if name.startswith("gaussian_filter"):
            keywords["order"] = draw(st.integers(0, 2))
            keywords["radius"] = draw(st.none() | st.integers(0, 4))
    is_complex = x.dtype.kind == "c" or bool(positional and np.iscomplexobj(positional[0]))
    if not is_complex:
        keywords["output"] = draw(st.sampled_from([None, None, "uint8", "int16", "int32", "float32", "float64"]))
    return x, positional, keywords


@pytest.mark.parametrize(
    "name",
    ["convolve", "convolve1d", "correlate", "correlate1d", "gaussian_filter", "gaussian_filter1d",
     "gaussian_gradient_magnitude", "gaussian_laplace", "laplace", "prewitt", "sobel", "uniform_filter",
     "uniform_filter1d"],
)  # fmt: skip
@settings(max_examples=30)
@given(data=st.data())
def test_the_same_as_scipy(name: str, data: st.DataObject) -> None:
    x, positional, keywords = data.draw(calls(name))
    kept = x.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's about casts of numbers that do not fit
        theirs = getattr(scipy_ndimage, name)(x, *positional, **keywords)
        ours = getattr(ndimage, name)(x, *positional, **keywords)
    assert np.array_equal(x, kept)
    sums_are_exact = x.dtype.kind in "iub" and ("corr" in name or "conv" in name or name in ("sobel", "prewitt"))
    whole = not positional or np.array_equal(positional[0], np.rint(np.real(positional[0])))
    if theirs.dtype.kind in "fc" or (sums_are_exact and whole) or name == "laplace":
        beside(theirs, ours, exact=keywords["cval"] != 1.5)
    elif not name.startswith(("gaussian_l", "gaussian_g")):  # there a digit that is cut is squared, or wraps around
        beside(theirs, ours, exact=False)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("mode", MODES[:5])
def test_images_of_many_strips(dtype: str, mode: Any) -> None:
    x = np.random.default_rng(5).integers(0, 255, (301, 517)).astype(dtype)
    taps = np.random.default_rng(6).integers(-9, 9, (7, 6))
    for name, *arguments in (
        ("correlate", taps), ("convolve", np.ones((5, 9))), ("gaussian_filter", 2.5), ("uniform_filter", (9, 4)),
        ("sobel", 0), ("laplace",), ("gaussian_gradient_magnitude", 1.5),
    ):  # fmt: skip
        keywords = {"mode": mode, "cval": 3.0, "output": np.float64 if name.startswith("gaussian_g") else None}
        theirs = getattr(scipy_ndimage, name)(x, *arguments, **keywords)
        beside(theirs, getattr(ndimage, name)(x, *arguments, **keywords), exact=name != "gaussian_filter")


@pytest.mark.parametrize("mode", MODES[:5])
def test_volumes(mode: Any) -> None:
    x = np.random.default_rng(5).integers(0, 255, (5, 3, 9, 11))
    taps = np.random.default_rng(6).integers(-9, 9, (7, 2, 4, 3))
    for dtype in ("uint8", "float32"):
        for axes, weights_ in (((1, 2, 3), taps[0]), (None, taps)):
            keywords: dict[str, Any] = {"mode": mode, "cval": 3.0, "axes": axes, "origin": -1}
            theirs = scipy_ndimage.correlate(x.astype(dtype), weights_, **keywords)
            beside(theirs, ndimage.correlate(x.astype(dtype), weights_, **keywords))


@pytest.mark.parametrize("name", ["correlate", "gaussian_filter", "uniform_filter", "sobel", "laplace"])
def test_outputs_that_overlap(name: str) -> None:
    arguments = {"correlate": [np.arange(12.0).reshape(3, 4)], "gaussian_filter": [1.0]}.get(name, [])
    whole = np.random.default_rng(1).standard_normal((21, 30, 4))
    for view in (lambda a: (a[1:], a[:-1]), lambda a: (a, a), lambda a: (a[..., 0], a[..., 1])):
        held = whole.copy()
        x, output = view(held)
        taps = [arguments[0][..., None]] if name == "correlate" and x.ndim == 3 else arguments
        right = getattr(ndimage, name)(x.copy(), *taps)
        assert getattr(ndimage, name)(x, *taps, output=output) is output
        assert np.array_equal(output, right)
        swapped = np.empty(x.shape, ">f8")
        assert getattr(ndimage, name)(view(whole.copy())[0], *taps, output=swapped) is swapped
        assert np.array_equal(swapped, right)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex64"])
def test_banks(dtype: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 99, (3, 40, 50)).astype(dtype)
    bank = rng.standard_normal((5, 4, 3)) + 1j * rng.standard_normal((5, 4, 3))
    for weights_, axes in ((bank, (1, 2)), (bank.real, (0, 2)), (bank.real[:, None], None), (bank.real[:, 0], (1,))):
        parts = "complex64" if np.iscomplexobj(weights_) or dtype == "complex64" else "float32"
        result = ndimage.correlate_bank(x, weights_, output=parts, axes=axes, mode="wrap")
        for one, taps in zip(result, weights_, strict=True):
            beside(ndimage.correlate(x, taps, output=one.dtype.name, axes=axes, mode="wrap", accuracy="strict"), one)
    square = np.zeros((2, 40, 50), x.dtype if dtype == "complex64" else np.float64)
    assert ndimage.correlate_bank(x[0], bank[:2].real, square, origin=(1, -1)) is square
    beside(ndimage.correlate(x[0], bank[1].real, square.dtype.name, origin=(1, -1)), square[1])


def test_filters_that_are_products() -> None:
    down, along = np.array([1.0, 4.0, 6.0, 4.0, 1.0]), np.array([0.0, -2.0, 3.0, 0.0])
    product = np.outer(down, along)
    for found in (separation.whole_factors(product), separation.factors(product, 2.0**-52)):
        assert found is not None
        assert np.allclose(np.outer(*found), product, rtol=0, atol=1e-13)
    assert separation.whole_factors(product / 3) is None
    assert separation.whole_factors(product + np.eye(5, 4)) is None
    assert separation.factors(product + 1e-6 * np.eye(5, 4), 2.0**-52) is None
    assert separation.factors(product + 1e-9 * np.eye(5, 4), 2.0**-23) is not None
    assert separation.factors(product * np.nan, 2.0**-52) is None
    cube = np.multiply.outer(product, [2.0, 1.0])
    for found in (separation.whole_factors(cube), separation.factors(cube, 2.0**-52)):
        assert found is not None
        assert np.allclose(np.multiply.outer(np.outer(*found[:2]), found[2]), cube)
    pairs = separation.terms(product + np.eye(5, 4), 2.0**-52, 5)
    assert pairs is not None
    assert len(pairs) == 4
    assert np.allclose(sum(np.outer(*pair) for pair in pairs), product + np.eye(5, 4))
    assert separation.whole_factors(np.zeros((3, 3))) is None


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_products_are_separated_unless_strict(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(3).integers(0, 255, (80, 90)).astype(dtype)
    line, short = (np.array([math.comb(n, k) for k in range(n + 1)], dtype=float) for n in (12, 8))
    narrow = np.pad(short, 2)
    difference = np.outer(line, line) / 4096 - np.outer(narrow, narrow) / 256
    for taps in (np.outer(line, line), difference, np.add.outer(line, line)):
        right = scipy_ndimage.correlate(x, taps, "float64", mode="wrap")
        beside(right, ndimage.correlate(x, taps, "float64", mode="wrap", accuracy="strict"))
        beside(right, ndimage.correlate(x, taps, "float64", mode="wrap", accuracy=1e-300))
        with monkeypatch.context() as patch:
            patch.delattr(dense, "_flat")  # what computes them unless they are taken apart
            for accuracy in (None, "standard", "fast", 0.5):
                beside(right, ndimage.correlate(x, taps, "float64", mode="wrap", accuracy=accuracy))
            with pytest.raises(NameError):
                ndimage.correlate(x, taps, "float64", mode="wrap", accuracy="strict")
            with pytest.raises(NameError):  # what lies beyond the edges would be filtered twice
                ndimage.correlate(x, taps, "float64", mode="constant", cval=1)
    # Results that are cut: whole numbers only.
    beside(scipy_ndimage.correlate(x, taps, "uint16"), ndimage.correlate(x, taps, "uint16"))
    taps = np.outer(short, short)
    right = scipy_ndimage.correlate(x, taps, "uint16")
    if dtype == "uint8":
        monkeypatch.delattr(dense, "_flat")
    beside(right, ndimage.correlate(x, taps, "uint16"))


@pytest.mark.parametrize("name", ["correlate", "gaussian_filter", "uniform_filter", "correlate_bank"])
def test_the_same_bits_for_any_number_of_threads(name: str) -> None:
    x = np.random.default_rng(4).standard_normal((3, 130, 140)).astype(np.float32)
    argument: Any = {"correlate": np.arange(35.0).reshape(5, 7), "gaussian_filter": 2.0, "uniform_filter": 5}.get(
        name, np.arange(70.0).reshape(2, 5, 7)
    )
    one, two, many = (getattr(ndimage, name)(x, argument, axes=(1, 2), num_threads=n) for n in (1, 2, 7))
    assert np.array_equal(one, two)
    assert np.array_equal(one, many)


@pytest.mark.parametrize(
    ("name", "arguments", "error", "text"),
    [
        ("correlate", {"weights": [1, 2]}, RuntimeError, r"weights.ndim \(1\) must match len\(axes\) \(2\)"),
        ("correlate", {"weights": np.empty((0, 3))}, RuntimeError, "no filter weights given"),
        ("correlate", {"weights": [["a"]]}, TypeError, "weights must be numbers"),
        ("correlate", {"weights": [[1]], "mode": "edge"}, RuntimeError, "mode is 'edge', it must be one of reflect"),
        ("correlate", {"weights": [[1]], "accuracy": "high"}, ValueError, "accuracy must be 'strict'"),
        ("correlate", {"weights": [[1]], "accuracy": True}, ValueError, "accuracy must be 'strict'"),
        ("correlate", {"weights": [[1]], "num_threads": 0}, ValueError, "num_threads must be at least 1 and below"),
        ("correlate", {"weights": [[1]], "cval": "a"}, TypeError, "cval must be a number"),
        ("correlate", {"weights": [[1]], "cval": 1j}, ValueError, "cval is 1j"),
        ("correlate", {"weights": [[1]], "output": np.empty((2, 2))}, RuntimeError, "output shape not correct"),
        ("correlate", {"weights": [[1]], "output": "float16"}, RuntimeError, "not float16"),
        ("correlate", {"weights": [[1]], "output": complex}, RuntimeError, "must have a real dtype"),
        ("correlate", {"weights": [[1j]], "output": "float32"}, RuntimeError, "output must have complex dtype"),
        ("correlate_bank", {"weights": 1.0}, RuntimeError, "weights must be one filter or more"),
        ("correlate1d", {"weights": [[1]]}, RuntimeError, "no filter weights given"),
        ("correlate1d", {"weights": [1], "axis": 2}, ValueError, "axis 2 is out of bounds"),
        ("convolve1d", {"weights": [1, 1], "origin": 1}, ValueError, "origin is 1; for 2 weights it must be at least"),
        ("gaussian_filter", {"sigma": 1, "radius": 1.5}, ValueError, "Radius must be a nonnegative integer, not 1.5"),
        ("gaussian_filter", {"sigma": 1, "radius": -1}, ValueError, "Radius must be a nonnegative integer, not -1"),
        ("gaussian_filter", {"sigma": 1, "order": -1}, ValueError, "order must be non-negative"),
        ("gaussian_filter", {"sigma": [1]}, RuntimeError, "sigma has 1 items"),
        ("gaussian_filter", {"sigma": 1, "axes": (0, 0)}, ValueError, "axes must be unique"),
        ("gaussian_filter", {"sigma": 1, "axes": (0, 3)}, ValueError, "axes must be from -2 to 1 .*: 3 is out of"),
        ("gaussian_filter1d", {"sigma": 0}, ValueError, "sigma must be greater than 0"),
        ("gaussian_filter", {"sigma": 1e300}, ValueError, "more than 2..31 weights"),
        ("gaussian_filter", {"sigma": 1, "order": 1.5}, TypeError, "order must be an integer, not 1.5"),
        ("correlate_bank", {"weights": np.ones((3, 3))}, RuntimeError, r"be \(K, kh, kw\), got shape \(3, 3\)"),
        ("convolve", {"weights": np.ones((3, 3)), "origin": 5}, ValueError, "origin is 5; for 3 weights"),
        ("convolve", {"weights": np.ones((3, 2)), "origin": (0, 1)}, ValueError, r"origin\[1\] is 1; for 2 weights"),
        ("correlate", {"weights": [[1]], "output": "flaot32"}, TypeError, "output must be an array .* not 'flaot32'"),
        ("sobel", {"axis": 5}, ValueError, "axis must be from -2 to 1 for an input of 2 dimensions: axis 5"),
        ("sobel", {"axis": 1.5}, TypeError, "axis must be an integer, not 1.5"),
        ("gaussian_filter", {"sigma": "2"}, TypeError, "sigma must be a number, or one for each axis, not '2'"),
        ("gaussian_filter1d", {"sigma": "two"}, ValueError, "sigma must be a number, not 'two'"),
        ("gaussian_filter", {"sigma": 2, "truncate": -1}, ValueError, "truncate must be a number of 0 or more, not -1"),
        ("gaussian_filter", {"sigma": 2, "truncate": "4"}, TypeError, "truncate must be a number of 0 or more"),
        ("uniform_filter", {"size": "3"}, TypeError, "size must be a number, or one for each axis, not '3'"),
        ("uniform_filter1d", {"size": 0}, RuntimeError, "size must be at least 1, not 0"),
        ("uniform_filter", {"size": 2**70}, ValueError, "size must be below 2..31"),
    ],
)  # fmt: skip
def test_what_is_wrong(name: str, arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        getattr(ndimage, name)(np.ones((3, 4)), **arguments)


def test_filters_much_longer_than_the_image() -> None:
    x = np.random.default_rng(8).standard_normal((4, 5))
    beside(scipy_ndimage.gaussian_filter(x, 4000), ndimage.gaussian_filter(x, 4000))
    beside(scipy_ndimage.uniform_filter(x, 5001), ndimage.uniform_filter(x, 5001))
    taps = np.random.default_rng(9).standard_normal((100, 101))  # SciPy 1.17 reads wrong elements from 60 on
    padded = np.pad(x, ((50, 49), (50, 50)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps.shape)
    beside(np.einsum("hwij,ij->hw", windows, taps), ndimage.correlate(x, taps))


def test_a_number_is_an_image() -> None:
    beside(scipy_ndimage.correlate(np.float64(3), 2), ndimage.correlate(np.float64(3), 2))
    beside(scipy_ndimage.gaussian_filter(np.array(3), 2), ndimage.gaussian_filter(np.array(3), 2))


def test_arrays_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"input must be of bool, an integer type, .* not float16"):
        ndimage.sobel(np.ones((3, 3), np.float16))
    read_only = np.ones((3, 3))
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="output is read-only"):
        ndimage.sobel(np.ones((3, 3)), output=read_only)
    with pytest.warns(UserWarning, match="promoting specified output dtype to complex"):
        assert ndimage.sobel(np.ones((3, 3), complex), output=np.float32).dtype == np.complex64

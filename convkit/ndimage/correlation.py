"""Filters by weights: correlations and convolutions of any rank, and banks of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from convkit.ndimage.arguments import (
    Array,
    Mode,
    Origins,
    Output,
    array_of,
    axes_of,
    axis_of,
    fresh,
    is_strict,
    mode_of,
    one_each,
    origin_of,
    result_for,
    team,
    weights_of,
)
from convkit.ndimage.complex_parts import by_parts
from convkit.ndimage.dense import Box, bank_filtered, box_filtered
from convkit.ndimage.passes import Pass, filtered
from convkit.typing import Accuracy

__all__ = ["convolve", "convolve1d", "correlate", "correlate1d", "correlate_bank"]

_SIZES = ("kd", "kh", "kw")


def correlate(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: Origins = 0,
    *,
    axes: int | Iterable[int] | None = None,
    accuracy: Accuracy | None = None,
    num_threads: int | None = None,
) -> Array:
    """Correlate an array with weights, as `scipy.ndimage.correlate` does.

    Parameters
    ----------
    input : array_like
        Of bool, integers, float32, float64 or complex numbers, of any rank.
    weights : array_like
        As many dimensions as there are `axes`, which they belong to in ascending order. Complex weights are conjugated.
    output : ndarray or dtype, optional
        Where the result goes, which may be `input`; or its element type. By default a new array of the input's type.
        Integers are cut, not rounded, as SciPy does it.
    mode : {"reflect", "mirror", "nearest", "wrap", "constant"}
        What lies beyond the edges: ``dcba|abcd|dcba``, ``dcb|abcd|cba``, ``aaaa|abcd|dddd``, ``abcd|abcd|abcd`` or
        `cval`. The names grid-mirror (reflect), grid-wrap and grid-constant are known, too.
    cval : scalar
        What lies beyond the edges in mode constant.
    origin : int or sequence of int
        Shift of the filter, for all axes or for each; 0 puts its centre, ``size // 2``, on the pixel.
    axes : int or sequence of int, optional
        The axes to filter along, so that an array may be a stack of images; by default all.
    accuracy : {"strict", "standard", "fast"} or float, optional
        With "strict" each weight is multiplied as it is. Else weights that are an outer product, or the sum of a few,
        to within four roundings of the result's type, are run as one-dimensional filters, which is faster. A number
        allows that if it is at least those four roundings.
    num_threads : int, optional
        Team size; by default as for `convkit.conv2d`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Raises
    ------
    RuntimeError
        If the weights' rank, the output's shape or type, the mode or the number of origins is wrong.
    TypeError
        If an element type is not supported.
    ValueError
        If an origin lies outside of the filter, or axes are.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> ndimage.correlate(image, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], mode="constant")
    array([[ 5.,  8., 12., 12.],
           [17., 25., 30., 27.],
           [21., 32., 36., 28.]])
    """
    taps = weights_of(weights)
    return _in_a_box(input, taps.conj(), output, mode, cval, origin, False, axes, accuracy, num_threads)


def convolve(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: Origins = 0,
    *,
    axes: int | Iterable[int] | None = None,
    accuracy: Accuracy | None = None,
    num_threads: int | None = None,
) -> Array:
    """Convolve an array with weights, as `scipy.ndimage.convolve` does: `correlate` with the weights turned round.

    Parameters
    ----------
    input, weights : array_like
        As in `correlate`. Complex weights are taken as they are.
    output, mode, cval, origin, axes, accuracy, num_threads : optional
        As in `correlate`; a positive origin shifts the filter to the right here.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> impulse = np.zeros((3, 3))
    >>> impulse[1, 1] = 1
    >>> ndimage.convolve(impulse, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    array([[1., 2., 3.],
           [4., 5., 6.],
           [7., 8., 9.]])
    """
    return _in_a_box(input, weights_of(weights), output, mode, cval, origin, True, axes, accuracy, num_threads)


def correlate_bank(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: Origins = 0,
    *,
    axes: int | Iterable[int] | None = None,
    accuracy: Accuracy | None = None,
    num_threads: int | None = None,
) -> Array:
    """Correlate an array with each filter of a bank in one call, which reads the image once for all of them.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    weights : array_like
        Of shape (K, ...): K filters, each as `correlate` takes it.
    output : ndarray or dtype, optional
        Where the result goes, of shape (K, ``*input.shape``), or its element type.
    mode, cval, origin, axes, accuracy, num_threads : optional
        As in `correlate`, the same for all filters.

    Returns
    -------
    ndarray
        Of shape (K, ``*input.shape``): ``result[k]`` is ``correlate(input, weights[k])``.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> slopes = [[[-1, 0, 1]] * 3, [[-1] * 3, [0] * 3, [1] * 3]]
    >>> image = np.arange(25.0).reshape(5, 5)
    >>> ndimage.correlate_bank(image, slopes)[:, 2, 2]
    array([ 6., 30.])
    """
    array, taps = array_of(input), weights_of(weights).conj()
    if taps.ndim < 1 or not len(taps):
        raise RuntimeError(f"weights must be one filter or more, (K, ...), not of shape {taps.shape}")
    box = _box(array, taps, mode, origin, axes, bank=True)
    threads, result_is_complex = team(num_threads), "c" in (array.dtype.kind, taps.dtype.kind)
    result = result_for(output, array, complex_result=result_is_complex, shape=(len(taps), *array.shape))
    strict = is_strict(accuracy, result.dtype)
    target = fresh(result.shape, result.dtype) if np.may_share_memory(array, result) else result

    def real(part: Array, one: Array | None, into: Array, beyond: float) -> None:
        assert one is not None
        bank_filtered(part, into, Box(one, box.axes, box.modes, box.origins), beyond, threads, strict)

    by_parts(real, array, taps, target, cval)
    if target is not result:
        result[...] = target
    return result


def correlate1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    num_threads: int | None = None,
) -> Array:
    """Correlate an array along one axis, as `scipy.ndimage.correlate1d` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    weights : array_like
        One dimension. Complex weights are conjugated.
    axis : int
        The axis to filter along.
    output, mode, cval, origin, num_threads : optional
        As in `correlate`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> from convkit import ndimage
    >>> ndimage.correlate1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([ 8, 26,  8, 12,  7, 28, 36,  9])
    """
    return _along(input, weights_of(weights).conj(), axis, output, mode, cval, origin, False, num_threads)


def convolve1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    num_threads: int | None = None,
) -> Array:
    """Convolve an array along one axis, as `scipy.ndimage.convolve1d` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    weights : array_like
        One dimension. Complex weights are taken as they are.
    axis : int
        The axis to filter along.
    output, mode, cval, origin, num_threads : optional
        As in `convolve`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> from convkit import ndimage
    >>> ndimage.convolve1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([14, 24,  4, 13, 12, 36, 27,  0])
    """
    return _along(input, weights_of(weights), axis, output, mode, cval, origin, True, num_threads)


def _along(
    input: ArrayLike,
    taps: Array,
    axis: int,
    output: Output,
    mode: Mode,
    cval: complex,
    origin: int,
    turned: bool,
    num_threads: int | None,
) -> Array:
    array = array_of(input)
    if taps.ndim != 1 or not taps.size:
        raise RuntimeError(
            f"no filter weights given: weights must have one dimension and items, not shape {taps.shape}"
        )
    place, beyond, shift, threads = (
        axis_of(axis, array.ndim),
        mode_of(mode),
        origin_of(origin, len(taps), turned=turned),
        team(num_threads),
    )
    if turned:
        taps = taps[::-1]
    result = result_for(output, array, complex_result="c" in (array.dtype.kind, taps.dtype.kind))

    def real(part: Array, one: Array | None, into: Array, number: float) -> None:
        assert one is not None
        filtered(part, into, [Pass(place, np.ascontiguousarray(one), beyond, shift)], number, threads)

    by_parts(real, array, taps, result, cval)
    return result


def _in_a_box(
    input: ArrayLike,
    taps: Array,
    output: Output,
    mode: Mode,
    cval: complex,
    origin: Origins,
    turned: bool,
    axes: int | Iterable[int] | None,
    accuracy: Accuracy | None,
    num_threads: int | None,
) -> Array:
    array = array_of(input)
    box = _box(array, taps, mode, origin, axes, turned=turned)
    threads = team(num_threads)
    result = result_for(output, array, complex_result="c" in (array.dtype.kind, taps.dtype.kind))
    strict = is_strict(accuracy, result.dtype)

    def real(part: Array, one: Array | None, into: Array, beyond: float) -> None:
        assert one is not None
        box_filtered(part, into, Box(one, box.axes, box.modes, box.origins), beyond, threads, strict)

    by_parts(real, array, box.weights, result, cval)
    return result


def _box(
    array: Array,
    taps: Array,
    mode: Mode,
    origin: Origins,
    axes: int | Iterable[int] | None,
    *,
    turned: bool = False,
    bank: bool = False,
) -> Box:
    """The filter that arguments describe, checked; `turned` is a convolution."""
    along = axes_of(axes, array.ndim)
    shape = taps.shape[1:] if bank else taps.shape
    if len(shape) != len(along):
        if bank:
            names = ", ".join(("K", *(_SIZES[len(_SIZES) - len(along) :] if len(along) <= len(_SIZES) else ["..."])))
            colours = "; for the colours of (H, W, C) say axes=(0, 1)" if (len(shape), len(along)) == (2, 3) else ""
            raise RuntimeError(
                f"weights must be ({names}), got shape {taps.shape}: as many sizes after K as axes, "
                f"{len(along)}{colours}"
            )
        raise RuntimeError(f"weights.ndim ({len(shape)}) must match len(axes) ({len(along)})")
    if not all(shape):
        raise RuntimeError(f"no filter weights given: weights have shape {taps.shape}")
    shifts = one_each(origin, len(along), "origin")
    ascending = tuple(sorted(along))
    origins = []
    for axis, size in zip(ascending, shape, strict=True):
        place = along.index(axis)
        name = f"origin[{place}]" if isinstance(origin, Iterable) else "origin"
        origins.append(origin_of(shifts[place], size, name, turned=turned))
    if turned:
        taps = np.flip(taps)
    return Box(taps, ascending, (mode_of(mode),) * len(along), tuple(origins))

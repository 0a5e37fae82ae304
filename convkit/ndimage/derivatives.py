"""Filters that find edges: first and second derivatives, alone or of a Gaussian."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convkit.ndimage.arguments import (
    Array,
    Mode,
    Modes,
    Output,
    array_of,
    axes_of,
    axis_of,
    fresh,
    modes_of,
    one_each,
    result_for,
    team,
)
from convkit.ndimage.complex_parts import by_parts
from convkit.ndimage.dense import Box, box_filtered
from convkit.ndimage.passes import Pass, filtered, in_any_order
from convkit.ndimage.smoothing import gaussian_passes, through

__all__ = ["gaussian_gradient_magnitude", "gaussian_laplace", "laplace", "prewitt", "sobel"]

_SLOPE = np.array([-1.0, 0.0, 1.0])
_CURVE = np.array([1.0, -2.0, 1.0])
_CROSS = np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])

# Elements that are squared, added and rooted at a time: they stay in the cache.
_SLAB = 1 << 15

# Writes the filter along the i-th axis into an array.
_Along = Callable[[int, Array], None]


def sobel(
    input: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: Modes = "reflect",
    cval: complex = 0.0,
    *,
    num_threads: int | None = None,
) -> Array:
    """Take Sobel's derivative along an axis, as `scipy.ndimage.sobel` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    axis : int
        The axis of the difference; along all others it is smoothed by 1, 2, 1.
    output : ndarray or dtype, optional
        As in `gaussian_filter`.
    mode : str or sequence of str
        As in `correlate`, for all axes or for each.
    cval : scalar
        What lies beyond the edges in mode constant.
    num_threads : int, optional
        As in `correlate`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> ndimage.sobel(image, axis=0)[1]
    array([32., 32., 32., 32.])
    """
    return _difference(input, np.array([1.0, 2.0, 1.0]), axis, output, mode, cval, num_threads)


def prewitt(
    input: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: Modes = "reflect",
    cval: complex = 0.0,
    *,
    num_threads: int | None = None,
) -> Array:
    """Take Prewitt's derivative along an axis, as `scipy.ndimage.prewitt` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    axis : int
        The axis of the difference; along all others three elements are summed up.
    output, mode, cval, num_threads : optional
        As in `sobel`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> ndimage.prewitt(image, axis=0)[1]
    array([24., 24., 24., 24.])
    """
    return _difference(input, np.ones(3), axis, output, mode, cval, num_threads)


def laplace(
    input: ArrayLike,
    output: Output = None,
    mode: Modes = "reflect",
    cval: complex = 0.0,
    *,
    axes: int | Iterable[int] | None = None,
    num_threads: int | None = None,
) -> Array:
    """Sum up the second differences along all axes, as `scipy.ndimage.laplace` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    output : ndarray or dtype, optional
        As in `gaussian_filter`.
    mode : str or sequence of str
        As in `correlate`, for all axes or for each.
    cval : scalar
        What lies beyond the edges in mode constant.
    axes : int or sequence of int, optional
        The axes to filter along; by default all.
    num_threads : int, optional
        As in `correlate`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> ndimage.laplace(np.eye(3))
    array([[-2.,  2.,  0.],
           [ 2., -4.,  2.],
           [ 0.,  2., -2.]])
    """
    array = array_of(input)
    along, threads = axes_of(axes, array.ndim), team(num_threads)
    passes = [Pass(axis, _CURVE, one) for axis, one in zip(along, modes_of(mode, len(along)), strict=True)]
    result = result_for(output, array, complex_result=array.dtype.kind == "c")

    def real(part: Array, _: Array | None, into: Array, beyond: float) -> None:
        # In floats the two differences may be added before they are rounded, whatever lies beyond the edges.
        if len(passes) == 2 and in_any_order(passes, part, into, 0.0 if into.dtype.kind == "f" else beyond):
            one, other = sorted(passes, key=lambda each: each.axis)
            box = Box(_CROSS, (one.axis, other.axis), (one.mode, other.mode), (0, 0))
            box_filtered(part, into, box, beyond, threads, strict=True)
        else:
            _summed(
                part, into, len(passes), lambda i, target: filtered(part, target, passes[i : i + 1], beyond, threads)
            )

    by_parts(real, array, None, result, cval)
    return result


def gaussian_laplace(
    input: ArrayLike,
    sigma: float | Iterable[float],
    output: Output = None,
    mode: Modes = "reflect",
    cval: complex = 0.0,
    *,
    axes: int | Iterable[int] | None = None,
    truncate: float = 4.0,
    radius: int | Iterable[int] | None = None,
    num_threads: int | None = None,
) -> Array:
    """Sum up the second derivatives of a Gaussian along all axes, as `scipy.ndimage.gaussian_laplace` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    sigma : float or sequence of float
        As in `gaussian_filter`.
    output : ndarray or dtype, optional
        As in `gaussian_filter`.
    mode : str or sequence of str
        As in `correlate`; the i-th mode is that of all axes for the derivative along the i-th.
    cval : scalar
        What lies beyond the edges in mode constant.
    axes : int or sequence of int, optional
        The axes to filter along; by default all.
    truncate, radius, num_threads : optional
        As in `gaussian_filter`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> ndimage.gaussian_laplace(np.eye(5), sigma=1).round(2)[2]
    array([ 0.21, -0.07, -0.27, -0.07,  0.21])
    """
    array = array_of(input)
    along = axes_of(axes, array.ndim)
    deviations = one_each(sigma, len(along), "sigma")
    result = result_for(output, array, complex_result=array.dtype.kind == "c")
    derivative = _of_gaussians(array, along, 2, deviations, mode, cval, truncate, radius, num_threads)
    _summed(array, result, len(along), derivative)
    return result


def gaussian_gradient_magnitude(
    input: ArrayLike,
    sigma: float | Iterable[float],
    output: Output = None,
    mode: Modes = "reflect",
    cval: complex = 0.0,
    *,
    axes: int | Iterable[int] | None = None,
    truncate: float = 4.0,
    radius: int | Iterable[int] | None = None,
    num_threads: int | None = None,
) -> Array:
    """Length of a Gaussian's gradient, as `scipy.ndimage.gaussian_gradient_magnitude` computes it.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    sigma : float or sequence of float
        As in `gaussian_filter`.
    output : ndarray or dtype, optional
        As in `gaussian_filter`. Squares are stored in this type, too: integers may overflow.
    mode : str or sequence of str
        As in `gaussian_laplace`.
    cval : scalar
        What lies beyond the edges in mode constant.
    axes : int or sequence of int, optional
        The axes to filter along; by default all. Along the others nothing is filtered, where SciPy 1.17 smooths.
    truncate, radius, num_threads : optional
        As in `gaussian_filter`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> image = np.add.outer(np.arange(9.0) * 3, np.arange(9.0) * 4)
    >>> float(ndimage.gaussian_gradient_magnitude(image, sigma=1)[4, 4].round(2))
    5.0
    """
    array = array_of(input)
    along = axes_of(axes, array.ndim)
    deviations = one_each(sigma, len(along), "sigma")
    result = result_for(output, array, complex_result=array.dtype.kind == "c")
    if not along:
        result[...] = array
        return result
    derivative = _of_gaussians(array, along, 1, deviations, mode, cval, truncate, radius, num_threads)
    direct = result.flags.c_contiguous and not np.may_share_memory(array, result)
    total = result if direct else fresh(result.shape, result.dtype)
    part = total if len(along) == 1 else fresh(result.shape, result.dtype)
    derivative(0, total)
    for i in range(1, len(along)):
        derivative(i, part)
        _add_squares(total, part, first=i == 1, last=i == len(along) - 1)
    if len(along) == 1:
        np.sqrt(np.multiply(total, total, out=total), out=total, casting="unsafe")
    if total is not result:
        result[...] = total
    return result


def _difference(
    input: ArrayLike,
    smooth: Array,
    axis: int,
    output: Output,
    mode: Modes,
    cval: complex,
    num_threads: int | None,
) -> Array:
    array = array_of(input)
    place, modes = axis_of(axis, array.ndim), modes_of(mode, array.ndim)
    passes = [Pass(place, _SLOPE, modes[place])]
    passes += [Pass(other, smooth, modes[other]) for other in range(array.ndim) if other != place]
    return through(passes, array, output, cval, team(num_threads))


def _of_gaussians(
    array: Array,
    axes: tuple[int, ...],
    order: int,
    sigmas: Sequence[float],
    mode: Modes | Mode,
    cval: complex,
    truncate: float,
    radius: int | Iterable[int] | None,
    num_threads: int | None,
) -> _Along:
    """Derivatives of a Gaussian along one axis, smoothed along the others."""
    modes, threads = modes_of(mode, len(axes)), team(num_threads)
    reach: Any = one_each(radius, len(axes), "radius")
    passes = []
    for i in range(len(axes)):
        orders = [order * (i == j) for j in range(len(axes))]
        each = gaussian_passes(axes, sigmas, orders, [modes[i]] * len(axes), truncate, reach)
        passes.append(sorted(each, key=lambda one: one.axis))

    def along(i: int, target: Array) -> None:
        through(passes[i], array, target, cval, threads)

    return along


def _add_squares(total: Array, part: Array, first: bool, last: bool) -> None:
    """Add the squares of `part`, to those of `total` at first; in the end take roots."""
    lines, others = total.reshape(-1), part.reshape(-1)
    for begin in range(0, lines.size, _SLAB):
        line, other = lines[begin : begin + _SLAB], others[begin : begin + _SLAB]
        if first:
            np.multiply(line, line, out=line)
        np.multiply(other, other, out=other)
        np.add(line, other, out=line)
        if last:
            np.sqrt(line, out=line, casting="unsafe")


def _summed(array: Array, result: Array, count: int, along: _Along) -> None:
    """Sum up what a filter gives along each of some axes; `result` may be `array`."""
    if not count:
        result[...] = array
        return
    apart = count == 1 or not np.may_share_memory(array, result)
    total = result if apart else fresh(result.shape, result.dtype)
    along(0, total)
    part = fresh(result.shape, result.dtype) if count > 1 else total
    for i in range(1, count):
        along(i, part)
        np.add(total, part, out=total)
    if total is not result:
        result[...] = total

"""Filters that smooth: Gaussians and their derivatives, means."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from operator import index

import numpy as np
from numpy.typing import ArrayLike

from convkit.ndimage.arguments import (
    Array,
    Mode,
    Modes,
    Origins,
    Output,
    array_of,
    axes_of,
    axis_of,
    mode_of,
    modes_of,
    one_each,
    ordered,
    origin_of,
    result_for,
    team,
    whole,
)
from convkit.ndimage.complex_parts import by_parts
from convkit.ndimage.passes import Pass, filtered

__all__ = ["gaussian_filter", "gaussian_filter1d", "gaussian_passes", "through", "uniform_filter", "uniform_filter1d"]

# Axes with a smaller deviation are not filtered.
_LEAST_SIGMA = 1e-15

_LONGEST = 2**31


def gaussian_filter(
    input: ArrayLike,
    sigma: float | Iterable[float],
    order: int | Iterable[int] = 0,
    output: Output = None,
    mode: Modes = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | Iterable[int] | None = None,
    axes: int | Iterable[int] | None = None,
    num_threads: int | None = None,
) -> Array:
    """Smooth an array by a Gaussian, as `scipy.ndimage.gaussian_filter` does, or take a Gaussian's derivatives.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    sigma : float or sequence of float
        Standard deviation in pixels, for all axes or for each; an axis with 0 is not filtered.
    order : int or sequence of int
        0 smooths; n takes the n-th derivative along an axis.
    output : ndarray or dtype, optional
        As in `correlate`. What is between two axes is stored in this type: integers are cut there, too.
    mode : str or sequence of str
        As in `correlate`, for all axes or for each.
    cval : scalar
        What lies beyond the edges in mode constant.
    truncate : float
        The filter ends after this many standard deviations.
    radius : int or sequence of int, optional
        The filter has ``2 * radius + 1`` weights, whatever `truncate` is.
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
    >>> image = np.zeros((5, 5), dtype=np.float32)
    >>> image[2, 2] = 1
    >>> float(ndimage.gaussian_filter(image, sigma=0.8).sum().round(5))
    1.0
    """
    array = array_of(input)
    along = axes_of(axes, array.ndim)
    passes = gaussian_passes(along, sigma, order, modes_of(mode, len(along)), truncate, radius)
    return through(passes, array, output, cval, team(num_threads))


def gaussian_filter1d(
    input: ArrayLike,
    sigma: float,
    axis: int = -1,
    order: int = 0,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | None = None,
    num_threads: int | None = None,
) -> Array:
    """Smooth an array along one axis by a Gaussian, as `scipy.ndimage.gaussian_filter1d` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    sigma : float
        Standard deviation in pixels.
    axis : int
        The axis to filter along.
    order, output, mode, cval, truncate, radius, num_threads : optional
        As in `gaussian_filter`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Examples
    --------
    >>> from convkit import ndimage
    >>> ndimage.gaussian_filter1d([1.0, 2.0, 3.0, 4.0, 5.0], 1).round(3)
    array([1.427, 2.068, 3.   , 3.932, 4.573])
    """
    array = array_of(input)
    place = axis_of(axis, array.ndim)
    one = Pass(place, _gaussian_taps(sigma, order, truncate, radius), mode_of(mode))
    return through([one], array, output, cval, team(num_threads))


def uniform_filter(
    input: ArrayLike,
    size: int | Iterable[int] = 3,
    output: Output = None,
    mode: Modes = "reflect",
    cval: complex = 0.0,
    origin: Origins = 0,
    *,
    axes: int | Iterable[int] | None = None,
    num_threads: int | None = None,
) -> Array:
    """Replace each element by the mean of those around it, as `scipy.ndimage.uniform_filter` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    size : int or sequence of int
        Elements whose mean is taken, along all axes or along each.
    output : ndarray or dtype, optional
        As in `gaussian_filter`.
    mode, cval : optional
        As in `gaussian_filter`.
    origin : int or sequence of int
        As in `correlate`.
    axes : int or sequence of int, optional
        The axes to filter along; by default all.
    num_threads : int, optional
        As in `correlate`.

    Returns
    -------
    ndarray
        `output`, or a new array.

    Notes
    -----
    Sums run along the lines in float64, so that the time does not depend on `size`.

    Examples
    --------
    >>> import numpy as np
    >>> from convkit import ndimage
    >>> ndimage.uniform_filter(np.eye(3) * 9, 3, mode="constant")
    array([[2., 2., 1.],
           [2., 3., 2.],
           [1., 2., 2.]])
    """
    array = array_of(input)
    along = axes_of(axes, array.ndim)
    each = zip(
        along,
        one_each(size, len(along), "size"),
        modes_of(mode, len(along)),
        one_each(origin, len(along), "origin"),
        strict=True,
    )
    passes = [
        _mean(axis, int(count), beyond, shift) for axis, count, beyond, shift in each if ordered(count, "size") > 1
    ]
    return through(passes, array, output, cval, team(num_threads))


def uniform_filter1d(
    input: ArrayLike,
    size: int,
    axis: int = -1,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    num_threads: int | None = None,
) -> Array:
    """Replace each element by the mean of those before and after it, as `scipy.ndimage.uniform_filter1d` does.

    Parameters
    ----------
    input : array_like
        As in `correlate`.
    size : int
        Elements whose mean is taken.
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
    >>> ndimage.uniform_filter1d([2, 8, 0, 4, 1, 9, 9, 0], size=3)
    array([4, 3, 4, 1, 4, 6, 6, 3])
    """
    array = array_of(input)
    place = axis_of(axis, array.ndim)
    if ordered(size, "size") < 1:
        raise RuntimeError(f"incorrect filter size: size must be at least 1, not {size}")
    one = _mean(place, int(size), mode_of(mode), origin)
    return through([one], array, output, cval, team(num_threads))


def _mean(axis: int, size: int, mode: str, origin: int) -> Pass:
    if size >= _LONGEST:
        raise ValueError(f"size must be below 2**31, not {size}")
    return Pass(axis, size, mode, origin_of(origin, size))


def through(passes: list[Pass], array: Array, output: Output, cval: complex, threads: int) -> Array:
    """An array, real or complex, through passes."""
    result = result_for(output, array, complex_result=array.dtype.kind == "c")

    def real(part: Array, _: Array | None, into: Array, beyond: float) -> None:
        filtered(part, into, passes, beyond, threads)

    by_parts(real, array, None, result, cval)
    return result


def gaussian_passes(
    axes: tuple[int, ...],
    sigma: float | Iterable[float],
    order: int | Iterable[int],
    modes: Iterable[str],
    truncate: float,
    radius: int | Iterable[int] | None,
) -> list[Pass]:
    """Gaussians along axes; `sigma`, `order` and `radius` for all or for each."""
    each = zip(
        axes,
        one_each(sigma, len(axes), "sigma"),
        one_each(order, len(axes), "order"),
        modes,
        one_each(radius, len(axes), "radius"),
        strict=True,
    )
    return [
        Pass(axis, _gaussian_taps(deviation, derivative, truncate, reach), mode)
        for axis, deviation, derivative, mode, reach in each
        if ordered(deviation, "sigma") > _LEAST_SIGMA
    ]


def _gaussian_taps(sigma: float, order: int, truncate: float, radius: int | None) -> Array:
    try:
        deviation = float(sigma)
    except (TypeError, ValueError) as error:
        raise type(error)(f"sigma must be a number, not {sigma!r}") from error
    if not 0 < deviation < math.inf:
        raise ValueError(f"sigma must be greater than 0 and finite, not {sigma}")
    if radius is None:
        try:
            reach = int(truncate * deviation + 0.5)
        except (TypeError, ValueError) as error:
            raise type(error)(f"truncate must be a number of 0 or more, not {truncate!r}") from error
        except OverflowError as error:
            raise OverflowError(f"sigma {sigma} and truncate {truncate} ask for more than 2**31 weights") from error
        if reach < 0:
            raise ValueError(f"truncate must be a number of 0 or more, not {truncate!r}")
    else:
        try:
            reach = index(radius)
        except TypeError as error:
            raise ValueError(f"Radius must be a nonnegative integer, not {radius!r}") from error
    if reach < 0:
        raise ValueError(f"Radius must be a nonnegative integer, not {reach}")
    if 2 * reach >= _LONGEST:
        raise ValueError(f"sigma {sigma} and truncate {truncate} ask for more than 2**31 weights")
    derivative = whole(order, "order")
    if derivative < 0:
        raise ValueError(f"order must be non-negative, not {order}")
    return _gaussian(deviation, derivative, reach)


@lru_cache(maxsize=64)
def _gaussian(sigma: float, order: int, radius: int) -> Array:
    """A Gaussian, or its derivative, sampled at whole numbers, as weights of a correlation."""
    x = np.arange(-radius, radius + 1)
    smooth = np.exp(-0.5 / sigma**2 * x**2)
    smooth = smooth / smooth.sum()
    # A derivative is a polynomial p times the Gaussian: p becomes p' - x * p / sigma**2.
    powers = np.arange(order + 1)
    polynomial = np.zeros(order + 1)
    polynomial[0] = 1
    next_one = np.diag(powers[1:], 1) + np.diag(np.ones(order) / -(sigma**2), -1)
    for _ in range(order):
        polynomial = next_one @ polynomial
    if order:
        smooth = (x[:, None] ** powers) @ polynomial * smooth
    taps = np.ascontiguousarray(smooth[::-1])
    taps.flags.writeable = False
    return taps

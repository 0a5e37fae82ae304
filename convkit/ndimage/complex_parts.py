"""Complex arrays and weights as sums of real filters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convkit.ndimage.arguments import Array, number_of

__all__ = ["by_parts"]


def by_parts(
    real: Callable[[Array, Array | None, Array, float], None],
    input: Array,
    weights: Array | None,
    output: Array,
    cval: complex,
) -> None:
    """Run a filter of real numbers on the real and the imaginary parts of its input and its weights.

    Parameters
    ----------
    real : callable
        Takes an input, weights, an output and a cval, all real.
    input : ndarray
    weights : ndarray or None
        None for a filter that has no weights of the caller's.
    output : ndarray
        Complex if `input` or `weights` are.
    cval : complex
    """
    complex_input = input.dtype.kind == "c"
    beyond = number_of(cval, real=not complex_input)
    if weights is None or weights.dtype.kind != "c":
        if not complex_input:
            real(input, weights, output, beyond.real)
            return
        for part, result, number in zip(_parts(input), _parts(output), (beyond.real, beyond.imag), strict=True):
            real(part, weights, result, number)
        return
    taps = [np.ascontiguousarray(part) for part in _parts(weights)]
    if not complex_input:
        for one, result in zip(taps, _parts(output), strict=True):
            real(input, one, result, beyond.real)
        return
    # (a + bi)(c + di): output may be input, so that it is written when all is read.
    parts = _parts(input)
    numbers = beyond.real, beyond.imag
    products = np.empty((2, 2, *output.shape), output.real.dtype.newbyteorder("="))
    for i, part in enumerate(parts):
        for j, one in enumerate(taps):
            real(part, one, products[i, j], numbers[i])
    output.real = products[0, 0] - products[1, 1]
    output.imag = products[0, 1] + products[1, 0]


def _parts(array: Array) -> tuple[Array, Array]:
    return array.real, array.imag

"""The construction behind the Winograd kernels, in exact arithmetic.

winograd_matrices.hpp builds A^T, G and B^T from interpolation points; the same construction is repeated here over the
field Q(sqrt 2), where sqrt(1/2) and sqrt(2) are exact, and shown to be the correlation. That the compiled transforms
are a correlation too is shown by their answer to single pixels and single taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from convkit import _core
from convkit.problem import Problem


class Surd:
    """a + b sqrt(2) with rational a and b."""

    def __init__(self, a: Any = 0, b: Any = 0) -> None:
        self.a, self.b = Fraction(a), Fraction(b)

    def __add__(self, other: Surd) -> Surd:
        return Surd(self.a + other.a, self.b + other.b)

    def __sub__(self, other: Surd) -> Surd:
        return Surd(self.a - other.a, self.b - other.b)

    def __mul__(self, other: Surd) -> Surd:
        return Surd(self.a * other.a + 2 * self.b * other.b, self.a * other.b + self.b * other.a)

    def __truediv__(self, other: Surd) -> Surd:
        norm = other.a**2 - 2 * other.b**2
        return self * Surd(other.a / norm, -other.b / norm)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Surd) and (self.a, self.b) == (other.a, other.b)

    def __hash__(self) -> int:
        return hash((self.a, self.b))


ZERO, ONE = Surd(), Surd(1)


def paired(*points: Surd, zero: bool = True) -> list[Surd]:
    """The points of a tile but infinity, in the order of the kernels: 0, then pairs."""
    signed = [sign * p for p in points for sign in (Surd(1), Surd(-1))]
    return [ZERO, *signed] if zero else signed


def rational(*values: str) -> list[Surd]:
    return [Surd(Fraction(value)) for value in values]


SQRT = paired(Surd(0, Fraction(1, 2)), Surd(0, 1))
NO_ZERO = paired(*rational("3/10", "9/10", "9/5"), zero=False)
HALVES = paired(*rational("1", "2", "1/2"))
TILES = {
    (2, 3): paired(ONE),
    (4, 3): SQRT,
    (5, 3): NO_ZERO,
    (6, 3): HALVES,
    (4, 2): paired(*rational("2/5", "4/3"), zero=False),
    (2, 5): SQRT,
    (3, 5): NO_ZERO,
    (4, 5): HALVES,
    (4, 7): paired(*rational("2/5", "4/5", "5/4", "5/2")),
}


def power(x: Surd, e: int) -> Surd:
    value = ONE
    for _ in range(e):
        value = value * x
    return value


def matrices(m: int, r: int, points: Sequence[Surd]) -> tuple[list[list[Surd]], ...]:
    """A^T (m x n), G (n x r) and B^T (n x n) of F(m, r)."""
    n = m + r - 1
    assert len(points) == n - 1

    def polynomial(roots: Sequence[Surd]) -> list[Surd]:
        row = [ONE]
        for root in roots:
            row = [low - root * high for low, high in zip([ZERO, *row], [*row, ZERO], strict=True)]
        return row + [ZERO] * (n - len(row))

    at, g, bt = [], [], []
    for j, point in enumerate(points):
        others = [p for k, p in enumerate(points) if k != j]
        divisor = ONE
        for other in others:
            divisor = divisor * (point - other)
        bt.append(polynomial(others))
        g.append([power(point, k) / divisor for k in range(r)])
    bt.append(polynomial(points))
    g.append([ZERO] * (r - 1) + [ONE])
    at = [[power(p, k) for p in points] + [ONE if k == m - 1 else ZERO] for k in range(m)]
    return at, g, bt


@pytest.mark.parametrize(("m", "r"), list(TILES))
def test_the_construction_is_the_correlation(m: int, r: int) -> None:
    at, g, bt = matrices(m, r, TILES[m, r])
    n = m + r - 1
    for output in range(m):
        for tap in range(r):
            for pixel in range(n):
                total = ZERO
                for j in range(n):
                    total = total + at[output][j] * g[j][tap] * bt[j][pixel]
                assert total == (ONE if pixel == output + tap else ZERO)


WINOGRAD = [k for k in _core.kernels() if "_winograd_" in k["name"] and k["op"] == "forward"]


@pytest.mark.parametrize("kernel", WINOGRAD, ids=[kernel["name"] for kernel in WINOGRAD])
def test_a_pixel_and_a_tap_meet_where_they_should(kernel: Any) -> None:
    """One pixel through one tap gives one output; everything else is rounding of the transforms."""
    tile, taps = kernel["name"].split("__")[0].rsplit("_", 2)[1:]
    (my, mx), (ry, rx) = (tuple(map(int, text.split("x"))) for text in (tile, taps))
    dtype = kernel["dtypes"][0]
    # A strided kernel's taps are those of a phase.
    stride = 2 if "_strided_" in kernel["name"] else 1
    ry, rx = stride * ry, stride * rx
    h, w = (stride * (m - 1) + r for m, r in ((my, ry), (mx, rx)))
    problem = Problem(1, 1, h, w, ry * rx, ry, rx, stride_h=stride, stride_w=stride, dtype=dtype, layout="NHWC")
    parameters = _core.candidates(kernel["index"], problem.to_core(), 1)[0]
    filters = np.eye(ry * rx, dtype=dtype).reshape(ry * rx, 1, ry, rx)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    for pixel in np.ndindex(problem.h, problem.w):
        x = np.zeros((1, problem.h, problem.w, 1), dtype)
        x[0, *pixel, 0] = 1
        y = _core.Runner(kernel["index"], parameters, problem.to_core(), 1, x, filters, poison=True).run()
        expected = np.zeros((my, mx, ry, rx))
        for output in np.ndindex(my, mx):
            tap = pixel[0] - stride * output[0], pixel[1] - stride * output[1]
            if 0 <= tap[0] < ry and 0 <= tap[1] < rx:
                expected[output + tap] = 1
        np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=0, atol=tolerance)

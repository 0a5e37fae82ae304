"""Problems for hypothesis: shapes that some kernel or other was written for, with every size that has a tail."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from hypothesis import strategies as st

from convkit import _core
from convkit.problem import Problem

# One, primes, and both sides of each vector width and of the 64-channel panel.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 97, 128, 130)
# Multiply-adds of one example at most: the oracle and the slowest kernel stay within milliseconds.
BUDGET = 3_000_000


class Family(NamedTuple):
    """A family of shapes: the ranges that the sizes are drawn from."""

    kernels: tuple[tuple[int, int], ...]
    strides: tuple[int, ...] = (1,)
    dilations: tuple[int, ...] = (1,)
    pads: tuple[int, ...] = (0, 1, 1, 1, 2)
    channels: tuple[int, ...] = CHANNELS
    groups: tuple[int, ...] = (1,)
    depthwise: bool = False
    sizes: tuple[int, ...] = ()  # rows and columns of the input, instead of any
    symmetric: bool = False  # as many outputs as channels, one stride for both axes


FAMILIES = {
    "pointwise": Family(((1, 1),), strides=(1, 1, 2), pads=(0, 0, 0, 1)),
    "3x3": Family(((3, 3),)),
    "3x3 strided": Family(((3, 3),), strides=(1, 2, 2, 3)),
    "3x3 on two pixels": Family(((3, 3),), pads=(1,), sizes=(2,)),
    "4x4 with stride 2": Family(((4, 4),), strides=(2,), pads=(0, 1, 1, 2), groups=(1, 1, 2)),
    "5x5 and 6x6 with stride 2": Family(((5, 5), (5, 6), (6, 6)), strides=(2,), pads=(0, 1, 2, 2, 3), groups=(1, 1, 2)),
    "3x3 dilated": Family(((3, 3),), dilations=(1, 2, 3), pads=(0, 1, 2, 3)),
    "5x5": Family(((5, 5),), pads=(0, 1, 2, 2)),
    "row or column": Family(((1, 3), (3, 1), (1, 7), (7, 1), (1, 5)), pads=(0, 0, 0, 1, 3)),
    "stem": Family(((3, 3), (5, 5), (7, 7), (11, 11)), strides=(1, 2, 4), pads=(0, 1, 2, 3), channels=(1, 2, 3, 4)),
    "depthwise": Family(((3, 3), (5, 5), (3, 3), (7, 7)), strides=(1, 1, 2), pads=(0, 1, 2), depthwise=True),
    "depthwise, whole vectors": Family(
        ((3, 3),), strides=(1, 2), pads=(0, 1, 1), channels=(8, 16, 32, 48), depthwise=True, symmetric=True
    ),
    "grouped": Family(((1, 1), (3, 3), (2, 4)), strides=(1, 2), groups=(2, 3, 4, 8), channels=(1, 2, 3, 4, 8, 16, 20)),
    "groups in a vector": Family(
        ((3, 3),), strides=(1, 1, 2), groups=(2, 3, 5, 8), channels=(2, 2, 4, 8, 16), symmetric=True
    ),
    "anything": Family(
        ((1, 2), (2, 2), (2, 3), (4, 4), (3, 5), (6, 1)),
        strides=(1, 2, 3, 5),
        dilations=(1, 1, 2, 3),
        pads=(0, 1, 2, 4),
        groups=(1, 1, 2),
    ),
}


class Source:
    """Draws from hypothesis, or from a plain random generator: one description of the shapes for both."""

    def __init__(self, draw: Any = None, rng: random.Random | None = None) -> None:
        self.draw, self.rng = draw, rng

    def choice(self, values: tuple[Any, ...]) -> Any:
        """One of the values."""
        return self.rng.choice(values) if self.rng else self.draw(st.sampled_from(values))

    def integer(self, least: int, most: int) -> int:
        """An integer of a closed range."""
        return self.rng.randint(least, most) if self.rng else self.draw(st.integers(least, most))


def make_problem(source: Source, kernel: Mapping[str, Any], family: Family) -> Problem:
    """A problem of `family` in an operation, dtype and layout that `kernel` declares."""
    kh, kw = source.choice(family.kernels)
    c, o = source.choice(family.channels), source.choice(CHANNELS)
    groups = c if family.depthwise else source.choice(family.groups)
    if family.depthwise:
        o = c * source.choice((1, 1, 1, 2))
    elif groups > 1:
        c, o = c * groups, source.choice((1, 2, 3, 4, 8, 16, 20)) * groups
    stride_h, stride_w = source.choice(family.strides), source.choice(family.strides)
    if family.symmetric:
        o, stride_w = c, stride_h
    dilation_h, dilation_w = source.choice(family.dilations), source.choice(family.dilations)
    top, bottom, left, right = (source.choice(family.pads) for _ in range(4))
    n = source.choice((1, 1, 2, 3))
    per_pixel = n * (c // groups) * o * kh * kw
    most = max(1, min(24, int((BUDGET / per_pixel) ** 0.5)))
    reach_h, reach_w = dilation_h * (kh - 1) + 1, dilation_w * (kw - 1) + 1
    h = max(1, reach_h - top - bottom) + source.integer(0, most * stride_h - 1) % 40
    w = max(1, reach_w - left - right) + source.integer(0, most * stride_w - 1) % 40
    if family.sizes:
        h, w = source.choice(family.sizes), source.choice(family.sizes)
    return Problem(
        op=kernel["op"],
        dtype=kernel["dtypes"][0],
        layout=source.choice(tuple(kernel["layouts"])),
        n=n,
        c=c,
        h=h,
        w=w,
        o=o,
        kh=kh,
        kw=kw,
        stride_h=stride_h,
        stride_w=stride_w,
        pad_top=top,
        pad_bottom=bottom,
        pad_left=left,
        pad_right=right,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        groups=groups,
        epilogue=source.choice(("none", "clamp", "other")) if kernel["op"] != "weight_grad" else "none",
        bias=source.choice((False, True)) if kernel["op"] != "weight_grad" else False,
        residual=source.choice((False, True)) if kernel["op"] != "weight_grad" else False,
        packed=source.choice((True, False)),
    )


def families_of(kernel: Mapping[str, Any]) -> tuple[str, ...]:
    """Families with members that the kernel takes, found with a fixed sample of each."""
    return _families_of(kernel["index"])


@cache
def _families_of(index: int) -> tuple[str, ...]:
    kernel = _core.kernels()[index]
    found = []
    for name, family in FAMILIES.items():
        rng = random.Random(0)
        sample = (make_problem(Source(rng=rng), kernel, family) for _ in range(200))
        taken = (problem for problem in sample if _core.applies(kernel["index"], problem.to_core()))
        if len(list(islice(taken, 5))) == 5:
            found.append(name)
    return tuple(found)


def sample_problems(kernel: Mapping[str, Any], count: int, seed: int = 1) -> list[Problem]:
    """A fixed sample of problems that the kernel takes, from each of its families in turn."""
    rng = random.Random(seed)
    problems: list[Problem] = []
    families = families_of(kernel)
    while len(problems) < count:
        family = FAMILIES[families[len(problems) % len(families)]]
        problem = make_problem(Source(rng=rng), kernel, family)
        if _core.applies(kernel["index"], problem.to_core()):
            problems.append(problem)
    return problems


def problems(kernel: Mapping[str, Any]) -> st.SearchStrategy[Problem]:
    """Problems that the kernel takes."""

    @st.composite
    def drawn(draw: Any) -> Problem:
        family = FAMILIES[draw(st.sampled_from(families_of(kernel)))]
        return make_problem(Source(draw=draw), kernel, family)

    return drawn().filter(lambda problem: _core.applies(kernel["index"], problem.to_core()))

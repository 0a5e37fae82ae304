"""Calls with absurd numbers, for a process of its own: a right answer, ValueError or MemoryError is all that may come.

``python hostile.py EXAMPLES`` runs the same examples each time, ``python hostile.py EXAMPLES SEED`` others; a last line
"clean" says that all went well. Before each step it is written to the file that HOSTILE_LOG names, so that a crash or a
hang can be told. Sizes are log-uniform up to 2**62, in shapes that take no memory: broadcast views of a few numbers.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis
import numpy as np
from hypothesis import strategies as st

import convkit as ck
from convkit import _core, reference
from oracle import Operands
from strategies import problems

MEMORY = 1 << 30  # bytes that a call may have beyond what the process holds: little, so that none takes long
WORK = 1 << 23  # multiply-adds of a call that is run, and elements of its operands
EXACT = 1 << 18  # of one that is held against the oracle
HANG = 120.0  # seconds for one example

KERNELS = _core.kernels()
outcomes: Counter[str] = Counter()
_log = open(os.environ.get("HOSTILE_LOG", os.devnull), "w+", encoding="utf-8")  # noqa: SIM115 # for the whole process


class Geometry(NamedTuple):
    """A convolution, its result's size included. Fields are what a caller may write, sensible or not."""

    n: int
    channels: int  # of a group
    outputs: int  # of a group
    groups: int
    h: int
    w: int
    kh: int
    kw: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    top: int
    bottom: int
    left: int
    right: int

    @property
    def padding(self) -> Any:
        return (self.top, self.bottom), (self.left, self.right)

    @property
    def padded(self) -> tuple[int, int]:
        return self.h + self.top + self.bottom, self.w + self.left + self.right

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the result; below 1 where there is none."""
        (rows, columns), (sh, sw), (dh, dw) = self.padded, self.stride, self.dilation
        if min(sh, sw) < 1:
            return 0, 0
        return (rows - dh * (self.kh - 1) - 1) // sh + 1, (columns - dw * (self.kw - 1) - 1) // sw + 1

    @property
    def x(self) -> tuple[int, ...]:
        return self.n, self.channels * self.groups, self.h, self.w

    @property
    def weights(self) -> tuple[int, ...]:
        return self.outputs * self.groups, self.channels, self.kh, self.kw

    @property
    def y(self) -> tuple[int, ...]:
        return self.n, self.outputs * self.groups, *self.size

    @property
    def work(self) -> int:
        return math.prod(self.y) * self.channels * self.kh * self.kw

    @property
    def tensors(self) -> tuple[tuple[int, ...], ...]:
        return self.x, self.weights, self.y


@st.composite
def any_size(draw: st.DrawFn) -> int:
    """Log-uniform up to 2**62, near a power of two as often as not."""
    exponent = draw(st.integers(0, 62))
    least = 1 << exponent
    return draw(st.sampled_from((least - 1, least, least + 1)) | st.integers(least, 2 * least - 1))


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Small problems of which a few numbers are absurd, alone or in proportion to each other."""
    scale = draw(any_size())
    hostile = draw(st.integers(0, 2**15 - 1)) & draw(st.integers(0, 2**15 - 1))  # a quarter of the fields
    fields = iter(range(15))

    def number(small: st.SearchStrategy[int], least: int = 1) -> int:
        if not hostile >> next(fields) & 1:
            return draw(small)
        related = st.sampled_from((scale, scale + 1, scale - 1, scale // 2, scale // 3, 2 * scale))
        return max(draw(related | any_size()), least) if draw(st.integers(0, 50)) else draw(st.integers(-2, 0))

    few, taps, pads = st.integers(1, 9), st.integers(1, 7), st.integers(0, 3)
    n, channels, outputs, groups = (number(few) for _ in range(4))
    kh, kw = number(taps), number(taps)
    stride, dilation = (number(few), number(few)), (number(st.integers(1, 3)), number(st.integers(1, 3)))
    top, bottom, left, right = (number(pads, 0) for _ in range(4))
    h, w = number(st.integers(1, 20)), draw(st.integers(1, 20))
    found = Geometry(n, channels, outputs, groups, h, w, kh, kw, stride, dilation, top, bottom, left, right)
    if draw(st.integers(0, 3)):  # large enough for the filter
        rows, columns = found.padded
        more = draw(st.integers(0, 9))
        h += max(0, dilation[0] * (kh - 1) + 1 + more - rows)
        w += max(0, dilation[1] * (kw - 1) + 1 + more - columns)
    return found._replace(h=h, w=w)


@st.composite
def large_geometries(draw: st.DrawFn) -> Geometry:
    """Problems as large as any that is not refused: 51 bits shared among images, channels, rows and columns."""
    cuts = sorted(draw(st.tuples(*[st.integers(0, 51)] * 3)))
    n, channels, rows, columns = (1 << min(b - a, 30) for a, b in zip((0, *cuts), (*cuts, 51), strict=True))

    def log_uniform(most: int) -> int:
        return min(most, draw(st.integers(0, 3)) + (1 << draw(st.integers(0, max(most, 1).bit_length() - 1))))

    def axis(size: int) -> tuple[int, ...]:
        taps = draw(st.sampled_from((1, 2, 3, 4, 5, 7))) if draw(st.integers(0, 2)) else log_uniform(size)
        taps = min(taps, size)
        dilation = log_uniform((size - 1) // (taps - 1)) if taps > 1 and draw(st.booleans()) else 1
        before = log_uniform(size - 1) if draw(st.booleans()) else min(1, size - 1)
        after = log_uniform(size - 1 - before) if draw(st.booleans()) else 0
        return size - before - after, taps, log_uniform(2 * size), dilation, before, after

    h, kh, stride_h, dilation_h, top, bottom = axis(rows)
    w, kw, stride_w, dilation_w, left, right = axis(columns)
    groups = 1 << draw(st.integers(0, channels.bit_length() - 1))
    outputs = max(1, draw(st.sampled_from((1, channels, log_uniform(channels)))) // groups)
    pairs: Any = (stride_h, stride_w), (dilation_h, dilation_w)
    return Geometry(n, channels // groups, outputs, groups, h, w, kh, kw, *pairs, top, bottom, left, right)


def view(shape: tuple[int, ...], dtype: str) -> Any:
    """An array of this shape that takes little memory: sizes of up to 64 elements hold data, the others repeat it."""
    base, elements = [], 1
    for size in shape:
        own = size if 0 <= size * elements <= 64 else 1
        base.append(own)
        elements *= own
    values = np.random.default_rng(base).standard_normal(base).astype(dtype)
    return np.broadcast_to(values, shape)


def told(what: str, *arguments: Any) -> None:
    """Write down what is about to happen."""
    _log.seek(0)
    _log.truncate()
    _log.write(f"{what}{arguments}\n")
    _log.flush()


def close(y: Any, exact: Callable[..., Any], first: Any, second: Any, work: int) -> None:
    """Fail unless `y` is the oracle's answer."""
    if work > EXACT or y.size > EXACT:
        return
    try:
        expected = exact(first, second)
        magnitude = exact(np.abs(first), np.abs(second))
    except MemoryError:
        return  # the oracle pads the input
    assert y.shape == expected.shape
    bound = np.finfo(y.dtype).eps * (400.0 * magnitude.max(initial=0.0) + 4.0) * max(1.0, math.log2(work + 2) / 8)
    assert np.all(np.abs(y - expected) <= bound)


def may_run(geometry: Geometry, element: int) -> bool:
    """Whether the call ends soon: by being refused, for want of memory, or because there is little to do."""
    if min(geometry.size) < 1 or geometry.work <= WORK >= max(math.prod(t) for t in geometry.tensors):
        return True
    return max(math.prod(t) for t in geometry.tensors) * element > 2 * MEMORY


def padded_pixels(geometry: Geometry) -> int:
    return math.prod(geometry.padded) * geometry.n * geometry.channels * geometry.groups


def run_calls(geometry: Geometry, dtype: str, layout: str, options: dict[str, Any]) -> None:
    """Every public call on one geometry; `options` are those of all."""
    g = geometry
    try:
        x, w, dy = (view(t, dtype) for t in g.tensors)
    except ValueError:
        return  # NumPy has no such array
    if layout == "NHWC":
        x, dy = x.transpose(0, 2, 3, 1), dy.transpose(0, 2, 3, 1)
    keywords = {"stride": g.stride, "dilation": g.dilation, "groups": g.groups, "layout": layout, **options}
    known: Any = (g.stride, g.padding, g.dilation, g.groups)
    oracle = padded_pixels(g) <= 16 * EXACT

    def attempt(what: str, call: Callable[..., Any], exact: Callable[..., Any], first: Any, second: Any) -> None:
        told(what, g, dtype, layout, options)
        try:
            y = call()
        except (ValueError, MemoryError) as error:
            outcomes[type(error).__name__] += 1
            return
        outcomes["results"] += 1
        if oracle:
            close(y, exact, first, second, g.work)

    if not may_run(g, x.itemsize):
        told("problem_of", g, dtype, layout, options)
        try:
            problem, threads = _core.problem_of(x, w, padding=g.padding, **keywords)
            ck.explain(x, w, padding=g.padding, **keywords)
        except (ValueError, MemoryError):
            return
        ask_kernels(problem, threads)
        return

    def forward(a: Any, b: Any) -> Any:
        return reference.conv2d(a, b, None, *known, layout=layout)

    attempt("conv2d", lambda: ck.conv2d(x, w, padding=g.padding, **keywords), forward, x, w)
    attempt("Conv2d", lambda: ck.Conv2d(w, padding=g.padding, **keywords)(x), forward, x, w)
    for name in ("same_upper", "same_lower"):
        told(name, g, dtype, layout, options)
        try:  # the result's size is another one: what it may cost is not known before
            problem, threads = _core.problem_of(x, w, padding=name, **keywords)
        except (ValueError, MemoryError):
            continue
        ask_kernels(problem, threads)
    attempt(
        "conv2d_input",
        lambda: ck.grad.conv2d_input(x.shape, w, dy, padding=g.padding, **keywords),
        lambda a, b: reference.conv2d_input(x.shape, b, a, *known, layout=layout),
        dy,
        w,
    )
    attempt(
        "conv2d_weight",
        lambda: ck.grad.conv2d_weight(x, w.shape, dy, padding=g.padding, **keywords),
        lambda a, b: reference.conv2d_weight(a, w.shape, b, *known, layout=layout),
        x,
        dy,
    )
    # The input's size is what is left over: so many rows fall behind the last output.
    extra = tuple((a - b) % s for a, b, s in zip(g.padded, reach(g), g.stride, strict=True)) if min(g.stride) > 0 else 0

    def transposed(a: Any, b: Any) -> Any:
        return reference.conv_transpose2d(a, b, None, g.stride, g.padding, extra, g.groups, g.dilation, layout=layout)

    arguments = {"padding": g.padding, "output_padding": extra, **keywords}
    attempt("conv_transpose2d", lambda: ck.conv_transpose2d(dy, w, **arguments), transposed, dy, w)
    attempt("ConvTranspose2d", lambda: ck.ConvTranspose2d(w, **arguments)(dy), transposed, dy, w)
    for axes in ((0, 2, 3, 1), (3, 2, 1, 0)):
        if x.size <= WORK or x.nbytes > 2 * MEMORY:
            told("transpose", x.shape, axes)
            with contextlib.suppress(MemoryError):
                np.testing.assert_array_equal(ck.transpose(x, axes, num_threads=2), x.transpose(axes))


def reach(g: Geometry) -> tuple[int, int]:
    """Rows and columns that the dilated filter spans."""
    return g.dilation[0] * (g.kh - 1) + 1, g.dilation[1] * (g.kw - 1) + 1


def ask_kernels(problem: tuple[int, ...], threads: int, rarely: int = 0) -> None:
    """All that can be asked of every kernel about a problem, for each operation, with any parameters of its schema."""
    for op in range(3):
        fields = (op, *problem[1:19], *((0, 0, 0) if op == 2 else problem[19:22]), problem[22])
        for kernel in KERNELS:
            ask_kernel(kernel, fields, threads, rarely)


def ask_kernel(kernel: dict[str, Any], problem: tuple[int, ...], threads: int, seed: int) -> None:
    """Candidates within their schema, and costs and sizes that are none of them negative."""
    index, schema = kernel["index"], kernel["parameters"]
    told(kernel["name"], problem, threads)
    try:
        if not _core.applies(index, problem):
            return
        candidates = _core.candidates(index, problem, threads)
    except (ValueError, MemoryError):
        return
    outcomes["kernels asked"] += 1
    assert candidates
    for candidate in candidates:
        assert all(least <= value <= most for value, (_, least, most) in zip(candidate, schema, strict=True))
    rng = np.random.default_rng(seed)
    extreme = [tuple(int(rng.choice((least, most))) for _, least, most in schema) for _ in range(2)]
    for parameters in (*candidates, *extreme):
        told(kernel["name"], problem, threads, parameters)
        cost = _core.cost(index, problem, parameters, threads)
        assert all(0 <= value < math.inf for value in cost.values()), cost
        assert _core.workspace_bytes(index, problem, parameters, threads) >= 0
        name, size = _core.packing(index, problem, parameters)
        assert size >= 0
        assert len(name) < 63


def run_layers(g: Geometry) -> None:
    """Nothing that a call returned was spoilt: an ordinary call afterwards is right."""
    x, w = view((1, 3, 8, 8), "float32"), view((4, 3, 3, 3), "float32")
    told("ordinary call", g)
    close(ck.conv2d(x, w), lambda a, b: reference.conv2d(a, b), x, w, 1 << 12)


numbers = any_size() | st.integers(1, 8)
options = st.fixed_dictionaries(
    {},
    optional={
        "num_threads": numbers,
        "workspace_limit": st.just(0) | any_size(),
        "accuracy": st.sampled_from(("strict", "fast")),
        "algorithm": st.sampled_from(sorted({kernel["family"] for kernel in KERNELS})),
    },
)


@hypothesis.given(geometries(), st.sampled_from(("float32", "float64")), st.sampled_from(("NCHW", "NHWC")), options)
def calls(geometry: Geometry, dtype: str, layout: str, chosen: dict[str, Any]) -> None:
    faulthandler.dump_traceback_later(HANG, exit=True)
    run_calls(geometry, dtype, layout, chosen)
    run_layers(geometry)
    ck.clear_workspaces()


@hypothesis.given(
    geometries() | large_geometries(),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 2),
    st.integers(0, 7),
    st.integers(1, 8) | st.integers(1, 1024) | any_size(),
    st.integers(0, 99),
)
def questions(geometry: Geometry, dtype: int, layout: int, epilogue: int, flags: int, threads: int, seed: int) -> None:
    faulthandler.dump_traceback_later(HANG, exit=True)
    g = geometry
    problem = (
        0, dtype, layout, *g.x, g.weights[0], g.kh, g.kw, *g.stride, g.top, g.bottom, g.left, g.right, *g.dilation,
        g.groups, epilogue, flags & 1, flags >> 1 & 1, flags >> 2 & 1,
    )  # fmt: skip
    ask_kernels(problem, threads, seed)


@st.composite
def trials(draw: st.DrawFn) -> tuple[dict[str, Any], Any, tuple[int, ...]]:
    """A kernel, a problem that it takes, and any parameters that its schema allows."""
    kernel = draw(st.sampled_from(KERNELS))
    problem = draw(problems(kernel))
    parameters = [
        min(most, max(least, draw(any_size() | st.integers(0, 9)))) for _, least, most in kernel["parameters"]
    ]
    return kernel, problem, tuple(parameters)


@hypothesis.given(trials(), st.integers(1, 8))
def any_parameters(trial: tuple[dict[str, Any], Any, tuple[int, ...]], threads: int) -> None:
    faulthandler.dump_traceback_later(HANG, exit=True)
    kernel, problem, parameters = trial
    told(kernel["name"], str(problem), parameters, threads)
    operands = Operands(problem, kernel)
    arrays = {"bias": operands.bias, "residual": operands.residual, **operands.arguments}
    core = problem.to_core()
    try:
        y = _core.Runner(kernel["index"], parameters, core, threads, operands.x, operands.w, **arrays).run()
    except MemoryError:
        outcomes["MemoryError"] += 1
        return
    outcomes["trials"] += 1
    operands.expect()
    operands.check(y)


def main() -> None:
    examples = int(sys.argv[1])
    settings = hypothesis.settings(
        max_examples=examples,
        derandomize=len(sys.argv) == 2,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    faulthandler.enable()
    # Teams cannot grow once the memory is bounded.
    ck.conv2d(np.ones((8, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32), num_threads=8)
    ck.clear_workspaces()
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    for test in (calls, questions, any_parameters):
        chosen = hypothesis.seed(int(sys.argv[2]))(test) if len(sys.argv) > 2 else test
        settings(chosen)()
    print("clean", dict(outcomes))


if __name__ == "__main__":
    main()

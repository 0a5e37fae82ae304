"""The operands that candidates of one problem are measured on, and the correctness gate before the clock.

The reference is computed in float64 for a sample of the result only: the corners of the image and random positions, the
channels in turn. A full reference of a large layer would take longer than the measurements.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from itertools import product
from typing import Any, Protocol

import numpy as np
import numpy.random  # NumPy loads it at first use, which would be while a kernel is being measured
import numpy.typing as npt

from convkit import _core
from convkit.problem import Problem
from convkit.tuner.inventory import Candidate, direct_error

Array = npt.NDArray[Any]
Index = tuple[npt.NDArray[np.intp], ...]

_NOISE = 1_000_003
# Elements of a result that are checked: as many as these products allow, within limits.
_LEAST_SAMPLES, _SAMPLES = 160, 256
_REFERENCE_TERMS = 2_000_000
# Above the expected error by this much, a result is not merely imprecise.
_GATE = 30.0


class Runner(Protocol):
    """A candidate that is ready to run: `convkit._core.Runner`, or a stand-in in tests."""

    @property
    def y(self) -> Array: ...
    def run(self) -> Array: ...
    def time(self, repeats: int) -> float: ...


class Measurable(Protocol):
    """What a race needs to know about a problem."""

    def runner(self, candidate: Candidate) -> Runner: ...
    def move(self) -> None: ...
    def error(self, y: Array) -> float: ...
    def tolerance(self, candidate: Candidate) -> float: ...
    def workspace(self, candidate: Candidate) -> int: ...
    def footprint(self, candidate: Candidate) -> int: ...


class CandidateError(Exception):
    """A candidate that fails or is wrong, and why; `error` is its RMS error if there is one."""

    def __init__(self, reason: str, error: float | None = None) -> None:
        super().__init__(reason)
        self.error = error


def admit(
    bench: Measurable, candidate: Candidate, clock: Callable[[], float] = time.perf_counter
) -> tuple[Runner, float, float]:
    """The correctness gate: what runs the candidate, its error, and the seconds of its first run; or CandidateError."""
    try:
        runner = bench.runner(candidate)
        # Whatever the kernel fails to write must not pass for a result that an earlier candidate left behind.
        runner.y.fill(np.nan)
        begin = clock()
        y = runner.run()
        seconds = clock() - begin
        error = bench.error(y)
    except (ValueError, RuntimeError, MemoryError) as failure:
        raise CandidateError(f"{type(failure).__name__}: {failure}") from failure
    if error > bench.tolerance(candidate):
        raise CandidateError(f"wrong: RMS error {error:.1e}", error if np.isfinite(error) else None)
    return runner, error, seconds


class Workbench:
    """Operands and reference of one problem.

    Parameters
    ----------
    problem : Problem
    threads : int
    seed : int
        Operands depend on it and on the problem only, so that the measured error of a kernel can be repeated.
    """

    def __init__(self, problem: Problem, threads: int, seed: int = 0) -> None:
        self.problem = problem
        self.threads = threads
        random = np.random.default_rng([seed, zlib.crc32(str(problem).encode())])
        dtype = np.dtype(problem.dtype)
        noise = random.standard_normal(_NOISE, dtype=dtype)
        scale = dtype.type(1 / np.sqrt(problem.reduction)) if problem.reduction else dtype.type(1)
        first = problem.y_shape if problem.op == "input_grad" else problem.x_shape
        second = problem.y_shape if problem.op == "weight_grad" else problem.w_shape
        result = {"forward": problem.y_shape, "input_grad": problem.x_shape, "weight_grad": problem.w_shape}[problem.op]
        self.result_shape = result
        self.x = _fill(noise, first, 0)
        self.w = _fill(noise * scale, second, 500_009)
        channels = problem.c if problem.op == "input_grad" else problem.o
        self.bias = _fill(noise, (channels,), 250_007) if problem.bias else None
        self.residual = _fill(noise, result, 750_019) if problem.residual else None
        self.activation = {"none": "none", "clamp": "clamp", "other": "silu"}[problem.epilogue]
        self.limits = (0.0, 6.0) if problem.epilogue == "clamp" else (-np.inf, np.inf)
        self._where, self._expected = self._reference(random)

    def runner(self, candidate: Candidate) -> Runner:
        """The candidate with these operands, packed if the problem says so."""
        trial: Runner = _core.Runner(
            candidate.kernel.index, candidate.parameters, self.problem.to_core(), self.threads, self.x, self.w,
            self.bias, self.residual, self.limits[0], self.limits[1], self.activation,
        )  # fmt: skip
        return trial

    def move(self) -> None:
        """Copy the operands: runners made from now on find them elsewhere in memory."""
        self.x, self.w = self.x.copy(), self.w.copy()
        self.bias, self.residual = (a if a is None else a.copy() for a in (self.bias, self.residual))

    def workspace(self, candidate: Candidate) -> int:
        """Bytes of workspace that the candidate needs."""
        return int(
            _core.workspace_bytes(candidate.kernel.index, self.problem.to_core(), candidate.parameters, self.threads)
        )

    def footprint(self, candidate: Candidate) -> int:
        """Bytes that the candidate holds while it is ready: its result, its packed weights and its workspace."""
        result = int(np.prod(self.result_shape)) * self.problem.itemsize
        _, packed = _core.packing(candidate.kernel.index, self.problem.to_core(), candidate.parameters)
        return result + int(packed) + self.workspace(candidate)

    def error(self, y: Array) -> float:
        """RMS error of a result relative to the RMS of the exact one; infinite if it is not finite."""
        if not self._expected.size:
            return 0.0
        difference = y[self._where].astype(np.float64) - self._expected
        with np.errstate(all="ignore"):
            error = float(np.sqrt(np.mean(difference**2)))
        scale = float(np.sqrt(np.mean(self._expected**2)))
        if not np.isfinite(error):
            return float("inf")
        return error / scale if scale else error

    def tolerance(self, candidate: Candidate) -> float:
        """The error above which the candidate is wrong and never timed."""
        return _GATE * candidate.kernel.error_class * direct_error(self.problem)

    def _reference(self, random: np.random.Generator) -> tuple[Index, npt.NDArray[np.float64]]:
        """Places of the result, and what is right there."""
        p = self.problem
        images = p.op != "weight_grad"
        swapped = images and p.layout == "NHWC"
        sizes = [self.result_shape[axis] for axis in ((0, 3, 1, 2) if swapped else range(4))]
        count = max(_LEAST_SAMPLES if images else 8, min(_SAMPLES, _REFERENCE_TERMS // max(p.reduction, 1)))
        if 0 in sizes:
            count = 0
        points = np.stack([random.integers(max(size, 1), size=count) for size in sizes])
        if count:
            points[1, 8:] = np.linspace(0, sizes[1] - 1, count - 8).astype(np.intp)
            corners = np.array([*product((0, 1), repeat=3)]).T
            points[:, :8] = np.array([corners[1], *corners]) * (np.array(sizes)[:, None] - 1)
        exact = np.array([self._exact(*map(int, point)) for point in points.T])
        where = tuple(points[axis] for axis in ((0, 2, 3, 1) if swapped else range(4)))
        return where, self._epilogue(exact, points[1], where)

    def _exact(self, first: int, second: int, row: int, column: int) -> float:
        """One element of the result before its epilogue: of an image, or of the filters."""
        p = self.problem
        per_input, per_output = p.c // p.groups, p.o // p.groups
        x, w = (np.moveaxis(a, 3, 1) if p.layout == "NHWC" else a for a in (self.x, self.w))
        if p.op == "forward":
            group = second // per_output
            terms = x[first, group * per_input : (group + 1) * per_input], self.w[second]
        elif p.op == "input_grad":
            group = second // per_input
            outputs = slice(group * per_output, (group + 1) * per_output)
            terms = x[first, outputs], self.w[outputs, second % per_input]
        else:
            terms = x[:, first // per_output * per_input + second], w[:, first]
        rows = _pairs(p.op, row, p.stride_h, p.pad_top, p.dilation_h, p.h, p.kh, p.oh)
        columns = _pairs(p.op, column, p.stride_w, p.pad_left, p.dilation_w, p.w, p.kw, p.ow)
        a, b = (term[:, r][:, :, c].astype(np.float64) for term, r, c in zip(terms, rows, columns, strict=True))
        return float(np.vdot(a, b))

    def _epilogue(self, exact: npt.NDArray[np.float64], channel: Array, where: Index) -> npt.NDArray[np.float64]:
        if self.bias is not None:
            exact = exact + self.bias[channel]
        if self.residual is not None:
            exact = exact + self.residual[where]
        if self.problem.epilogue == "clamp":
            return np.clip(exact, *self.limits)
        if self.problem.epilogue == "other":
            exact = exact / (1 + np.exp(-exact))
        return exact


def _fill(noise: Array, shape: tuple[int, ...], offset: int) -> Array:
    """An array of this shape cut from endlessly repeated noise; fresh random numbers would take longer than a run."""
    size = int(np.prod(shape))
    start = np.roll(noise, -offset)
    return np.resize(start, size).reshape(shape) if size else np.empty(shape, noise.dtype)


def _pairs(
    op: str, position: int, stride: int, pad: int, dilation: int, size: int, taps: int, outputs: int
) -> tuple[Array, Array]:
    """Along an axis, the places in the first and in the second operand whose products one place of the result sums."""
    other: Array = np.arange(outputs if op == "weight_grad" else taps)
    if op == "input_grad":
        read = position + pad - other * dilation
        inside = (read % stride == 0) & (read >= 0) & (read < outputs * stride)
        return read[inside] // stride, other[inside]
    output, tap = (other, position) if op == "weight_grad" else (np.asarray(position), other)
    read = output * stride - pad + tap * dilation
    inside = (read >= 0) & (read < size)
    return read[inside], other[inside]

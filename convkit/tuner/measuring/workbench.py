"""The operands that candidates of one problem are measured on, and the correctness gate before the clock.

The reference is computed in float64 for a sample of the result only: the corners of the image and random positions, for
a spread of channels. A full reference of a large layer would take longer than the measurements.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.random  # NumPy loads it at first use, which would be while a kernel is being measured
import numpy.typing as npt

from convkit.problem import Problem
from convkit.tuner.inventory import Candidate, direct_error

Array = npt.NDArray[Any]
Index = tuple[npt.NDArray[np.intp], ...]

_NOISE = 1_000_003
_POSITIONS = 24
_CHANNELS = 32
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
    """A candidate that fails or is wrong, and why; `error` is its RMS error where there is one."""

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
        """The candidate with these operands, packed where the problem says so."""
        from convkit import _core

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
        from convkit import _core

        return int(
            _core.workspace_bytes(candidate.kernel.index, self.problem.to_core(), candidate.parameters, self.threads)
        )

    def footprint(self, candidate: Candidate) -> int:
        """Bytes that the candidate holds while it is ready: its result, its packed weights and its workspace."""
        from convkit import _core

        result = int(np.prod(self.result_shape)) * self.problem.itemsize
        _, packed = _core.packing(candidate.kernel.index, self.problem.to_core(), candidate.parameters)
        return result + int(packed) + self.workspace(candidate)

    def error(self, y: Array) -> float:
        """RMS error of a result relative to the RMS of the exact one; infinite where it is not finite."""
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
        if 0 in self.result_shape:
            return tuple(np.zeros(0, np.intp) for _ in range(4)), np.zeros(0)
        if self.problem.op == "weight_grad":
            where, exact = self._sample_weight_grad(random)
        else:
            where, exact = self._sample_image(random)
        return where, self._epilogue(exact, where)

    def _epilogue(self, exact: npt.NDArray[np.float64], where: Index) -> npt.NDArray[np.float64]:
        channel = where[1 if self.problem.layout == "NCHW" else 3]
        if self.bias is not None:
            exact = exact + self.bias[channel]
        if self.residual is not None:
            exact = exact + self.residual[where]
        if self.problem.epilogue == "clamp":
            return np.clip(exact, *self.limits)
        if self.problem.epilogue == "other":
            exact = exact / (1 + np.exp(-exact))
        return exact

    def _sample_image(self, random: np.random.Generator) -> tuple[Index, npt.NDArray[np.float64]]:
        """Samples of an output image (forward) or of an input gradient."""
        p = self.problem
        forward = p.op == "forward"
        image = np.moveaxis(self.x, 3, 1) if p.layout == "NHWC" else self.x
        channels, rows, columns = (p.o, p.oh, p.ow) if forward else (p.c, p.h, p.w)
        positions = max(5, min(_POSITIONS, _REFERENCE_TERMS // (p.reduction * _CHANNELS)))
        points = np.stack([random.integers(size, size=positions) for size in (p.n, rows, columns)], axis=1)
        corners = [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)]
        points[: len(corners), 1:] = corners
        points[0, 0], points[3, 0] = 0, p.n - 1
        wanted = _spread(channels, _CHANNELS)
        per_group = channels // p.groups
        exact = np.empty((len(points), len(wanted)))
        for group in np.unique(wanted // per_group):
            here = np.flatnonzero(wanted // per_group == group)
            filters = self._filters(group, wanted[here] - group * per_group)
            for number, (n, row, column) in enumerate(points):
                patch = self._patch(image[n], group, row, column)
                exact[number, here] = filters @ patch
        n, row, column = (np.repeat(points[:, axis], len(wanted)) for axis in range(3))
        channel = np.tile(wanted, len(points))
        where = (n, channel, row, column) if p.layout == "NCHW" else (n, row, column, channel)
        return where, exact.ravel()

    def _filters(self, group: int, channels: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Rows of weights for output (forward) or input channels of a group, as `_patch` orders its terms."""
        p = self.problem
        rows = self.w[group * (p.o // p.groups) : (group + 1) * (p.o // p.groups)]
        chosen = rows[channels] if p.op == "forward" else rows[:, channels].swapaxes(0, 1)
        return chosen.reshape(len(channels), -1).astype(np.float64)

    def _patch(self, image: Array, group: int, row: int, column: int) -> npt.NDArray[np.float64]:
        """The elements of a (channels, rows, columns) image that the result at (row, column) sums, zeros outside."""
        p = self.problem
        size = image.shape[0] // p.groups
        source = image[group * size : (group + 1) * size]
        if p.op == "forward":
            r = row * p.stride_h - p.pad_top + np.arange(p.kh) * p.dilation_h
            c = column * p.stride_w - p.pad_left + np.arange(p.kw) * p.dilation_w
        else:
            r = _unstrided(row + p.pad_top - np.arange(p.kh) * p.dilation_h, p.stride_h)
            c = _unstrided(column + p.pad_left - np.arange(p.kw) * p.dilation_w, p.stride_w)
        patch = np.zeros((size, p.kh, p.kw))
        kr = np.flatnonzero((r >= 0) & (r < image.shape[1]))
        kc = np.flatnonzero((c >= 0) & (c < image.shape[2]))
        patch[:, kr[:, None], kc] = source[:, r[kr][:, None], c[kc]]
        return patch.ravel()

    def _sample_weight_grad(self, random: np.random.Generator) -> tuple[Index, npt.NDArray[np.float64]]:
        p = self.problem
        x = np.moveaxis(self.x, 3, 1) if p.layout == "NHWC" else self.x
        dy = np.moveaxis(self.w, 3, 1) if p.layout == "NHWC" else self.w
        cg, og = p.c // p.groups, p.o // p.groups
        count = max(6, min(_POSITIONS, _REFERENCE_TERMS // max(p.reduction, 1)))
        points = np.stack([random.integers(size, size=count) for size in (p.o, cg, p.kh, p.kw)], axis=1)
        points[:4] = [
            (0, 0, 0, 0),
            (p.o - 1, cg - 1, p.kh - 1, p.kw - 1),
            (0, cg - 1, 0, p.kw - 1),
            (p.o - 1, 0, p.kh - 1, 0),
        ]
        exact = np.empty(len(points))
        for number, (o, c, kh, kw) in enumerate(points):
            rows, r = _inside(kh * p.dilation_h - p.pad_top, p.stride_h, p.oh, p.h)
            columns, s = _inside(kw * p.dilation_w - p.pad_left, p.stride_w, p.ow, p.w)
            terms = x[:, (o // og) * cg + c, r, s].astype(np.float64)
            exact[number] = np.vdot(terms, dy[:, o, rows, columns].astype(np.float64))
        return tuple(points.T), exact


def _fill(noise: Array, shape: tuple[int, ...], offset: int) -> Array:
    """An array of this shape cut from endlessly repeated noise; fresh random numbers would take longer than a run."""
    size = int(np.prod(shape))
    start = np.roll(noise, -offset)
    return np.resize(start, size).reshape(shape) if size else np.empty(shape, noise.dtype)


def _spread(size: int, count: int) -> npt.NDArray[np.intp]:
    """Up to `count` indices below `size`: the first, the last, and between them evenly."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).astype(np.intp))


def _unstrided(position: npt.NDArray[np.intp], stride: int) -> npt.NDArray[np.intp]:
    return np.where(position % stride == 0, position // stride, -1)


def _inside(first: int, stride: int, outputs: int, size: int) -> tuple[slice, slice]:
    """Outputs i with 0 <= first + i * stride < size, and the inputs that they see."""
    low = max(0, -(first // stride))
    high = min(outputs, (size - 1 - first) // stride + 1)
    if high <= low:
        return slice(0, 0), slice(0, 0)
    return slice(low, high), slice(first + low * stride, first + (high - 1) * stride + 1, stride)

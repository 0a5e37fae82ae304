"""Fair timing of a few contestants: interleaved samples (A B C A B C ...), so that what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convkit.benchmark.contestants import Array, Contestant

__all__ = ["Timing", "race", "relative_error"]


@dataclass(frozen=True)
class Timing:
    """What was measured of a contestant.

    Attributes
    ----------
    median, best : float
        Seconds of one call.
    samples : int
    cpu_per_wall : float
        CPU time over elapsed time: the number of threads that really worked.
    error : float
        Largest error relative to the largest exact value.
    rms_error : float
        RMS error relative to the RMS of the exact result.
    """

    median: float
    best: float
    samples: int
    cpu_per_wall: float
    error: float
    rms_error: float


def relative_error(found: Array, exact: Array) -> tuple[float, float]:
    """Largest error over the largest value, and RMS error over the RMS."""
    difference = found - exact
    largest = float(np.abs(difference).max()) / float(np.abs(exact).max() or 1.0)
    rms = float(np.sqrt(np.mean(difference**2)) / (np.sqrt(np.mean(exact**2)) or 1.0))
    return largest, rms


def race(contestants: Sequence[Contestant], exact: Array, seconds: float = 0.5, least: float = 5e-3) -> list[Timing]:
    """Time contestants in turns.

    Parameters
    ----------
    contestants : sequence of Contestant
    exact : ndarray of float64
        What each should compute; the error is reported, not judged.
    seconds : float
        Time for each contestant; at least five samples are taken.
    least : float
        Short calls are repeated until a sample takes this long.
    """
    errors, repeats, expected = [], [], []
    for contestant in contestants:
        errors.append(relative_error(contestant.result(contestant.call()), exact))
        begin = time.perf_counter()
        contestant.call()
        once = time.perf_counter() - begin
        repeats.append(max(1, round(least / max(once, 1e-7))))
        expected.append(max(once, 1e-7) * repeats[-1])
    rounds = max(5, int(seconds / max(expected)))
    walls: list[list[float]] = [[] for _ in contestants]
    cpus: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for place, contestant in enumerate(contestants):
            contestant.call()  # brings its own operands back into the caches
            cpu, begin = time.process_time(), time.perf_counter()
            for _ in range(repeats[place]):
                contestant.call()
            elapsed = time.perf_counter() - begin
            walls[place].append(elapsed / repeats[place])
            cpus[place].append((time.process_time() - cpu) / elapsed)
    return [
        Timing(statistics.median(wall), min(wall), len(wall), statistics.median(cpu), *error)
        for wall, cpu, error in zip(walls, cpus, errors, strict=True)
    ]

"""Fair timing of a few contestants: interleaved samples (A B C A B C ...), so that what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from convkit.contest.contestants import Array, Contestant
from convkit.tuner.measuring.contention import ContentionGuard

__all__ = ["Timing", "in_turns", "relative_error", "wait_for_idle"]

# Longer than a tick of the kernel's clock: the CPU time of a thread that keeps running shows only after one.
_POLL = 0.012
_PATIENCE = 0.5
# Threads that were woken need a while until each has a core for itself.
_TEAM_WARM, _TEAM_SAMPLE = 0.015, 0.02


@dataclass(frozen=True)
class Timing:
    """What was measured of a contestant.

    Attributes
    ----------
    median, best : float
        Seconds of one call.
    samples : int
    cpu_per_wall : float
        CPU time over elapsed time of calls one after another: the number of threads that really worked.
    error : float
        Largest error relative to the largest exact value.
    rms_error : float
        RMS error relative to the RMS of the exact result.
    busy : str
        What showed that the machine was busy with something else while convkit ran; empty if nothing did.
    """

    median: float
    best: float
    samples: int
    cpu_per_wall: float
    error: float
    rms_error: float
    busy: str = ""


def relative_error(found: Array, exact: Array) -> tuple[float, float]:
    """Largest error over the largest value, and RMS error over the RMS."""
    difference = found - exact
    largest = float(np.abs(difference).max()) / float(np.abs(exact).max() or 1.0)
    rms = float(np.sqrt(np.mean(difference**2)) / (np.sqrt(np.mean(exact**2)) or 1.0))
    return largest, rms


def wait_for_idle() -> None:
    """Wait until no thread of this process runs, but not for ever.

    Workers of most libraries spin for a while after a call returns, in case that another one follows. They would take a
    core from whoever comes next.
    """
    end = time.perf_counter() + _PATIENCE
    while time.perf_counter() < end:
        cpu, begin = time.process_time(), time.perf_counter()
        time.sleep(_POLL)
        if time.process_time() - cpu < 0.1 * (time.perf_counter() - begin):
            return


def in_turns(
    contestants: Sequence[Contestant], exact: Array, seconds: float = 0.5, least: float = 5e-3, threads: int = 1
) -> list[Timing]:
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
    threads : int
        Team size of every contestant; beyond one, each begins on an idle machine.
    """
    if threads > 1:
        least = max(least, _TEAM_SAMPLE)
    errors, repeats, expected = [], [], []
    for contestant in contestants:
        errors.append(relative_error(contestant.result(contestant.call()), exact))
        begin = time.perf_counter()
        contestant.call()
        once = time.perf_counter() - begin
        repeats.append(max(1, round(least / max(once, 1e-7))))
        expected.append(max(once, 1e-7) * repeats[-1])
    rounds = max(5, int(seconds / max(expected)))
    guard = ContentionGuard()
    walls: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for place, contestant in enumerate(contestants):
            if threads > 1:
                wait_for_idle()
            # Brings its own operands back into the caches, and its workers back to their cores.
            warm = time.perf_counter()
            contestant.call()
            while threads > 1 and time.perf_counter() - warm < _TEAM_WARM:
                contestant.call()
            sample = partial(_sample, contestant, repeats[place], walls[place])
            # Other libraries may have other threads than they were asked for: their CPU time says nothing.
            if contestant.parts:
                guard.undisturbed(sample, 1, threads=threads)
            else:
                sample()
        guard.end_round()
    busy = guard.reason() or ""
    return [
        Timing(statistics.median(wall), min(wall), len(wall), _threads_at_work(contestant, threads), *error, busy)
        for contestant, wall, error in zip(contestants, walls, errors, strict=True)
    ]


def _sample(contestant: Contestant, repeats: int, walls: list[float]) -> float:
    """Seconds of a number of calls; those of one are added to `walls`."""
    begin = time.perf_counter()
    for _ in range(repeats):
        contestant.call()
    seconds = time.perf_counter() - begin
    walls.append(seconds / repeats)
    return seconds


def _threads_at_work(contestant: Contestant, threads: int) -> float:
    """CPU time over elapsed time, over many ticks of the kernel's clock if other threads run."""
    if threads > 1:
        wait_for_idle()
    least = _POLL if threads == 1 else 10 * _POLL
    cpu, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() - begin < least:
        contestant.call()
    return (time.process_time() - cpu) / (time.perf_counter() - begin)

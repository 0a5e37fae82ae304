"""Was the machine ours while we measured? Involuntary switches within a sample, and a canary that should not change."""

from __future__ import annotations

import resource
import time
import zlib
from collections.abc import Callable

from convkit.tuner.intervals import median

_CANARY_BYTES = bytes(range(256)) * 256
_DRIFT = 1.25
_DISTURBED_SHARE = 0.2


def run_canary() -> float:
    """Seconds for a fixed piece of work that touches neither memory nor other cores."""
    begin = time.perf_counter()
    zlib.crc32(_CANARY_BYTES)
    return time.perf_counter() - begin


def involuntary_switches() -> int:
    """How often the kernel has taken the CPU from this process's threads so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class ContentionGuard:
    """Watches a session.

    A sample during which the kernel took the CPU away says more about the neighbours than about the candidate; the race
    takes it again while it can. A session in which many samples stayed disturbed, or in which the canary drifted, is
    contended.

    Parameters
    ----------
    canary, switches, cpu_clock : callable
        Injected in tests.
    """

    def __init__(
        self,
        canary: Callable[[], float] = run_canary,
        switches: Callable[[], int] = involuntary_switches,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._canary = canary
        self._switches = switches
        self._cpu_clock = cpu_clock
        self._times = [canary() for _ in range(3)]
        self._samples = 0
        self._disturbed = 0

    def undisturbed(self, sample: Callable[[], float], tries: int, *, alone: bool) -> tuple[float, bool]:
        """Take a sample, again while it was disturbed and tries are left; its seconds and whether it was undisturbed.

        The shortest one counts where none was undisturbed. Where the calling thread works `alone`, a disturbed sample
        counts with the thread's CPU time: it leaves out the wait, though not what the neighbours did to the caches.
        Teams have no such clock, for their members wait for each other by spinning.
        """
        shortest = float("inf")
        for _ in range(max(tries, 1)):
            before, cpu = self._switches(), self._cpu_clock()
            seconds = sample()
            if self._switches() == before:
                self._samples += 1
                return seconds, True
            shortest = min(shortest, seconds, self._cpu_clock() - cpu if alone else seconds)
        self._samples += 1
        self._disturbed += 1
        return shortest, False

    def end_round(self) -> None:
        """Run the canary once."""
        self._times.append(self._canary())

    def reason(self) -> str | None:
        """What showed that the machine was not ours; None where nothing did."""
        if self._disturbed > _DISTURBED_SHARE * self._samples:
            return f"{self._disturbed} of {self._samples} samples were interrupted"
        drift = median(self._times) / min(self._times)
        if drift > _DRIFT:
            return f"the canary took {drift:.2f} times its best"
        return None

"""Was the machine ours while we measured? A canary that should always take the same time, and involuntary switches."""

from __future__ import annotations

import resource
import statistics
import time
import zlib
from collections.abc import Callable

_CANARY_BYTES = bytes(range(256)) * 256
_DRIFT = 1.25
_SWITCHES_PER_SECOND = 60.0
_SWITCHES_FREE = 10


def run_canary() -> float:
    """Seconds for a fixed piece of work that touches neither memory nor other cores."""
    begin = time.perf_counter()
    zlib.crc32(_CANARY_BYTES)
    return time.perf_counter() - begin


def involuntary_switches() -> int:
    """How often the kernel has taken the CPU from this process's threads so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class ContentionGuard:
    """Watches a session. Call `sample` between measurements and ask `reason` at the end.

    Parameters
    ----------
    canary, switches, clock : callable
        Injected in tests.
    """

    def __init__(
        self,
        canary: Callable[[], float] = run_canary,
        switches: Callable[[], int] = involuntary_switches,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._canary = canary
        self._switches = switches
        self._clock = clock
        self._times = [canary() for _ in range(3)]
        self._first = switches()
        self._begin = clock()

    def sample(self) -> None:
        """Run the canary once."""
        self._times.append(self._canary())

    def reason(self) -> str | None:
        """What showed that the machine was not ours; None where nothing did."""
        drift = statistics.median(self._times) / min(self._times)
        if drift > _DRIFT:
            return f"the canary took {drift:.2f} times its best"
        elapsed = max(self._clock() - self._begin, 1e-9)
        switches = self._switches() - self._first
        if switches > _SWITCHES_FREE + _SWITCHES_PER_SECOND * elapsed:
            return f"{switches} involuntary switches in {elapsed:.2f} s"
        return None

"""Was the machine ours while we measured? Involuntary switches within a sample, and a canary that should not change."""

from __future__ import annotations

import resource
import time
import timeit
import zlib
from collections.abc import Callable

from convkit.tuner.choosing.intervals import median

_CANARY = bytes(range(256)) * 256
DRIFT = 1.25
DISTURBED_SHARE = 0.2
# A sample that lost less than this share of its time, or this many seconds, to other processes is as good as any.
LOST_SHARE = 0.03
LOST_SECONDS = 20e-6
# A process's clock learns of a thread on another CPU up to 4 ms later: of a team's shorter samples it says nothing.
TEAM_CLOCK_SECONDS = 80e-3


def run_canary() -> float:
    """Seconds for a fixed piece of work that touches neither memory nor other cores: the best of a few runs.

    The first of them finds the caches full of the candidates' data.
    """
    return min(timeit.repeat(lambda: zlib.crc32(_CANARY), repeat=4, number=1))


class ContentionGuard:
    """Watches a session.

    A sample during which the kernel took the CPU away for long says more about the neighbours than about the candidate;
    the race takes it again while it can. A session in which many samples stayed disturbed, or in which the canary
    drifted, is contended.

    Parameters
    ----------
    canary, switches, thread_clock, process_clock : callable
        Injected in tests.
    """

    def __init__(
        self,
        canary: Callable[[], float] = run_canary,
        switches: Callable[[], int] = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        thread_clock: Callable[[], float] = time.thread_time,
        process_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._canary = canary
        self._switches = switches
        self._thread_clock = thread_clock
        self._process_clock = process_clock
        self._times = [canary() for _ in range(3)]
        self._samples = 0
        self._disturbed = 0

    def undisturbed(self, sample: Callable[[], float], tries: int, *, threads: int) -> tuple[float, bool]:
        """Take a sample, again while it was disturbed and tries are left; its seconds and whether it was undisturbed.

        Disturbed means that there were involuntary switches and, if the clock can tell, that the team of `threads` got
        less CPU time than it was given. The shortest sample counts if none was undisturbed. If the calling thread works
        alone, a disturbed sample counts with the thread's CPU time: it leaves out the wait, though not what the
        neighbours did to the caches. Teams have no such clock, for their members wait for each other by spinning.
        """
        clock = self._thread_clock if threads == 1 else self._process_clock
        shortest = float("inf")
        for _ in range(max(tries, 1)):
            before, begin = self._switches(), clock()
            seconds = sample()
            used = (clock() - begin) / threads
            kept = seconds - used <= max(LOST_SHARE * seconds, LOST_SECONDS)
            if self._switches() == before or (kept and (threads == 1 or seconds >= TEAM_CLOCK_SECONDS)):
                self._samples += 1
                return seconds, True
            shortest = min(shortest, used if threads == 1 else seconds)
        self._samples += 1
        self._disturbed += 1
        return shortest, False

    def end_round(self) -> None:
        """Run the canary once."""
        self._times.append(self._canary())

    def reason(self) -> str | None:
        """What showed that the machine was not ours; None if nothing did."""
        if self._disturbed > DISTURBED_SHARE * self._samples:
            return f"{self._disturbed} of {self._samples} samples were interrupted"
        drift = median(self._times) / min(self._times)
        if drift > DRIFT:
            return f"the canary took {drift:.2f} times its best"
        return None

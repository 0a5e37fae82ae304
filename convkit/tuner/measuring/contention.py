"""Was the machine ours while we measured, and the same? Involuntary switches, a canary, how far a team is apart."""

from __future__ import annotations

import resource
import time
import timeit
import zlib
from collections.abc import Callable

from convkit import _core
from convkit.tuner.choosing.intervals import median
from convkit.tuner.process import Slot

_CANARY = bytes(range(256)) * 256
DRIFT = 1.25
DISTURBED_SHARE = 0.2
# A sample that lost less than this share of its time, or this many seconds, to other processes is as good as any.
LOST_SHARE = 0.03
LOST_SECONDS = 20e-6
# A process's clock learns of a thread on another CPU up to 4 ms later: of a team's shorter samples it says nothing.
TEAM_CLOCK_SECONDS = 80e-3
# A host may move a virtual CPU away from the L3 of the others, and back some seconds later. Kernels whose members share
# much then take half as long again. It shows in how long they take to hand a word on, against the least seen so far.
APART = 2.0
# Threads that share a CPU hand on when the system takes it from one of them.
CROWDED_SECONDS = 1e-3


@Slot
def nearest() -> dict[int, float]:
    """Of a team of so many, the shortest handover that this process has seen."""
    return {}


def team_apart(threads: int, handover: Callable[[int], float] = _core.handover) -> bool:
    """Whether the CPUs of a team are further apart than they were at their best."""
    seconds, least = handover(threads), nearest()
    least[threads] = min(seconds, least.get(threads, seconds))
    return threads > 1 and seconds > APART * least[threads]


def run_canary() -> float:
    """Seconds for a fixed piece of work that touches neither memory nor other cores: the best of a few runs.

    The first of them finds the caches full of the candidates' data.
    """
    return min(timeit.repeat(lambda: zlib.crc32(_CANARY), repeat=4, number=1))


class ContentionGuard:
    """Watches a session.

    A sample during which the kernel took the CPU away for long says more about the neighbours than about the candidate;
    the race takes it again while it can. A session in which many samples stayed disturbed, in which the canary drifted
    or a team was often apart, is contended.

    Parameters
    ----------
    canary, switches, thread_clock, process_clock, handover : callable
        Injected in tests.
    """

    def __init__(
        self,
        canary: Callable[[], float] = run_canary,
        switches: Callable[[], int] = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        thread_clock: Callable[[], float] = time.thread_time,
        process_clock: Callable[[], float] = time.process_time,
        handover: Callable[[int], float] = _core.handover,
    ) -> None:
        self._canary = canary
        self._switches = switches
        self._thread_clock = thread_clock
        self._process_clock = process_clock
        self._handover = handover
        self._looks: list[bool] = []
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

    def apart(self, threads: int) -> bool:
        """Look whether the team is apart now."""
        self._looks.append(team_apart(threads, self._handover))
        return self._looks[-1]

    def crowded(self, threads: int) -> bool:
        """Whether members of the team share a CPU now."""
        return self._handover(threads) >= CROWDED_SECONDS

    def end_round(self) -> None:
        """Run the canary once."""
        self._times.append(self._canary())

    def reason(self) -> str | None:
        """What showed that the machine was not ours; None if nothing did."""
        if self._disturbed > DISTURBED_SHARE * self._samples:
            return f"{self._disturbed} of {self._samples} samples were interrupted"
        if sum(self._looks) > DISTURBED_SHARE * len(self._looks):
            return f"the team's CPUs were apart in {sum(self._looks)} of {len(self._looks)} rounds"
        drift = median(self._times) / min(self._times)
        if drift > DRIFT:
            return f"the canary took {drift:.2f} times its best"
        return None

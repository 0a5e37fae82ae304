"""Fair samples: long enough for the clock, taken again when others took the CPU, by teams whose threads are apart."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convkit.tuner.inventory import Candidate
from convkit.tuner.measuring.contention import ContentionGuard
from convkit.tuner.measuring.workbench import Measurable, Runner

# Inner repeats are chosen so that a sample takes at least this long.
SAMPLE_SECONDS = 1e-3
# How often a sample that the operating system interrupted is taken, until one was not. CPU time is good enough for one
# thread not to insist.
TRIES = 4
TRIES_ALONE = 2
# After a pause, in which one thread packed or checked, the kernel may let a whole team run on one CPU for some
# milliseconds. So long nothing is sampled.
SPREADING_SECONDS = 20e-3


@dataclass(slots=True, eq=False)
class Entrant:
    """A candidate that is right, and what is known of its time.

    Attributes
    ----------
    first : float
        Seconds of a run by its first samples, on the scale of the other entrants.
    default : bool
        The first of its kernel's parameter sets.
    behind : bool
        Much slower than the fastest: here for those calls only that ask for its accuracy.
    samples : dict
        Round to seconds.
    undisturbed : set of int
        Rounds whose sample nothing interrupted.
    """

    candidate: Candidate
    runner: Runner
    error: float
    workspace: int
    footprint: int
    first: float
    repeats: int = 1
    default: bool = False
    behind: bool = False
    samples: dict[int, float] = field(default_factory=dict)
    undisturbed: set[int] = field(default_factory=set)

    @property
    def level(self) -> int:
        """The strictest accuracy that allows it."""
        return self.candidate.kernel.level


class Sampler:
    """Times candidates of one problem.

    Parameters
    ----------
    bench : Measurable
        Makes candidates ready and knows what is right.
    threads : int
        Team size of the candidates.
    guard : ContentionGuard
        Injected in tests, like `clock`.
    """

    def __init__(
        self,
        bench: Measurable,
        threads: int = 1,
        guard: ContentionGuard | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.bench: Measurable = bench
        self.guard: ContentionGuard = guard or ContentionGuard()
        self.clock: Callable[[], float] = clock
        self.threads: int = threads

    def sample(self, entrant: Entrant, round_number: int | None = None) -> float:
        """Seconds of one run; kept with the entrant as those of a round."""
        seconds, undisturbed = self.guard.undisturbed(
            lambda: entrant.runner.time(entrant.repeats),
            TRIES_ALONE if self.threads == 1 else TRIES,
            threads=self.threads,
        )
        seconds = max(seconds / entrant.repeats, 1e-9)
        if round_number is not None:
            entrant.samples[round_number] = seconds
            if undisturbed:
                entrant.undisturbed.add(round_number)
        return seconds

    def end_round(self, entrants: Sequence[Entrant] = (), number: int = 0) -> None:
        """Look at the machine. What was measured in this round while the team was apart is disturbed."""
        self.guard.end_round()
        if self.guard.apart(self.threads):
            for entrant in entrants:
                entrant.undisturbed.discard(number)

    def lengthen(self, entrant: Entrant) -> None:
        """Repeat the entrant within a sample until that is long enough for the clock."""
        for _ in range(2):
            repeats = max(1, math.ceil(SAMPLE_SECONDS / entrant.first))
            if repeats <= entrant.repeats:
                return
            entrant.repeats = repeats
            entrant.first = self.sample(entrant)

    def move(self, entrants: Sequence[Entrant]) -> None:
        """Bring operands, packed weights and workspaces to other memory."""
        self.bench.move()
        for entrant in entrants:
            # The old runner lives until the new one has its memory.
            try:
                entrant.runner = self.bench.runner(entrant.candidate)
            except MemoryError:
                continue
            entrant.runner.run()
        self.spread_team(entrants[0].runner)

    def spread_team(self, runner: Runner) -> None:
        """Run until the team's threads have a CPU each."""
        begin = self.clock()
        while self.guard.crowded(self.threads) and self.clock() - begin < SPREADING_SECONDS:
            runner.time(1)

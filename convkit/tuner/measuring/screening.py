"""Who may race: every kernel with its default parameters, then others of its sets if it did well.

A candidate must be right before it is timed. Its first samples are taken in turns with those of the fastest so far, and
whoever is far behind rivals that are as exact does not race.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from convkit.tuner.choosing.intervals import median
from convkit.tuner.evidence.records import Result
from convkit.tuner.inventory import Candidate
from convkit.tuner.measuring.sampling import Entrant, Sampler
from convkit.tuner.measuring.workbench import CandidateError, admit

# A candidate that is this many times slower than the best in its first samples does not enter the race.
SCREEN = 1.4
# A kernel that is this many times slower than the best is not sampled any further.
HOPELESS = 2.5
# How many parameter sets in a row may fail to improve on a kernel's best, by this much, before no more are screened.
PATIENCE = 3
IMPROVEMENT = 0.015
# Of sets as fast as the default, which differ by noise, the default is the one to keep: among many sets one is always
# lucky in its first samples, so only a set that is faster by more than luck goes before it.
DEFAULT_BONUS = 0.93
# One slow sample may be an accident of the machine; of three hardly two are. More would take the time in which further
# candidates are screened. But others are held against who seems to be the best of all, and among many one is always
# lucky; and a team may share a CPU for a while: nobody leaves whose samples contradict each other.
SAMPLES = 3
LEADING_SAMPLES = 9
# A run this long is not slow by an accident of the machine.
LONG_RUN = 40e-3
# Most candidates that are kept ready at a time, most of those behind, and the most memory that they hold then: their
# results, packed weights and workspaces. The fastest of each accuracy stay in any case.
RESIDENT = 10
RESIDENT_BEHIND = 2
RESIDENT_BYTES = 2**30


class Screening:
    """Sorts candidates into those that race and those that do not.

    Parameters
    ----------
    sampler : Sampler
    over : callable
        Tells that no further candidate is to be screened; two kernels are in any case.

    Attributes
    ----------
    entrants : list of Entrant
        Who races, the fastest first.
    out : dict
        What was found of those who do not: Candidate to Result. Times of those that are only slow are on the scale of
        `Entrant.first`.
    """

    def __init__(self, sampler: Sampler, over: Callable[[], bool]) -> None:
        self.entrants: list[Entrant] = []
        self.out: dict[Candidate, Result] = {}
        self._sampler = sampler
        self._over = over

    def run(self, candidates: Sequence[Candidate], progress: Callable[[Candidate], None]) -> None:
        """Screen the candidates in order, those of kernels that did well before those of others."""
        pending = list(candidates)
        # Of each kernel its best first time and how many of its sets have not improved on it since.
        known: dict[str, tuple[float, int]] = {}

        def promise(candidate: Candidate) -> float:
            seconds, failures = known.get(candidate.kernel.name, (0.0, 0))
            return seconds * (1 + 0.02 * failures)

        while pending and not (len(known) >= 2 and self._over()):
            candidate = min(pending, key=promise)
            pending.remove(candidate)
            entrant = self._enter(candidate)
            name = candidate.kernel.name
            before, failures = known.get(name, (math.inf, -1))
            first = entrant.first if entrant else math.inf
            failures = 0 if first < before * (1 - IMPROVEMENT) else failures + 1
            best = min(before, first)
            known[name] = best, failures
            if entrant:
                entrant.default = math.isinf(before)
                self.entrants.append(entrant)
            # Parameters do not make up for a kernel that is far behind, nor do they go on and on finding better ones.
            # One slow set says nothing of a kernel's others: its best set counts.
            behind = entrant and best > SCREEN * self._best(entrant.level)
            if behind or failures >= PATIENCE:
                pending = [other for other in pending if other.kernel.name != name]
            self._cut()
            self._sampler.guard.apart(self._sampler.threads)
            progress(candidate)

    def _enter(self, candidate: Candidate) -> Entrant | None:
        """The candidate with its first time; None if it is wrong or fails."""
        sampler, bench = self._sampler, self._sampler.bench
        try:
            runner, error, first = admit(bench, candidate, sampler.clock)
        except CandidateError as refused:
            self.out[candidate] = Result("failed", error=refused.error, reason=str(refused)[:400])
            return None
        entrant = Entrant(candidate, runner, error, bench.workspace(candidate), bench.footprint(candidate), first)
        if entrant.first > LONG_RUN:
            # It also got its memory from the system, which may have taken longer than the kernel.
            entrant.first = sampler.sample(entrant)
            if entrant.first > LONG_RUN and entrant.first > HOPELESS * self._best(entrant.level):
                return entrant
        sampler.spread_team(runner)
        entrant.first = sampler.sample(entrant)
        sampler.lengthen(entrant)
        self._compare(entrant)
        return entrant

    def _compare(self, entrant: Entrant) -> None:
        """Set the entrant's first time: on the scale of the fastest rival's, which is sampled along with it.

        Screening takes long enough to see the machine slow down and recover, and what was screened in a quiet moment
        would beat everybody who comes later: the two are compared by samples in turns.
        """
        if entrant.first > LONG_RUN:
            return
        sample = self._sampler.sample
        pace = min(self.entrants, key=lambda rival: rival.first, default=None)
        if pace is None:
            entrant.first = min(sample(entrant) for _ in range(SAMPLES))
            return
        best = self._best(entrant.level)
        ratios: list[float] = []
        most = SAMPLES
        while len(ratios) < most:
            # Each finds the caches as the other left them.
            before = sample(pace)
            ratios.append(sample(entrant) / before)
            entrant.first = median(ratios) * pace.first
            least = min(ratios) * pace.first
            if len(ratios) > 1 and least > HOPELESS * best:
                return
            most = LEADING_SAMPLES if entrant.first < best or least <= SCREEN * best < entrant.first else SAMPLES

    def _cut(self) -> None:
        """Keep the promising entrants, as many as may be ready at a time."""
        entrants = sorted(self.entrants, key=lambda entrant: entrant.first * (DEFAULT_BONUS if entrant.default else 1))
        fastest = min((entrant.first for entrant in entrants), default=0.0)
        kept: list[Entrant] = []
        held = slow = 0
        for entrant in entrants:
            leads = all(rival.level > entrant.level for rival in kept)
            behind = entrant.first > SCREEN * fastest
            room = slow < RESIDENT_BEHIND if behind else len(kept) - slow < RESIDENT
            fits = held + entrant.footprint <= RESIDENT_BYTES
            if leads or (room and fits and entrant.first <= SCREEN * self._best(entrant.level)):
                kept.append(entrant)
                held += entrant.footprint
                slow += behind
                entrant.behind = behind
            else:
                self.out[entrant.candidate] = Result(
                    "raced out", 1, entrant.first, error=entrant.error, workspace=entrant.workspace,
                    reason="slow in its first samples",
                )  # fmt: skip
        self.entrants = kept

    def _best(self, level: int) -> float:
        """The least first time of the entrants that are at least as exact; infinite without any.

        A call may ask for more accuracy than the fastest entrant has, so those that are less exact do not count.
        """
        return min((entrant.first for entrant in self.entrants if entrant.level <= level), default=math.inf)

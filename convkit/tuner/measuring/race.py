"""Fair timing: candidates of one problem race each other.

All are screened, and the promising ones race. Samples are taken in random order and compared within their round only,
so that a machine that slows down slows everybody. Between rounds everything moves to other memory: which sets of a
cache arrays share is luck. Losers leave in halves; the race ends when the lead is clear, when nothing would change any
more, or when the budget is spent.
"""

from __future__ import annotations

import contextlib
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from convkit.tuner.choosing.intervals import median, paired
from convkit.tuner.evidence.records import Result
from convkit.tuner.inventory import Candidate
from convkit.tuner.measuring import contention, sampling, screening
from convkit.tuner.measuring.sampling import Entrant, Sampler
from convkit.tuner.measuring.screening import Screening

Progress = Callable[[int, int, str], None]
Figures = tuple[float, float, float]

# Share of the budget after which no further candidate is screened.
SCREENING = 0.6
# Rounds between two cuts.
BLOCK = 3
# Most rounds, and most for candidates that compete only because a call may ask for their accuracy: they cost more time
# than all others, and few calls ask for them.
ROUNDS = 30
ROUNDS_BEHIND = 3
# Candidates closer than this to the best are as good as the best; the race does not go on for them.
MARGIN = 0.015
# Few samples prove little: nobody within reach of the best is sent home. The reach is this over the rounds so far, and
# what the anchor's twin, which is the same candidate in other memory, seems to lose.
REACH = 0.45
# Below this many samples an interval of the median is all of them.
ENOUGH = 8
# Share of the budget that a run of the anchor's twin may take, which tells how noisy the machine is.
TWIN = 0.02
# Time that moving operands, packed weights and workspaces to other memory may take, as a share of the rounds'.
MOVING = 2.0


def policy(budget: float, seed: int) -> dict[str, Any]:
    """All that decides a result beside the machine, as a session stores it.

    Operands are "warm": they stay in the caches from one repeat to the next, as in a loop over layers they partly do.
    """
    constants = {
        f"{module.__name__.rpartition('.')[2]}.{name.lower()}": value
        for module in (contention, sampling, screening, sys.modules[__name__])
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_")
    }
    return {"operands": "warm", "budget": budget, "seed": seed, **constants}


class Race:
    """One race over the candidates of a problem.

    Parameters
    ----------
    sampler : Sampler
    budget : float
        Seconds. Candidates are screened in order until the larger part of it is spent; at least two are.
    progress : callable, optional
        Called as ``progress(done, total, text)`` after each sample.

    Attributes
    ----------
    anchor : Candidate or None
        The candidate that the ratios refer to; None if nobody could race.
    results : dict
        Candidate to Result.
    noise_floor : float or None
        How far the anchor's times may seem to lie from its own: the race runs it twice. No smaller difference counts.
    """

    def __init__(self, sampler: Sampler, *, budget: float, seed: int = 0, progress: Progress | None = None) -> None:
        self.anchor: Candidate | None = None
        self.results: dict[Candidate, Result] = {}
        self.noise_floor: float | None = None
        self._twin: Entrant | None = None
        self._sampler = sampler
        self._budget = budget
        self._random = random.Random(seed)
        self._progress = progress or (lambda done, total, text: None)
        self._entrants: list[Entrant] = []

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Race, to fill `results`. On KeyboardInterrupt they hold what has raced, not what was only screened."""
        begin = self._sampler.clock()

        def spent(share: float) -> bool:
            return self._sampler.clock() - begin > share * self._budget

        first = Screening(self._sampler, lambda: spent(SCREENING))
        first.run(candidates, lambda candidate: self._progress(len(first.out), len(candidates), str(candidate)))
        self._entrants = first.entrants
        failed = {candidate: result for candidate, result in first.out.items() if result.status == "failed"}
        if self._entrants:
            # The fastest so far: it costs least, and ratios to a rival of the same speed are the sharpest.
            pace = min(self._entrants, key=lambda entrant: entrant.first)
            self.anchor = pace.candidate
            # First times compare candidates; errors of the ratios add up in them. What is recorded are seconds.
            now = pace.first if pace.first > screening.LONG_RUN else self._sampler.sample(pace)
            try:
                self._rounds(pace, lambda: spent(1.0), len(first.out), len(candidates))
            except KeyboardInterrupt:
                self._finish(pace, BLOCK)
                self.results |= failed if self.results else {}
                raise
            self._finish(pace, 0)
            for candidate, result in first.out.items():
                if result.median is not None:
                    ratio = result.median / pace.first
                    self.results[candidate] = result._replace(ratio=ratio, median=ratio * now)
        self.results |= failed
        self._progress(len(self.results), len(candidates), str(self.anchor or ""))

    def _rounds(self, pace: Entrant, over: Callable[[], bool], out: int, total: int) -> None:
        clock = self._sampler.clock
        start = clock()
        moving = 0.0
        if len(self._entrants) > 1 and pace.first <= TWIN * self._budget:
            with contextlib.suppress(MemoryError):
                runner = self._sampler.bench.runner(pace.candidate)
                self._twin = replace(pace, runner=runner, samples={}, undisturbed=set())
        order: list[Entrant] = []
        for number in range(ROUNDS):
            running = [*self._entrants, *([self._twin] if self._twin and number < ENOUGH else [])]
            # There and back again: what drifts meanwhile hits the two of a pair alike.
            order = order[::-1] if number % 2 else self._random.sample(running, len(running))
            for entrant in (entrant for entrant in order if entrant in running):
                self._sampler.sample(entrant, number)
                self._progress(out + len(self.results), total, str(entrant.candidate))
            self._sampler.end_round(running, number)
            now = clock()
            if over():
                return
            if moving <= MOVING * (now - start - moving):
                self._sampler.move(running)
                moving += clock() - now
            if (number + 1) % BLOCK == 0:
                self._cut(pace, number + 1)
                if len(self._entrants) <= 1:
                    return

    def _cut(self, pace: Entrant, rounds: int) -> None:
        """Send home candidates that lost at every accuracy that allows them, or that have nothing left to decide.

        Losing means: clearly slower than the best of the rivals that are at least as exact, or in the slower half and
        not within reach of that best.
        """
        figures = {entrant: _figures(entrant, pace) for entrant in self._entrants}
        ranked = sorted(self._entrants, key=lambda entrant: figures[entrant][0])
        faster_half = set(ranked[: math.ceil(len(ranked) / 2)])
        reach = 1 + max(3 * MARGIN, REACH / rounds) + (self._noise(pace) or 0.0)
        best: dict[int, Figures] = {}
        settled: dict[int, bool] = {}
        for level in sorted({entrant.level for entrant in ranked}):
            allowed = [figures[entrant] for entrant in ranked if entrant.level <= level]
            best[level] = min(allowed)
            settled[level] = rounds >= ENOUGH and _is_clear(allowed)

        def lost(entrant: Entrant, level: int) -> bool:
            ratio, low, _ = figures[entrant]
            if ratio <= reach * best[level][0]:
                return rounds >= ENOUGH and low > best[level][2]
            return low > best[level][2] or entrant not in faster_half

        for entrant in ranked:
            levels = [level for level in best if level >= entrant.level]
            if entrant is pace and len(self._entrants) > 1:
                continue
            if all(lost(entrant, level) for level in levels):
                times = figures[entrant][0] / best[entrant.level][0]
                self._leave(entrant, pace, "raced out", f"{times:.2f} times the best")
                continue
            decided = all(settled[level] or lost(entrant, level) for level in levels)
            if decided or (entrant.behind and rounds >= ROUNDS_BEHIND):
                self._leave(entrant, pace, "complete")

    def _noise(self, pace: Entrant) -> float | None:
        """How far the twin's times seem to lie from the anchor's; None without a twin."""
        samples = self._twin.samples if self._twin else {}
        ratios = [samples[number] / pace.samples[number] for number in samples.keys() & pace.samples.keys()]
        if not ratios:
            return None
        middle = median(ratios)
        # Twice the standard error of a median, from deviations that a few outliers do not move.
        return max(abs(middle - 1), 3.7 * median(abs(ratio - middle) for ratio in ratios) / math.sqrt(len(ratios)))

    def _finish(self, pace: Entrant, samples: int) -> None:
        self.noise_floor = self._noise(pace)
        for candidate, result in self.results.items():
            self.results[candidate] = self._blurred(result)
        for entrant in list(self._entrants):
            if len(entrant.samples) >= samples:
                self._leave(entrant, pace, "complete")

    def _leave(self, entrant: Entrant, pace: Entrant, status: str, reason: str = "") -> None:
        self._entrants.remove(entrant)
        rounds = entrant.undisturbed if len(entrant.undisturbed) >= BLOCK else entrant.samples.keys()
        samples = [entrant.samples[number] for number in rounds] or [entrant.first]
        result = Result(
            status, len(samples), median(samples), *_figures(entrant, pace), entrant.error, entrant.workspace, reason
        )
        self.results[entrant.candidate] = self._blurred(result)

    def _blurred(self, result: Result) -> Result:
        """A result whose interval holds all that the noise may have hidden."""
        if not self.noise_floor or not result.ratio or not result.ratio_low:
            return result
        return result._replace(ratio_low=min(result.ratio_low, result.ratio / (1 + self.noise_floor)))


def _figures(entrant: Entrant, pace: Entrant) -> Figures:
    """Median of the ratios to the anchor's times in the same rounds, and the interval of that median."""
    if entrant is pace:
        return 1.0, 1.0, 1.0
    rounds = entrant.samples.keys() & pace.samples.keys()
    clean = rounds & entrant.undisturbed & pace.undisturbed
    if len(clean) >= BLOCK:
        rounds = clean
    first = entrant.first / pace.first
    return paired(entrant.samples, pace.samples, rounds) or (first, first, first)


def _is_clear(figures: Sequence[Figures]) -> bool:
    """True if more rounds would not change who is the best of these, or by too little to matter."""
    best, _, best_high = min(figures)
    rivals = [f for f in figures if f[0] > best and f[1] <= best_high]
    close = best * (1 + MARGIN)
    return all(ratio <= close and high - low <= 4 * MARGIN * best for ratio, low, high in rivals)

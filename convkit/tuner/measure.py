"""Fair timing: candidates of one problem race each other.

A candidate must be right before it is timed. Samples are long enough for the clock, taken in random order, and compared
within their round only, so that a machine that slows down slows everybody down. Losers leave in halves; the race ends
when the lead is clear, when nothing would change any more, or when the budget is spent.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from convkit.tuner.accuracy import class_of
from convkit.tuner.candidates import Candidate
from convkit.tuner.contention import ContentionGuard
from convkit.tuner.intervals import median, median_interval
from convkit.tuner.workbench import Bench, Runner

Progress = Callable[[int, int, str], None]

_samples = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """How candidates are measured; recorded with the session.

    Attributes
    ----------
    sample_seconds : float
        Inner repeats are chosen so that a sample takes at least this long.
    screen : float
        A candidate that is this many times slower than the best in its first samples does not enter the race.
    block : int
        Rounds between two cuts.
    rounds : int
        Most rounds.
    margin : float
        Candidates closer than this to the best are as good as the best; the race does not go on for them.
    operands : str
        "warm": operands stay in the caches from one repeat to the next, as in a loop over layers they partly do.
    tries : int
        How often a sample that the operating system interrupted is taken, until one was not.
    resident : int
        Most candidates that are kept ready at a time, and `resident_bytes` the most memory that they hold then: their
        results, packed weights and workspaces. The fastest of each accuracy stay in any case.
    """

    sample_seconds: float = 1e-3
    screen: float = 1.6
    block: int = 3
    rounds: int = 30
    margin: float = 0.01
    operands: str = "warm"
    tries: int = 4
    resident: int = 12
    resident_bytes: int = 2**30

    def record(self, budget: float) -> dict[str, Any]:
        """The policy as a session stores it."""
        return {**asdict(self), "budget": budget}


@dataclass(slots=True)
class Result:
    """What the race found out about one candidate."""

    candidate: Candidate
    status: str
    n: int = 0
    median: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    workspace: int = 0
    reason: str = ""


@dataclass(slots=True)
class _Entrant:
    candidate: Candidate
    runner: Runner
    repeats: int
    first: float
    error: float
    workspace: int
    footprint: int
    samples: dict[int, float] = field(default_factory=dict)
    # Rounds whose sample nothing interrupted, and whether the last one was.
    undisturbed: set[int] = field(default_factory=set)
    clean: bool = False

    @property
    def level(self) -> int:
        return class_of(self.candidate.kernel)


class Race:
    """One race over the candidates of a problem.

    Parameters
    ----------
    bench : Bench
        Makes candidates ready and knows what is right.
    budget : float
        Seconds. Candidates are screened in order until the larger part of it is spent; at least two are.
    record : callable
        Called with each `Result` as soon as it is final.
    threads : int
        Team size of the candidates.
    anchor : callable
        Called once with the candidate that the ratios refer to, before the first record.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        budget: float,
        record: Callable[[Result], None],
        anchor: Callable[[Candidate], None] = lambda candidate: None,
        policy: Policy | None = None,
        guard: ContentionGuard | None = None,
        clock: Callable[[], float] = time.perf_counter,
        seed: int = 0,
        progress: Progress | None = None,
        threads: int = 1,
    ) -> None:
        self._bench = bench
        self._threads = threads
        self._budget = budget
        self._record = record
        self._tell_anchor = anchor
        self._policy = policy or Policy()
        self._guard = guard or ContentionGuard()
        self._clock = clock
        self._random = random.Random(seed)
        self._progress = progress or (lambda done, total, text: None)
        self._anchor: _Entrant | None = None
        self._final = 0
        self._total = 0
        self._deferred: list[Result] = []
        # Kernels that lost with their default parameters: no other set makes up for so much.
        self._hopeless: set[str] = set()

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Race. Every result goes to `record`; on KeyboardInterrupt those with enough samples do, and it propagates."""
        self._total = len(candidates)
        begin = self._clock()
        entrants: list[_Entrant] = []
        try:
            self._screen(candidates, entrants, begin)
            if entrants:
                self._rounds(entrants, begin)
        except KeyboardInterrupt:
            self._finish([entrant for entrant in entrants if len(entrant.samples) >= self._policy.block])
            raise
        self._finish(entrants)

    def _screen(self, candidates: Sequence[Candidate], entrants: list[_Entrant], begin: float) -> None:
        """The gate, the number of repeats and a first sample for each; leaves the promising ones in `entrants`."""
        for number, candidate in enumerate(candidates):
            if number >= 2 and self._clock() - begin > 0.6 * self._budget:
                break
            if candidate.kernel.name in self._hopeless:
                continue
            entrant = self._prepare(candidate)
            if entrant is None:
                continue
            entrants.append(entrant)
            best = min(rival.first for rival in entrants if rival.level <= entrant.level)
            if entrant.first > self._policy.screen * best:
                # One slow sample may be an accident of the machine; a candidate leaves for being slow twice.
                entrant.first = min(entrant.first, self._sample(entrant))
            if entrant.first > self._policy.screen * best:
                self._hopeless.add(candidate.kernel.name)
            self._cut_screened(entrants)
        self._choose_anchor(entrants)

    def _cut_screened(self, entrants: list[_Entrant]) -> None:
        entrants.sort(key=lambda entrant: entrant.first)
        kept: list[_Entrant] = []
        held = 0
        for entrant in entrants:
            # A call may ask for more accuracy than the fastest has: only rivals that are as exact count.
            best = min(rival.first for rival in entrants if rival.level <= entrant.level)
            room = len(kept) < self._policy.resident and held + entrant.footprint <= self._policy.resident_bytes
            if entrant.first == best or (entrant.first <= self._policy.screen * best and room):
                kept.append(entrant)
                held += entrant.footprint
            else:
                self._deferred.append(self._screened_out(entrant))
        entrants[:] = kept

    def _screened_out(self, entrant: _Entrant) -> Result:
        return Result(
            entrant.candidate, "raced out", n=1, median=entrant.first, error=entrant.error,
            workspace=entrant.workspace, reason="slow in its first samples",
        )  # fmt: skip

    def _choose_anchor(self, entrants: list[_Entrant]) -> None:
        """The fastest direct summation, which every session has, or else the fastest of all."""
        if entrants:
            direct = [entrant for entrant in entrants if entrant.candidate.kernel.direct]
            self._anchor = min(direct or entrants, key=lambda entrant: entrant.first)
            self._tell_anchor(self._anchor.candidate)
        for result in self._deferred:
            if self._anchor is not None and result.median is not None:
                result.ratio = result.median / self._anchor.first
            self._emit(result)
        self._deferred.clear()

    def _prepare(self, candidate: Candidate) -> _Entrant | None:
        try:
            workspace = self._bench.workspace(candidate)
            runner = self._bench.runner(candidate)
            # Whatever the kernel fails to write must not pass for a result that an earlier candidate left behind.
            runner.y.fill(math.nan)
            error = self._bench.error(runner.run())
        except (ValueError, RuntimeError, MemoryError) as failure:
            self._deferred.append(Result(candidate, "failed", reason=f"{type(failure).__name__}: {failure}"[:400]))
            return None
        if error > self._bench.tolerance(candidate):
            reason = f"wrong: RMS error {error:.1e}"
            recorded = error if math.isfinite(error) else None
            self._deferred.append(Result(candidate, "failed", error=recorded, workspace=workspace, reason=reason))
            return None
        entrant = _Entrant(candidate, runner, 1, 0.0, error, workspace, self._bench.footprint(candidate))
        entrant.first = self._sample(entrant)
        for _ in range(2):
            repeats = max(1, math.ceil(self._policy.sample_seconds / entrant.first))
            if repeats <= entrant.repeats:
                break
            entrant.repeats = repeats
            entrant.first = self._sample(entrant)
        return entrant

    def _sample(self, entrant: _Entrant) -> float:
        global _samples

        _samples += 1
        seconds, entrant.clean = self._guard.undisturbed(
            lambda: entrant.runner.time(entrant.repeats),
            # CPU time is good enough for one thread not to insist.
            min(self._policy.tries, 2) if self._threads == 1 else self._policy.tries,
            alone=self._threads == 1,
        )
        return max(seconds / entrant.repeats, 1e-9)

    def _rounds(self, entrants: list[_Entrant], begin: float) -> None:
        round_number = 0
        while round_number < self._policy.rounds:
            for _ in range(self._policy.block):
                for entrant in self._random.sample(entrants, len(entrants)):
                    entrant.samples[round_number] = self._sample(entrant)
                    if entrant.clean:
                        entrant.undisturbed.add(round_number)
                    self._progress(self._final, self._total, str(entrant.candidate))
                self._guard.end_round()
                round_number += 1
                if self._clock() - begin > self._budget:
                    return
            self._cut(entrants)
            if self._settled(entrants):
                return

    def _cut(self, entrants: list[_Entrant]) -> None:
        """Send the clear losers home, and of the slower half those that are not within the margin of the best.

        Losing means losing against rivals that are at least as exact.
        """
        figures = {id(entrant): self._figures(entrant) for entrant in entrants}
        ranked = sorted(entrants, key=lambda entrant: figures[id(entrant)][0])
        for place, entrant in enumerate(ranked):
            ratio, low, _ = figures[id(entrant)]
            best, _, best_high = min(figures[id(rival)] for rival in ranked if rival.level <= entrant.level)
            lost = low > best_high
            slower_half = place >= math.ceil(len(ranked) / 2) and ratio > best * (1 + 3 * self._policy.margin)
            if entrant is not self._anchor and (lost or slower_half):
                entrants.remove(entrant)
                self._emit(self._result(entrant, "raced out", f"{ratio / best:.2f} times the best"))

    def _settled(self, entrants: list[_Entrant]) -> bool:
        """True where more rounds would change no choice, at any accuracy."""
        levels = sorted({entrant.level for entrant in entrants})
        return all(self._clear([e for e in entrants if e.level <= level]) for level in levels)

    def _clear(self, entrants: list[_Entrant]) -> bool:
        figures = [self._figures(entrant) for entrant in entrants]
        best, _, best_high = min(figures)
        rivals = [f for f in figures if f[0] > best and f[1] <= best_high]
        close = best * (1 + self._policy.margin)
        return all(ratio <= close and high - low <= 4 * self._policy.margin * best for ratio, low, high in rivals)

    def _figures(self, entrant: _Entrant) -> tuple[float, float, float]:
        """Median of the ratios to the anchor in the same rounds, and the interval of that median."""
        anchor = self._anchor
        assert anchor is not None
        if entrant is anchor:
            return 1.0, 1.0, 1.0
        rounds = entrant.samples.keys() & anchor.samples.keys()
        clean = rounds & entrant.undisturbed & anchor.undisturbed
        if len(clean) >= self._policy.block:
            rounds = clean
        ratios = sorted(entrant.samples[r] / anchor.samples[r] for r in rounds)
        if not ratios:
            ratio = entrant.first / anchor.first
            return ratio, ratio, ratio
        return median(ratios), *median_interval(ratios)

    def _result(self, entrant: _Entrant, status: str, reason: str = "") -> Result:
        ratio, low, high = self._figures(entrant)
        rounds = entrant.undisturbed if len(entrant.undisturbed) >= self._policy.block else entrant.samples.keys()
        samples = [entrant.samples[r] for r in rounds] or [entrant.first]
        return Result(
            entrant.candidate, status, n=len(samples), median=median(samples), ratio=ratio, low=low,
            high=high, error=entrant.error, workspace=entrant.workspace, reason=reason,
        )  # fmt: skip

    def _finish(self, entrants: list[_Entrant]) -> None:
        for entrant in entrants:
            self._emit(self._result(entrant, "complete"))
        entrants.clear()

    def _emit(self, result: Result) -> None:
        self._final += 1
        self._record(result)
        self._progress(self._final, self._total, str(result.candidate))


def samples_taken() -> int:
    """How many samples this process has timed; replay leaves it alone."""
    return _samples

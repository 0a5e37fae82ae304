"""Fair timing: candidates of one problem race each other.

A candidate must be right before it is timed. All are screened: every kernel with its default parameters, then others
of its sets where it did well. The promising ones race. Samples are long enough for the clock, taken in random order,
and compared within their round only, so that a machine that slows down slows everybody. Between rounds everything
moves to other memory: which sets of a cache arrays share is luck. Losers leave in halves; the race ends when the lead
is clear, when nothing would change any more, or when the budget is spent.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from convkit.tuner.accuracy import class_of
from convkit.tuner.choosing.intervals import median, median_interval
from convkit.tuner.evidence.records import Result
from convkit.tuner.inventory import Candidate
from convkit.tuner.measuring.contention import ContentionGuard
from convkit.tuner.measuring.workbench import Bench, Runner

Progress = Callable[[int, int, str], None]

# Below this many samples an interval of the median is all of them.
_ENOUGH = 8
# Of sets as fast as the default, which differ by noise, the default is the one to keep: among many sets one is always
# lucky in its first samples, so only a set that is faster by more than luck goes before it.
_DEFAULT_BONUS = 0.93
# One slow sample may be an accident of the machine; of three hardly two are. More would take the time in which further
# candidates are screened. But who seems to be the best of all is what others are held against from then on, and among
# many one is always lucky.
_SCREENING_SAMPLES = 3
_LEADING_SAMPLES = 9
# A run this long is not slow by an accident of the machine.
_LONG_RUN = 40e-3

# After a pause, in which one thread packed or checked, the kernel may let a whole team run on one CPU for some
# milliseconds. It is apart when a few runs in a row take as long as the shortest, not before the one time and at the
# latest after the other.
_APART_SECONDS = (5e-3, 20e-3)
_APART_RUNS = 3
_APART_RATIO = 1.15

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
    hopeless : float
        A kernel that is this many times slower than the best is not sampled any further.
    screening : float
        Share of the budget after which no further candidate is screened.
    patience : int
        How many parameter sets in a row may fail to improve on a kernel's best before no more of them are screened.
    block : int
        Rounds between two cuts.
    rounds, slow_rounds : int
        Most rounds, and most for candidates that compete only because a call may ask for their accuracy: they cost
        more time than all others, and few calls ask for them.
    margin : float
        Candidates closer than this to the best are as good as the best; the race does not go on for them.
    moving : float
        Time that moving operands, packed weights and workspaces to other memory may take, as a share of the rounds'.
    operands : str
        "warm": operands stay in the caches from one repeat to the next, as in a loop over layers they partly do.
    tries : int
        How often a sample that the operating system interrupted is taken, until one was not.
    resident, slow_resident : int
        Most candidates that are kept ready at a time, and `resident_bytes` the most memory that they hold then: their
        results, packed weights and workspaces. The fastest of each accuracy stay in any case.
    """

    sample_seconds: float = 1e-3
    screen: float = 1.4
    hopeless: float = 2.5
    screening: float = 0.6
    patience: int = 3
    block: int = 3
    rounds: int = 30
    slow_rounds: int = 3
    margin: float = 0.015
    moving: float = 1.0
    operands: str = "warm"
    tries: int = 4
    resident: int = 10
    slow_resident: int = 2
    resident_bytes: int = 2**30

    def record(self, budget: float) -> dict[str, Any]:
        """The policy as a session stores it."""
        return {**asdict(self), "budget": budget}


@dataclass(slots=True)
class _Entrant:
    candidate: Candidate
    runner: Runner
    repeats: int
    first: float
    error: float
    workspace: int
    footprint: int
    default: bool = False
    # Much slower than the fastest: here for those calls only that ask for its accuracy.
    behind: bool = False
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
    threads : int
        Team size of the candidates.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        budget: float,
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
        self._policy = policy or Policy()
        self._guard = guard or ContentionGuard()
        self._clock = clock
        self._random = random.Random(seed)
        self._progress = progress or (lambda done, total, text: None)
        self.results: list[tuple[Candidate, Result]] = []
        self._anchor: _Entrant | None = None
        self._final = 0
        self._total = 0
        self._deferred: list[tuple[Candidate, Result]] = []

    @property
    def anchor(self) -> Candidate | None:
        """The candidate that the ratios refer to; None where nothing was timed."""
        return None if self._anchor is None else self._anchor.candidate

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Race, to fill `results`; on KeyboardInterrupt with those that have enough samples, and it propagates."""
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
        pending = list(candidates)
        # Of each kernel its best first sample and how many of its sets have not improved on it since.
        known: dict[str, tuple[float, int]] = {}

        def promise(candidate: Candidate) -> float:
            seconds, failures = known.get(candidate.kernel.name, (0.0, 0))
            return seconds * (1 + 0.02 * failures)

        while pending:
            if len(known) >= 2 and self._clock() - begin > self._policy.screening * self._budget:
                break
            candidate = min(pending, key=promise)
            pending.remove(candidate)
            entrant = self._prepare(candidate, entrants)
            seconds, failures = known.get(candidate.kernel.name, (math.inf, -1))
            first = entrant.first if entrant else math.inf
            better = first < seconds * (1 - self._policy.margin)
            failures = 0 if better else failures + 1
            best = min(seconds, first)
            known[candidate.kernel.name] = best, failures
            if entrant:
                entrant.default = math.isinf(seconds)
                entrants.append(entrant)
            # Parameters do not make up for a kernel that is far behind, nor do they go on and on finding better ones.
            # One slow set says nothing of a kernel's others: its best set counts.
            behind = entrant and best > self._policy.screen * _best_first(entrants, entrant.level)
            if behind or failures >= self._policy.patience:
                pending = [other for other in pending if other.kernel.name != candidate.kernel.name]
            self._cut_screened(entrants)
        self._choose_anchor(entrants)

    def _is_slow(self, entrant: _Entrant, rivals: Sequence[_Entrant]) -> bool:
        """True where the first samples say that the entrant loses against rivals that are as exact."""
        return entrant.first > self._policy.screen * _best_first(rivals, entrant.level)

    def _cut_screened(self, entrants: list[_Entrant]) -> None:
        entrants.sort(key=lambda entrant: entrant.first * (_DEFAULT_BONUS if entrant.default else 1))
        fastest = min((entrant.first for entrant in entrants), default=0.0)
        kept: list[_Entrant] = []
        held = slow = 0
        for entrant in entrants:
            leads = all(rival.level > entrant.level for rival in kept)
            behind = entrant.first > self._policy.screen * fastest
            room = slow < self._policy.slow_resident if behind else len(kept) - slow < self._policy.resident
            fits = held + entrant.footprint <= self._policy.resident_bytes
            if leads or (room and fits and not self._is_slow(entrant, entrants)):
                kept.append(entrant)
                held += entrant.footprint
                slow += behind
                entrant.behind = behind
            else:
                self._deferred.append((entrant.candidate, self._screened_out(entrant)))
        entrants[:] = kept

    def _screened_out(self, entrant: _Entrant) -> Result:
        return Result(
            "raced out", n=1, median=entrant.first, error=entrant.error,
            workspace=entrant.workspace, reason="slow in its first samples",
        )  # fmt: skip

    def _choose_anchor(self, entrants: list[_Entrant]) -> None:
        """The fastest so far: it costs least, and ratios to a rival of the same speed are the sharpest."""
        now = 0.0
        if entrants:
            self._anchor = min(entrants, key=lambda entrant: entrant.first)
            # First times compare candidates; errors of the ratios add up in them. What is recorded are seconds.
            now = self._anchor.first
            if now <= _LONG_RUN:
                now = self._sample(self._anchor)
        for candidate, result in self._deferred:
            if self._anchor is not None and result.median is not None:
                ratio = result.median / self._anchor.first
                result = result._replace(ratio=ratio, median=ratio * now)
            self._emit(candidate, result)
        self._deferred.clear()

    def _prepare(self, candidate: Candidate, rivals: Sequence[_Entrant]) -> _Entrant | None:
        try:
            workspace = self._bench.workspace(candidate)
            runner = self._bench.runner(candidate)
            # Whatever the kernel fails to write must not pass for a result that an earlier candidate left behind.
            runner.y.fill(math.nan)
            begin = self._clock()
            y = runner.run()
            first = self._clock() - begin
            error = self._bench.error(y)
        except (ValueError, RuntimeError, MemoryError) as failure:
            self._deferred.append((candidate, Result("failed", reason=f"{type(failure).__name__}: {failure}"[:400])))
            return None
        if error > self._bench.tolerance(candidate):
            reason = f"wrong: RMS error {error:.1e}"
            recorded = error if math.isfinite(error) else None
            result = Result("failed", error=recorded, workspace=workspace, reason=reason)
            self._deferred.append((candidate, result))
            return None
        entrant = _Entrant(candidate, runner, 1, first, error, workspace, self._bench.footprint(candidate))
        best = _best_first(rivals, entrant.level)
        if first > _LONG_RUN:
            # It also got its memory from the system, which may have taken longer than the kernel.
            entrant.first = self._sample(entrant)
            if entrant.first > _LONG_RUN and entrant.first > self._policy.hopeless * best:
                return entrant
        self._spread_team(runner)
        entrant.first = self._sample(entrant)
        for _ in range(2):
            repeats = max(1, math.ceil(self._policy.sample_seconds / entrant.first))
            if repeats <= entrant.repeats:
                break
            entrant.repeats = repeats
            entrant.first = self._sample(entrant)
        self._compare(entrant, rivals)
        return entrant

    def _compare(self, entrant: _Entrant, rivals: Sequence[_Entrant]) -> None:
        """Set the entrant's first time: on the scale of the fastest rival's, which is sampled along with it.

        Screening takes long enough to see the machine slow down and recover, and what was screened in a quiet moment
        would beat everybody who comes later: the two are compared by samples in turns.
        """
        if entrant.first > _LONG_RUN:
            return
        pace = min(rivals, key=lambda rival: rival.first, default=None)
        if pace is None:
            entrant.first = min(self._sample(entrant) for _ in range(_SCREENING_SAMPLES))
            return
        best = _best_first(rivals, entrant.level)
        ratios: list[float] = []
        while len(ratios) < (_LEADING_SAMPLES if entrant.first < best else _SCREENING_SAMPLES):
            # Each finds the caches as the other left them.
            before = self._sample(pace)
            ratios.append(self._sample(entrant) / before)
            entrant.first = median(sorted(ratios)) * pace.first
            if len(ratios) > 1 and entrant.first > self._policy.hopeless * best:
                return

    def _sample(self, entrant: _Entrant) -> float:
        global _samples

        _samples += 1
        seconds, entrant.clean = self._guard.undisturbed(
            lambda: entrant.runner.time(entrant.repeats),
            # CPU time is good enough for one thread not to insist.
            min(self._policy.tries, 2) if self._threads == 1 else self._policy.tries,
            threads=self._threads,
        )
        return max(seconds / entrant.repeats, 1e-9)

    def _rounds(self, entrants: list[_Entrant], begin: float) -> None:
        round_number = 0
        start = self._clock()
        moving = 0.0
        while round_number < self._policy.rounds:
            for _ in range(self._policy.block):
                for entrant in self._random.sample(entrants, len(entrants)):
                    entrant.samples[round_number] = self._sample(entrant)
                    if entrant.clean:
                        entrant.undisturbed.add(round_number)
                    self._progress(self._final, self._total, str(entrant.candidate))
                self._guard.end_round()
                round_number += 1
                now = self._clock()
                if now - begin > self._budget:
                    return
                if moving <= self._policy.moving * (now - start - moving):
                    self._move(entrants)
                    moving += self._clock() - now
            self._cut(entrants, round_number)
            if len(entrants) <= 1:
                return

    def _move(self, entrants: Sequence[_Entrant]) -> None:
        self._bench.move()
        for entrant in entrants:
            # The old runner lives until the new one has its memory.
            try:
                entrant.runner = self._bench.runner(entrant.candidate)
            except MemoryError:
                continue
            entrant.runner.run()
        self._spread_team(entrants[0].runner)

    def _spread_team(self, runner: Runner) -> None:
        """Run until the team's threads have a CPU each."""
        if self._threads == 1:
            return
        least, most = _APART_SECONDS
        begin = self._clock()
        seconds: list[float] = []
        while (spent := self._clock() - begin) < most:
            seconds.append(runner.time(1))
            together = seconds[-_APART_RUNS:]
            if spent >= least and len(together) == _APART_RUNS and max(together) <= _APART_RATIO * min(seconds):
                return

    def _cut(self, entrants: list[_Entrant], rounds: int) -> None:
        """Send home who lost at every accuracy that allows it, and who has nothing left to decide.

        Losing means: clearly slower than the best of the rivals that are at least as exact, or in the slower half and
        not within reach of that best. Few samples prove little, so the reach shrinks from cut to cut.
        """
        figures = {id(entrant): self._figures(entrant) for entrant in entrants}
        ranked = sorted(entrants, key=lambda entrant: figures[id(entrant)][0])
        faster_half = {id(entrant) for entrant in ranked[: math.ceil(len(ranked) / 2)]}
        reach = 1 + max(3 * self._policy.margin, 0.45 / rounds)
        best = {}
        settled = {}
        for level in sorted({entrant.level for entrant in ranked}):
            allowed = [entrant for entrant in ranked if entrant.level <= level]
            best[level] = min(figures[id(entrant)] for entrant in allowed)
            settled[level] = rounds >= _ENOUGH and self._clear([figures[id(entrant)] for entrant in allowed])

        def lost(entrant: _Entrant, level: int) -> bool:
            ratio, low, _ = figures[id(entrant)]
            if ratio <= reach * best[level][0]:
                return rounds >= _ENOUGH and low > best[level][2]
            return low > best[level][2] or id(entrant) not in faster_half

        for entrant in ranked:
            levels = [level for level in best if level >= entrant.level]
            if entrant is self._anchor and len(entrants) > 1:
                continue
            if all(lost(entrant, level) for level in levels):
                times = figures[id(entrant)][0] / best[entrant.level][0]
                self._leave(entrants, entrant, "raced out", f"{times:.2f} times the best")
                continue
            decided = all(settled[level] or lost(entrant, level) for level in levels)
            if decided or (entrant.behind and rounds >= self._policy.slow_rounds):
                self._leave(entrants, entrant, "complete")

    def _leave(self, entrants: list[_Entrant], entrant: _Entrant, status: str, reason: str = "") -> None:
        entrants.remove(entrant)
        self._emit(entrant.candidate, self._result(entrant, status, reason))

    def _clear(self, figures: Sequence[tuple[float, float, float]]) -> bool:
        """True where more rounds would not change who is the best of these, or by too little to matter."""
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
            status, n=len(samples), median=median(samples), ratio=ratio, ratio_low=low,
            ratio_high=high, error=entrant.error, workspace=entrant.workspace, reason=reason,
        )  # fmt: skip

    def _finish(self, entrants: list[_Entrant]) -> None:
        for entrant in entrants:
            self._emit(entrant.candidate, self._result(entrant, "complete"))
        entrants.clear()

    def _emit(self, candidate: Candidate, result: Result) -> None:
        self._final += 1
        self.results.append((candidate, result))
        self._progress(self._final, self._total, str(candidate))


def _best_first(rivals: Sequence[_Entrant], level: int) -> float:
    """The least first time of the rivals that are at least as exact; infinite without any.

    A call may ask for more accuracy than the fastest rival has, so those that are less exact do not count.
    """
    return min((rival.first for rival in rivals if rival.level <= level), default=math.inf)


def samples_taken() -> int:
    """How many samples this process has timed; replay leaves it alone."""
    return _samples

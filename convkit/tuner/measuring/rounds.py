"""Rounds over alternatives on real work: who runs next, who is out, and when it is settled.

`BestOf` and the online mode share it. In a round every alternative that is left runs once, in random order, so that
times are compared within rounds; after each round losers leave. The first round is a warm-up and counts for nothing.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from convkit.tuner.choosing.intervals import median, paired
from convkit.tuner.evidence.records import Result
from convkit.tuner.process import ForkSafeLock

# How often an alternative is passed over for a sample that does not count before it is sampled as it is.
_PATIENCE = 200
# One this many times slower than the best in every round leaves after the first that counts.
_HOPELESS = 1.5


@dataclass(slots=True)
class Arm:
    """One alternative.

    Attributes
    ----------
    samples : dict
        Round to seconds, the warm-up as round 0.
    out : str
        Why it is out; empty while it is in.
    failed : bool
        It is out because it raised or was wrong.
    """

    name: str
    samples: dict[int, float] = field(default_factory=dict)
    out: str = ""
    failed: bool = False
    skipped: int = 0

    @property
    def counted(self) -> list[float]:
        """Seconds of the rounds that count; the warm-up alone if there is nothing else."""
        return [s for r, s in self.samples.items() if r] or list(self.samples.values())

    @property
    def median(self) -> float | None:
        """Median seconds, None if it never finished."""
        return median(self.counted) if self.samples else None


@dataclass(frozen=True, slots=True)
class AlternativeReport:
    """One alternative."""

    name: str
    samples: int
    seconds: float | None
    ratio: float | None
    verdict: str

    def cells(self) -> tuple[str, ...]:
        """What tables show of it."""
        seconds = "" if self.seconds is None else f"{1e3 * self.seconds:.4f}"
        ratio = "" if self.ratio is None else f"{self.ratio:.3f}"
        return self.name, seconds, ratio, str(self.samples), self.verdict


@dataclass(frozen=True, slots=True)
class RoundsReport:
    """How it went.

    Attributes
    ----------
    settled : str or None
        The alternative that won.
    lost : float
        Seconds that all runs so far took beyond the best alternative's median.
    history : tuple of (str, float)
        Alternative and seconds of each run.
    key, threads, from_database
        Of a problem of `BestOf`: which calls, their team size, whether it was settled before.
    """

    settled: str | None
    lost: float
    alternatives: tuple[AlternativeReport, ...]
    history: tuple[tuple[str, float], ...]
    key: str = ""
    threads: int = 0
    from_database: bool = False


class Rounds:
    """Decides among alternatives; calls may come from many threads.

    Parameters
    ----------
    names : list of str
        In order of preference: the first runs first and wins ties.
    rounds : int
        Rounds that count, at most.

    Attributes
    ----------
    winner : int or None
        The alternative that is left or has won.
    history : list of (int, float)
        Alternative and seconds of each run, up to some thousands.
    lock : ForkSafeLock
        For whoever does more than one thing at a time.
    """

    def __init__(self, names: list[str], *, rounds: int = 8) -> None:
        if not names:
            raise ValueError("there must be at least one alternative")
        self.arms: list[Arm] = [Arm(name) for name in names]
        self.winner: int | None = 0 if len(names) == 1 else None
        self.history: list[tuple[int, float]] = []
        self.lock: ForkSafeLock = ForkSafeLock()
        self._rounds = rounds
        self._round = 0
        self._queue = list(range(len(names)))
        self._running = 0
        self._abandoned: list[int] = []
        self._harvested = False

    @property
    def settled(self) -> bool:
        """True if one alternative is left or has won."""
        return self.winner is not None

    @property
    def alive(self) -> list[int]:
        """Alternatives that are still in."""
        return [index for index, arm in enumerate(self.arms) if not arm.out]

    def next(self) -> tuple[int, int]:
        """The alternative to run now, and the round that its time belongs to; below 0 if it does not count."""
        with self.lock:
            while self._abandoned:
                self.give_back(self._abandoned.pop())
            if not self._queue and not self.settled:
                if self._running:
                    # Other threads still owe samples of this round: repeat the best known without counting it.
                    return self._ranked()[0], -1
                self._end_round()
            if self.winner is not None:
                return self.winner, -1
            self._running += 1
            return self._queue.pop(0), self._round

    def add(self, index: int, round_number: int, seconds: float, *, counts: bool = True) -> None:
        """Tell the time of a run that `next` gave out.

        A time that does not count, because something within the run was not settled, is taken again, up to a limit.
        """
        with self.lock:
            arm = self.arms[index]
            arm.skipped += not counts
            if round_number >= 0 and not counts and arm.skipped <= _PATIENCE:
                self.give_back(index)
                return
            if len(self.history) < 4096:
                self.history.append((index, seconds))
            if round_number < 0:
                return
            self._running -= 1
            arm.samples[round_number] = max(seconds, 1e-9)
            if not self._queue and not self._running:
                self._end_round()

    def give_back(self, index: int) -> None:
        """Tell that a run that counts came to nothing through no fault of the alternative."""
        with self.lock:
            self._running -= 1
            self._queue.append(index)

    def abandon(self, index: int) -> None:
        """`give_back`, at the next call of `next`: for destructors, which may come while the lock is held."""
        self._abandoned.append(index)

    def drop(self, index: int, round_number: int, reason: str) -> None:
        """Tell that an alternative raised or was wrong; it does not run again."""
        with self.lock:
            if round_number >= 0:
                self._running -= 1
            arm = self.arms[index]
            arm.out, arm.failed = reason[:400], True
            self._queue = [waiting for waiting in self._queue if waiting != index]
            if self.winner == index:
                self.winner = None
            if len(self.alive) == 1:
                (self.winner,) = self.alive

    def harvest(self) -> dict[int, Result]:
        """What is known of each alternative that ran or failed, with ratios to the winner: once, as soon as it won."""
        with self.lock:
            winner = self.winner
            if winner is None or self._harvested or not self.arms[winner].samples:
                return {}
            self._harvested = True
            found = {}
            for index, arm in enumerate(self.arms):
                if arm.samples or arm.failed:
                    ratio, low, high = self._figures(index, winner) or (None, None, None)
                    status = "failed" if arm.failed else "raced out" if arm.out else "complete"
                    found[index] = Result(status, len(arm.counted), arm.median, ratio, low, high, reason=arm.out)
            return found

    def report(self) -> RoundsReport:
        """What happened so far."""
        with self.lock:
            best = min((arm.median for arm in self.arms if arm.median and not arm.failed), default=None)
            rows = []
            for index, arm in enumerate(self.arms):
                verdict = "settled" if index == self.winner else arm.out or ("slower" if self.settled else "in")
                ratio = None if arm.median is None or best is None else arm.median / best
                rows.append(AlternativeReport(arm.name, len(arm.counted), arm.median, ratio, verdict))
            return RoundsReport(
                None if self.winner is None else self.arms[self.winner].name,
                0.0 if best is None else max(sum(seconds - best for _, seconds in self.history), 0.0),
                tuple(rows),
                tuple((self.arms[index].name, seconds) for index, seconds in self.history),
            )

    def _figures(self, index: int, anchor: int) -> tuple[float, float, float] | None:
        """Median ratio to the anchor's times in the same rounds, and its interval; None without common rounds."""
        own, other = self.arms[index].samples, self.arms[anchor].samples
        return paired(own, other, [r for r in own if r in other and (r or len(own) == 1)])

    def _ranked(self) -> list[int]:
        return sorted(self.alive, key=lambda index: (self.arms[index].median or math.inf, index))

    def _end_round(self) -> None:
        if self._round:
            self._cut()
        alive = self.alive
        if len(alive) <= 1 or self._round >= self._rounds:
            self.winner = self._ranked()[0] if alive else None
            return
        self._round += 1
        # A generator of its own would be larger than all else that is kept of a problem.
        self._queue = random.Random(self._round).sample(alive, len(alive))

    def _cut(self) -> None:
        ranked = self._ranked()
        for place, index in enumerate(ranked):
            figures = self._figures(index, ranked[0])
            if not place or figures is None:
                continue
            ratio, low, _ = figures
            slower = low > 1.0 or (place >= math.ceil(len(ranked) / 2) and ratio > 1.02)
            if low > _HOPELESS or (self._round >= 3 and slower):
                self.arms[index].out = f"{ratio:.2f} times the best after {self._round} rounds"

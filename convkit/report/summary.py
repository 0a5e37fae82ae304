"""What the databases know, as text: who wins where, how sure, and what it was worth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill, shorten
from typing import Protocol, TypeVar

from convkit.problem import Problem
from convkit.report.layers import layer_name, setting
from convkit.report.regret import Regret, regrets, summary
from convkit.report.standing import Standing, Worth, measured_standings, worths
from convkit.tables import WIDTH, fitted, milliseconds
from convkit.tuner.choosing.ranking import Ranking
from convkit.tuner.choosing.selector import Case, Selector, selector

T = TypeVar("T")

# Problems to be measured again that are named; the number of all is told.
_MOST_NAMED = 10


class Each(Protocol):
    """What loops go through, with what is done there in words: a progress bar."""

    def __call__(self, items: Sequence[T], what: str, /) -> Iterable[T]:
        """The items, one after the other."""


def unwatched(items: Sequence[T], what: str) -> Iterable[T]:
    """Go through items without a progress bar."""
    return items


def measured_cases(choosing: Selector | None = None, each: Each = unwatched) -> list[Case]:
    """What this user or site measured on this machine class, in a fixed order; each problem with one epilogue only.

    What the package ships was measured by others, and only in part: it is neither stale here nor reported.
    """
    choosing = choosing or selector()
    here = choosing.context_of(1)
    texts = {found for tier in choosing.tiers if tier.name != "shipped" for found in tier.problems(here)}
    found: dict[tuple[Problem, int], Case] = {}
    for text, threads in each(sorted(texts), "reading trials"):
        try:
            problem = Problem.parse(text)
        except ValueError:  # of a `BestOf`, or of something else's
            continue
        case = choosing.on(problem, threads)
        if any(answer.ranking.ranked or answer.ranking.failed for answer in case.answers):
            found.setdefault((problem.bare(), threads), case)
    return list(found.values())


def stale_cases(measured: Iterable[Case]) -> list[Case]:
    """Those that were only screened or have a kernel without a trial at its current revision on an idle machine.

    Contended ones come first.
    """
    stale = []
    for case in measured:
        ranking = _ranking(case)
        if not ranking.complete or ranking.thin:
            stale.append((not all(row.doubtful for row in ranking.ranked), str(case.task), case))
    return [case for _, _, case in sorted(stale, key=lambda item: item[:2])]


def is_outdated(case: Case) -> bool:
    """True if a kernel is known from an older revision only; else a stale case is in doubt.

    A short measurement leaves kernels out, and looks as one from before a kernel was there.
    """
    ranking = _ranking(case)
    return any(row.outdated and row.kernel in ranking.untried for row in ranking.ranked)


def _ranking(case: Case) -> Ranking:
    return next(a.ranking for a in case.answers if a.ranking.ranked or a.ranking.failed)


def missed_problems(log: str) -> list[tuple[Problem, int]]:
    """Problems that a log of CONVKIT_VERBOSE=1 says were predicted because nobody had measured them."""
    found: dict[tuple[Problem, int], None] = {}
    for match in re.finditer(r"(\S+) with (\d{1,5}) threads: .* from (?:model|neighbour)\b", log):
        try:
            found[Problem.parse(match[1]), int(match[2])] = None
        except ValueError:
            continue
    return list(found)


@dataclass(frozen=True, slots=True)
class Summary:
    """What was measured on this class of machine, and what it was worth.

    Attributes
    ----------
    measured, stale : list of Case
        What `measured_cases` and `stale_cases` give.
    winners : Counter
        How many problems each family answers under default accuracy.
    cost_model : str
        Where its constants come from.
    standings : list of Standing
        How each choice stands.
    worths : list of Worth
        What choosing is worth for the networks that were measured.
    """

    machine: str
    measured: list[Case]
    stale: list[Case]
    winners: Counter[str]
    cost_model: str
    regrets: list[Regret]
    standings: list[Standing]
    worths: list[Worth]

    def __str__(self) -> str:
        if not self.measured:
            return "nothing was measured on this class of machine yet: run convkit tune"
        winners = ", ".join(f"{name} {count}" for name, count in self.winners.most_common())
        parts = [
            f"machine class {self.machine}",
            f"{len(self.measured)} problems measured, {self.doubts()}",
            f"cost model: {self.cost_model}",
            fill(f"winners: {winners}", WIDTH, subsequent_indent="    "),
        ]
        if self.worths:
            parts += ["", worth_table(self.worths), ""]
        parts.append(summary(self.regrets, [worth.network for worth in self.worths]))
        if self.stale:
            parts += ["", self._stale()]
        return "\n".join(parts)

    def doubts(self) -> str:
        """How many are to be measured again, and why."""
        old = sum(map(is_outdated, self.stale))
        return f"{len(self.stale) - old} in doubt (short or busy), {old} stale (older revision)"

    def _stale(self) -> str:
        preferred = [worth.network for worth in self.worths]
        lines = ["measured again by `convkit tune --stale`"]
        lines.append("(in doubt: short or busy measurement, or a new kernel; stale: older revision):")
        for case in self.stale[:_MOST_NAMED]:
            name = f"{layer_name(case.task.problem, preferred)}, {setting(case.task.problem, case.task.threads)}"
            lines.append(f"  {'stale' if is_outdated(case) else 'in doubt':8}  {shorten(name, WIDTH - 12)}")
        more = len(self.stale) - _MOST_NAMED
        return "\n".join([*lines, f"  and {more} more"] if more > 0 else lines)

    def facts(self) -> dict[str, object]:
        """The same for JSON."""
        return {
            "machine": self.machine,
            "measured": len(self.measured),
            "stale": [[str(case.task.problem), case.task.threads] for case in self.stale if is_outdated(case)],
            "in_doubt": [[str(case.task.problem), case.task.threads] for case in self.stale if not is_outdated(case)],
            "winners": dict(self.winners),
            "networks": [
                {
                    "network": worth.network,
                    **worth.setting._asdict(),
                    "layers": len(worth.layers),
                    "of": worth.of,
                    "tuned": worth.tuned,
                    "untuned": worth.untuned,
                    "families": dict(worth.families()),
                }
                for worth in self.worths
            ],
            "cost_model": self.cost_model,
            "regrets": [
                {
                    "problem": str(row.case.task.problem),
                    "threads": row.case.task.threads,
                    "best": str(row.best.candidate),
                    "model": row.model,
                    "model_choice": str(row.model_choice),
                    "neighbour": row.neighbour,
                    "neighbour_choice": str(row.neighbour_choice or ""),
                }
                for row in self.regrets
            ],
        }


def summarise(choosing: Selector | None = None, each: Each = unwatched) -> Summary:
    """Go through everything that was measured.

    Parameters
    ----------
    each : callable
        What every loop over problems goes through.
    """
    choosing = choosing or selector()
    measured = measured_cases(choosing, each)
    stale = stale_cases(each(measured, "looking for stale ones"))
    winners = Counter(case.choose().family for case in each(measured, "choosing"))
    found = regrets(each(measured, "predicting"))
    standings = list(measured_standings(each(measured, "comparing"), choosing))
    machine = str(choosing.context_of(1).machine)
    return Summary(machine, measured, stale, winners, choosing.constants.source, found, standings, worths(standings))


def worth_table(found: Sequence[Worth]) -> str:
    """What tuning is worth, a line for each network: milliseconds tuned, untuned, and with the best single family."""
    rows: list[tuple[str, ...]] = [("milliseconds of all convolutions", "tuned", "untuned", "saves", "one kernel")]
    for place, worth in enumerate(found):
        if not place or worth.setting != found[place - 1].setting:
            rows.append((str(worth.setting),))
        family, best = worth.families()[0]
        part = "" if worth.complete else f" ({len(worth.layers)} of {worth.of} layers)"
        rows.append(
            (
                f"  {worth.network}{part}",
                milliseconds(worth.tuned),
                milliseconds(worth.untuned),
                f"{100 * (1.0 - worth.tuned / worth.untuned):.1f}%",
                f"{milliseconds(best)} {family}",
            )
        )
    return "\n".join(fitted(rows, left=(0, 4)))

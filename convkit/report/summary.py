"""What the databases know, as text: who wins where, how sure, and what it was worth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from convkit.problem import Problem
from convkit.report.regret import Regret, regrets, summary
from convkit.tuner.choosing.selector import Case, Selector, selector

T = TypeVar("T")


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
        ranking = next(a.ranking for a in case.answers if a.ranking.ranked or a.ranking.failed)
        if not ranking.complete or ranking.thin:
            stale.append((not all(row.doubtful for row in ranking.ranked), str(case.task), case))
    return [case for _, _, case in sorted(stale, key=lambda item: item[:2])]


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
    """

    machine: str
    measured: list[Case]
    stale: list[Case]
    winners: Counter[str]
    cost_model: str
    regrets: list[Regret]

    def __str__(self) -> str:
        if not self.measured:
            return "nothing was measured on this class of machine yet; convkit tune begins"
        return "\n".join(
            (
                f"machine class {self.machine}",
                f"{len(self.measured)} problems measured, {len(self.stale)} stale",
                "winners: " + ", ".join(f"{name} {count}" for name, count in self.winners.most_common()),
                f"cost model: {self.cost_model}",
                summary(self.regrets),
            )
        )

    def facts(self) -> dict[str, object]:
        """The same for JSON."""
        return {
            "machine": self.machine,
            "measured": len(self.measured),
            "stale": [[str(case.task.problem), case.task.threads] for case in self.stale],
            "winners": dict(self.winners),
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
    return Summary(str(choosing.context_of(1).machine), measured, stale, winners, choosing.constants.source, found)

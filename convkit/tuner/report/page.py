"""What the databases know, as text: who wins where, how sure, and what it was worth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from convkit.problem import Problem
from convkit.tuner.choosing.selector import Selector, selector
from convkit.tuner.evidence.records import BEST_OF
from convkit.tuner.report.regret import Regret, regrets, summary

Job = tuple[Problem, int]
# What loops over problems go through, with what is done there in words: a progress bar.
Each = Callable[[Sequence[Job], str], Iterable[Job]]


def unwatched(jobs: Sequence[Job], what: str) -> Iterable[Job]:
    """Go through problems without a progress bar."""
    return jobs


def measured_problems(choosing: Selector | None = None, each: Each = unwatched) -> list[Job]:
    """Problems, with their thread counts, that this user or site measured on this machine class, in a fixed order.

    What the package ships was measured by others, and only in part: it is neither stale here nor reported.
    """
    choosing = choosing or selector()
    here = choosing.context_of(1)
    own = [tier for tier in choosing.tiers if tier.name != "shipped"]
    texts = {found for tier in own for found in tier.problems(here)}
    found = []
    for text, threads in sorted(texts):
        if text.startswith(BEST_OF):
            continue
        try:
            found.append((Problem.parse(text), threads))
        except ValueError:
            continue
    return [job for job in each(found, "reading trials") if _ranked(choosing, *job)]


def stale_problems(choosing: Selector | None = None, measured: Iterable[Job] | None = None) -> list[Job]:
    """Measured problems with a kernel that has no trial at its current revision on an idle machine, contended first."""
    choosing = choosing or selector()
    stale = []
    for problem, threads in measured_problems(choosing) if measured is None else measured:
        answer = next(a for a in choosing.answers(problem, threads) if a.ranking.ranked or a.ranking.failed)
        if not answer.ranking.complete:
            doubtful = all(row.doubtful for row in answer.ranking.ranked)
            stale.append((not doubtful, str(problem), threads, problem))
    return [(problem, threads) for _, _, threads, problem in sorted(stale, key=lambda item: item[:3])]


def missed_problems(log: str) -> list[Job]:
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
    measured, stale : list of (Problem, int)
        Problems with their thread counts.
    winners : Counter
        How many problems each family answers under default accuracy.
    cost_model : str
        Where its constants come from.
    """

    machine: str
    measured: list[Job]
    stale: list[Job]
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
            "stale": [[str(problem), threads] for problem, threads in self.stale],
            "winners": dict(self.winners),
            "cost_model": self.cost_model,
            "regrets": [
                {
                    "problem": str(row.problem),
                    "threads": row.threads,
                    "best": str(row.best.candidate),
                    "model": row.model,
                    "model_choice": row.model_choice,
                    "neighbour": row.neighbour,
                    "neighbour_choice": row.neighbour_choice,
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
    measured = measured_problems(choosing, each)
    stale = stale_problems(choosing, each(measured, "looking for stale ones"))
    winners = Counter(choosing.choose(*job).family for job in each(measured, "choosing"))
    found = regrets(choosing, each(measured, "predicting"))
    return Summary(str(choosing.context_of(1).machine), measured, stale, winners, choosing.constants.source, found)


def _ranked(choosing: Selector, problem: Problem, threads: int) -> bool:
    return any(answer.ranking.ranked or answer.ranking.failed for answer in choosing.answers(problem, threads))

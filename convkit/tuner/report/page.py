"""What the databases know, as text: who wins where, how sure, and what it was worth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from convkit.problem import Problem
from convkit.tuner.choosing.selector import Selector, selector
from convkit.tuner.evidence.records import BEST_OF
from convkit.tuner.report.regret import regrets, summary


def measured_problems(choosing: Selector | None = None) -> list[tuple[Problem, int]]:
    """Problems, with their thread counts, that this user or site measured on this machine class, in a fixed order.

    What the package ships was measured by others, and only in part: it is neither stale here nor reported.
    """
    choosing = choosing or selector()
    here = choosing.context_of(1)
    own = [tier for tier in {*choosing.tiers, choosing.memory} if tier.name != "shipped"]
    texts = {found for tier in own for found in tier.problems(here)}
    found = []
    for text, threads in sorted(texts):
        if text.startswith(BEST_OF):
            continue
        try:
            found.append((Problem.parse(text), threads))
        except ValueError:
            continue
    return [(problem, threads) for problem, threads in found if _ranked(choosing, problem, threads)]


def stale_problems(choosing: Selector | None = None) -> list[tuple[Problem, int]]:
    """Measured problems with a kernel that has no trial at its current revision on an idle machine, contended first."""
    choosing = choosing or selector()
    stale = []
    for problem, threads in measured_problems(choosing):
        answer = next(a for a in choosing.answers(problem, threads) if a.ranking.ranked or a.ranking.failed)
        if not answer.ranking.complete:
            doubtful = all(row.doubtful for row in answer.ranking.ranked)
            stale.append((not doubtful, str(problem), threads, problem))
    return [(problem, threads) for _, _, threads, problem in sorted(stale, key=lambda item: item[:3])]


def missed_problems(log: str) -> list[tuple[Problem, int]]:
    """Problems that a log of CONVKIT_VERBOSE=1 says were predicted because nobody had measured them."""
    found: dict[tuple[Problem, int], None] = {}
    for match in re.finditer(r"(\S+) with (\d{1,5}) threads: .* from (?:model|neighbour)\b", log):
        try:
            found[Problem.parse(match[1]), int(match[2])] = None
        except ValueError:
            continue
    return list(found)


def winners(choosing: Selector, measured: Iterable[tuple[Problem, int]]) -> Counter[str]:
    """How many problems each family answers under default accuracy."""
    return Counter(choosing.choose(problem, threads).family for problem, threads in measured)


def text(choosing: Selector | None = None) -> str:
    """Counts, winners and regret."""
    choosing = choosing or selector()
    measured = measured_problems(choosing)
    if not measured:
        return "nothing was measured on this class of machine yet; convkit tune begins"
    stale = stale_problems(choosing)
    lines = [
        f"machine class {choosing.context_of(1).machine}",
        f"{len(measured)} problems measured, {len(stale)} stale",
        "winners: " + ", ".join(f"{name} {count}" for name, count in winners(choosing, measured).most_common()),
        f"cost model: {choosing.constants.source}",
        summary(regrets(choosing, measured)),
    ]
    return "\n".join(lines)


def _ranked(choosing: Selector, problem: Problem, threads: int) -> bool:
    return any(answer.ranking.ranked or answer.ranking.failed for answer in choosing.answers(problem, threads))

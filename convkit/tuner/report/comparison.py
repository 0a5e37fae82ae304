"""Is choosing worth it, and can it be repeated? The selector against static choices, a tuning against another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convkit.problem import Problem
from convkit.tables import aligned
from convkit.tuner.choosing.ranking import Ranked
from convkit.tuner.choosing.selector import Constraints, Selector, selector
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.report.page import Each, measured_problems, unwatched


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """One layer of a network: seconds of each family's best candidate, and of the choice."""

    name: str
    count: int
    families: dict[str, float]
    chosen: str
    seconds: float


def layer_times(
    layers: Iterable[tuple[str, int, Problem]], threads: int, choosing: Selector | None = None
) -> list[LayerTimes]:
    """Measured times of layers, given as (name, count, problem); layers without measurements are left out."""
    choosing = choosing or selector()
    found = []
    for name, count, problem in layers:
        allowed = _allowed(choosing, problem, threads)
        if not allowed:
            continue
        # One session's scale: ratios times the seconds of its fastest candidate.
        scale = allowed[0].seconds / allowed[0].ratio
        families: dict[str, float] = {}
        for row in allowed:
            families.setdefault(row.candidate.kernel.family, row.ratio * scale)
        choice = choosing.choose(problem, threads)
        chosen = next(row for row in allowed if row.candidate.parameters == choice.parameters
                      and row.candidate.kernel.name == choice.kernel)  # fmt: skip
        found.append(LayerTimes(name, count, families, choice.family, chosen.ratio * scale))
    return found


def static_table(layers: Sequence[LayerTimes]) -> str:
    """Milliseconds by layer and family, the selector's choice, and totals.

    A family that does not take a layer is charged with the fastest direct summation there, as a program would have to.
    """
    if not layers:
        return "none of these layers was measured; convkit tune begins"
    families = sorted({family for layer in layers for family in layer.families})
    totals = [total(layers, family) for family in families]
    own = sum(layer.count * layer.seconds for layer in layers)
    rows = [("layer", "x", *families, "selector", "choice")]
    for layer in layers:
        cells = (f"{1e3 * layer.families[f]:.3f}" if f in layer.families else "-" for f in families)
        rows.append((layer.name, str(layer.count), *cells, f"{1e3 * layer.seconds:.3f}", layer.chosen))
    rows.append(("total", "", *(f"{1e3 * seconds:.3f}" for seconds in (*totals, own))))
    rows.append(("over the selector", "", *(f"{seconds / own:.3f}" for seconds in (*totals, own))))
    return "\n".join(aligned(rows, left=(0, len(families) + 3)))


def total(layers: Sequence[LayerTimes], family: str) -> float:
    """Seconds of all layers with one family wherever it applies."""
    return sum(layer.count * layer.families.get(family, _fallback(layer)) for layer in layers)


def _fallback(layer: LayerTimes) -> float:
    direct = [seconds for family, seconds in layer.families.items() if not family.startswith("winograd")]
    return min(direct, default=layer.seconds)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two tunings of the same problems compare.

    Attributes
    ----------
    same, tied : int
        Problems with the same choice, and with choices that are as good as each other in both.
    slowest : float
        The largest loss of one's choice by the other's measurements: 0.05 is 5%.
    """

    problems: int
    same: int
    tied: int
    slowest: float
    differences: tuple[str, ...]

    def __str__(self) -> str:
        share = 100 * (self.same + self.tied) / max(self.problems, 1)
        lines = [
            f"{self.problems} problems: {self.same} choices equal, {self.tied} within tie sets ({share:.1f}%); "
            f"no choice more than {100 * self.slowest:.1f}% slower by the other's measurements"
        ]
        return "\n".join([*lines, *self.differences])


def agreement(
    first: Path,
    second: Path,
    choosing: Selector | None = None,
    *,
    only: Collection[tuple[Problem, int]] | None = None,
    each: Each = unwatched,
) -> Agreement:
    """Compare the choices that two databases lead to, for all problems that both know or for some `only`."""
    choosing = choosing or selector()
    one, two = (
        Selector(choosing.inventory, UserTier(str(path)), constants=choosing.constants, context_of=choosing.context_of)
        for path in (first, second)
    )
    known = set(measured_problems(two, each))
    shared = [job for job in measured_problems(one, each) if job in known and (only is None or job in only)]
    same = tied = 0
    slowest = 0.0
    differences = []
    for problem, threads in each(shared, "comparing"):
        a, b = one.choose(problem, threads), two.choose(problem, threads)
        if (a.kernel, a.parameters) == (b.kernel, b.parameters):
            same += 1
            continue
        loss = max(
            _loss(one, problem, threads, b.kernel, b.parameters), _loss(two, problem, threads, a.kernel, a.parameters)
        )
        slowest = max(slowest, loss)
        if _tied(one, problem, threads, b.kernel, b.parameters) or _tied(two, problem, threads, a.kernel, a.parameters):
            tied += 1
        else:
            choices = f"{a.kernel}{a.parameters}, {b.kernel}{b.parameters}"
            differences.append(f"  {problem} with {threads} threads: {choices}, {100 * loss:.1f}%")
    return Agreement(len(shared), same, tied, slowest, tuple(differences))


def _allowed(choosing: Selector, problem: Problem, threads: int) -> list[Ranked]:
    constraints = Constraints.of_call(choosing.inventory, problem, None, None)
    answer = next((a for a in choosing.answers(problem, threads) if a.ranking.ranked), None)
    return [] if answer is None else [
        row for row in answer.ranking.ranked
        if constraints.refusal(row.candidate, problem, row.workspace, row.error) is None
    ]  # fmt: skip


def _loss(choosing: Selector, problem: Problem, threads: int, kernel: str, parameters: tuple[int, ...]) -> float:
    allowed = _allowed(choosing, problem, threads)
    ratio = next(
        (r.ratio for r in allowed if (r.candidate.kernel.name, r.candidate.parameters) == (kernel, parameters)), None
    )
    return 0.0 if ratio is None else ratio / allowed[0].ratio - 1.0


def _tied(choosing: Selector, problem: Problem, threads: int, kernel: str, parameters: tuple[int, ...]) -> bool:
    answer = next(a for a in choosing.answers(problem, threads) if a.ranking.ranked)
    ties = answer.ranking.tie_set(_allowed(choosing, problem, threads))
    return any((r.candidate.kernel.name, r.candidate.parameters) == (kernel, parameters) for r in ties)

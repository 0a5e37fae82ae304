"""Is choosing worth it, and can it be repeated? The selector against static choices, a tuning against another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convkit.problem import Problem
from convkit.report.summary import Each, measured_cases, unwatched
from convkit.tables import aligned
from convkit.tuner.choosing.intervals import median
from convkit.tuner.choosing.selector import Case, Selector, selector
from convkit.tuner.evidence.database import Database
from convkit.tuner.evidence.records import Session
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.inventory import Candidate


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
        case = choosing.on(problem, threads)
        allowed = case.allowed()
        if not allowed:
            continue
        # One session's scale: ratios times the seconds of its fastest candidate.
        scale = allowed[0].seconds / allowed[0].ratio
        families: dict[str, float] = {}
        for row in allowed:
            families.setdefault(row.candidate.kernel.family, row.ratio * scale)
        choice = case.choose()
        seconds = (row.ratio * scale for row in allowed if row.candidate == choice.candidate)
        found.append(LayerTimes(name, count, families, choice.family, next(seconds, choice.seconds)))
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
    same, tied, hidden : int
        Problems with the same choice, with choices that are as good as each other in one of them, and with choices that
        differ by no more than candidates differed from themselves.
    slowest : float
        The largest loss of one's choice by the other's measurements: 0.05 is 5%.
    floor : float
        The noise of the machine: its median over the problems.
    """

    problems: int
    same: int
    tied: int
    hidden: int
    slowest: float
    floor: float
    differences: tuple[str, ...]

    def __str__(self) -> str:
        share, beyond = (100 * count / max(self.problems, 1) for count in (self.same + self.tied, self.agreed))
        lines = [
            f"{self.problems} problems: {self.same} choices equal, {self.tied} within tie sets ({share:.1f}%), "
            f"{self.hidden} no further apart than the noise of their machines ({beyond:.1f}%)",
            f"no choice more than {100 * self.slowest:.1f}% slower by the other's measurements; "
            f"the noise, a candidate beside itself: {100 * self.floor:.1f}%, the median",
        ]
        return "\n".join([*lines, *self.differences])

    @property
    def agreed(self) -> int:
        """Problems on which they agree beyond the noise."""
        return self.same + self.tied + self.hidden


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
    wanted = None if only is None else {(problem.bare(), threads) for problem, threads in only}
    known = {_key(case) for case in measured_cases(two, each)}
    shared = [
        case for case in measured_cases(one, each)
        if _key(case) in known and (wanted is None or _key(case) in wanted)
    ]  # fmt: skip
    floors = {session.uuid: _floor(session) for path in (first, second) for session in Database(path).sessions()}
    same = tied = hidden = 0
    slowest = 0.0
    noise, differences = [], []
    for case in each(shared, "comparing"):
        other = two.on(case.task.problem, case.task.threads)
        texts = case.task.problem.texts()
        sessions = [session for tuning in (one, two) for session, _ in tuning.user.evidence(texts, case.here)]
        noise.append(max(floors.get(session.uuid, 0.0) for session in sessions))
        a, b = case.choose().candidate, other.choose().candidate
        if a == b:
            same += 1
            continue
        loss = max(_loss(case, b), _loss(other, a))
        slowest = max(slowest, loss)
        if _tied(case, b) or _tied(other, a):
            tied += 1
        elif loss <= noise[-1]:
            hidden += 1
        else:
            choices = f"{a.kernel.name}{a.parameters}, {b.kernel.name}{b.parameters}"
            differences.append(f"  {case.task}: {choices}, {100 * loss:.1f}%")
    return Agreement(len(shared), same, tied, hidden, slowest, median(noise or [0.0]), tuple(differences))


def _floor(session: Session) -> float:
    """How much a candidate seemed to differ from itself; files may say anything."""
    value = session.facts.get("noise_floor")
    return value if isinstance(value, float) and 0 < value < 1 else 0.0


def _key(case: Case) -> tuple[Problem, int]:
    return case.task.problem.bare(), case.task.threads


def _loss(case: Case, candidate: Candidate) -> float:
    allowed = case.allowed()
    ratio = next((row.ratio for row in allowed if row.candidate == candidate), None)
    return 0.0 if ratio is None else ratio / allowed[0].ratio - 1.0


def _tied(case: Case, candidate: Candidate) -> bool:
    ties = [] if case.measured is None else case.measured.ranking.ties(case.task.constraints())
    return any(row.candidate == candidate for row in ties)

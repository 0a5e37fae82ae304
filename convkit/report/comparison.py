"""Is choosing worth it, and can it be repeated? The selector against static choices, a tuning against another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from convkit.networks import Network
from convkit.problem import Problem
from convkit.report.layers import layer_name, network_title, setting
from convkit.report.standing import Standing, Worth, standing, untuned_selector
from convkit.report.summary import Each, measured_cases, unwatched
from convkit.tables import WIDTH, fitted
from convkit.tuner.choosing.intervals import median
from convkit.tuner.choosing.selector import Case, Selector, selector
from convkit.tuner.evidence.database import Database
from convkit.tuner.evidence.records import Session
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.inventory import Candidate

_CALIBRATE = "of limit: not known before `convkit calibrate` has measured this machine"


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """One layer of a network: seconds of each family's best candidate, of the choice, and of what lost against it.

    Attributes
    ----------
    name, count : str and int
        Of the layer, and how often the network has it.
    chosen, kernel : str
        Family and full name of the kernel.
    of_limit : float or None
        The share of its limit that the choice reaches; None before `convkit calibrate`.
    runner_up, behind : str and float
        Family of the fastest other kernel, and how much slower it is; an empty text if there is none.
    tied : bool
        It is as good, as far as could be measured.
    untuned : float or None
        Seconds of what would run if nothing had been measured here.
    """

    name: str
    count: int
    families: dict[str, float]
    chosen: str
    kernel: str
    seconds: float
    of_limit: float | None
    runner_up: str
    behind: float
    tied: bool
    untuned: float | None


def network_worth(
    network: Network, layers: Iterable[tuple[str, int, Problem]], threads: int, choosing: Selector | None = None
) -> Worth | None:
    """What choosing is worth for layers given as (name, count, problem); None if none was measured."""
    choosing = choosing or selector()
    untuned = untuned_selector(choosing)
    found = []
    for name, count, problem in layers:
        one = standing(choosing.on(problem, threads), choosing, untuned)
        if one is not None:
            found.append((name, count, one))
    return Worth(network_title(network), found[0][2].setting, found, len(network.unique())) if found else None


def layer_times(worth: Worth) -> list[LayerTimes]:
    """What was measured of each layer, for JSON."""
    return [
        LayerTimes(
            name,
            count,
            one.families,
            one.chosen.kernel.family,
            one.chosen.kernel.name,
            one.seconds,
            one.of_limit,
            one.runner_up.kernel.family if one.runner_up else "",
            one.behind,
            one.tied,
            one.untuned,
        )
        for name, count, one in worth.layers
    ]


def static_table(worth: Worth) -> str:
    """Every layer's kernel beside its limit and the runner-up, and the whole network with one family throughout.

    A family that does not take a layer is charged with the fastest direct summation there, as a program would have to.
    """
    rows = [("layer", "x", "ms", "kernel", "of limit", "runner-up", "behind")]
    for name, count, one in worth.layers:
        rows.append(
            (
                name,
                str(count),
                f"{1e3 * one.seconds:.3f}",
                one.chosen.kernel.family,
                "-" if one.of_limit is None else f"{100 * one.of_limit:.0f}%",
                one.runner_up.kernel.family if one.runner_up else "-",
                behind_text(one),
            )
        )
    totals = [("all layers", "ms", "over the selector"), ("as chosen", f"{1e3 * worth.tuned:.3f}", "1.000")]
    others = [("without tuning", worth.untuned), *((f"all {name}", total) for name, total in worth.families())]
    totals += [(name, f"{1e3 * total:.3f}", f"{total / worth.tuned:.3f}") for name, total in others]
    hint = [_CALIBRATE] if any(one.of_limit is None for _, _, one in worth.layers) else []
    return "\n".join([*fitted(rows, left=(0, 3, 5)), *hint, "", *fitted(totals)])


def behind_text(one: Standing) -> str:
    """How far the runner-up is behind, in a word."""
    return "-" if one.runner_up is None else "tied" if one.tied else f"{100 * one.behind:.0f}%"


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
    proven : float
        The largest that is left where the other's intervals are taken at their mildest.
    glimpsed : float
        The largest loss of what the other had only screened.
    floor : float
        The noise of the machine: its median over the problems.
    """

    problems: int
    same: int
    tied: int
    hidden: int
    slowest: float
    proven: float
    glimpsed: float
    floor: float
    differences: tuple[str, ...]

    def __str__(self) -> str:
        share, beyond = (100 * count / max(self.problems, 1) for count in (self.same + self.tied, self.agreed))
        told = (
            f"{self.problems} problems: {self.same} choices equal, {self.tied} within tie sets ({share:.1f}%), "
            f"{self.hidden} no further apart than the noise of their machines ({beyond:.1f}%).",
            f"No choice is more than {100 * self.slowest:.1f}% slower by the other's measurements; at the mildest ends "
            f"of their intervals {100 * self.proven:.1f}%. What the other had only screened seemed up to "
            f"{100 * self.glimpsed:.1f}% slower. The noise, a candidate beside itself, is {100 * self.floor:.1f}% "
            "(median).",
        )
        return "\n".join([*(fill(text, WIDTH) for text in told), *self.differences])

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
    slowest = proven = glimpsed = 0.0
    noise, differences = [], []
    for case in each(shared, "comparing"):
        other = two.on(case.task.problem, case.task.threads)
        noise.append(max(_noise(tuning, case, floors) for tuning in (one, two)))
        a, b = case.choose().candidate, other.choose().candidate
        if a == b:
            same += 1
            continue
        found = _loss(case, b), _loss(other, a)
        loss, sure = max(by for by, _, _ in found), max(least for _, least, _ in found)
        slowest = max(slowest, *(by for by, _, thin in found if not thin), 0.0)
        glimpsed = max(glimpsed, *(by for by, _, thin in found if thin), 0.0)
        proven = max(proven, sure)
        if _tied(case, b) or _tied(other, a):
            tied += 1
        elif loss <= noise[-1]:
            hidden += 1
        else:
            where = f"{layer_name(case.task.problem)}, {setting(case.task.problem, case.task.threads)}"
            text = f"{where}: {100 * loss:.1f}%, {100 * sure:.1f}% at least, {a.stored} or {b.stored}"
            differences.append(fill(text, WIDTH, initial_indent="  ", subsequent_indent="    "))
    floor = median(noise or [0.0])
    return Agreement(len(shared), same, tied, hidden, slowest, proven, glimpsed, floor, tuple(differences))


def _floor(session: Session) -> float:
    """How much a candidate seemed to differ from itself; files may say anything."""
    value = session.facts.get("noise_floor")
    return value if isinstance(value, float) and 0 < value < 1 else 0.0


def _noise(tuning: Selector, case: Case, floors: Mapping[str, float]) -> float:
    """What a tuning knew of the noise around a problem: of several sessions the median, a contended one aside."""
    sessions = {s.uuid: s for s, _ in tuning.user.evidence(case.task.problem.texts(), case.here)}.values()
    quiet = [session for session in sessions if not session.contended]
    return median(floors.get(session.uuid, 0.0) for session in quiet or sessions)


def _key(case: Case) -> tuple[Problem, int]:
    return case.task.problem.bare(), case.task.threads


def _loss(case: Case, candidate: Candidate) -> tuple[float, float, bool]:
    """How much slower than the best a candidate is, the same at the mildest ends of their intervals, and whether it was
    only screened, which rules nothing out.
    """
    best, *_ = allowed = case.allowed()
    row = next((row for row in allowed if row.candidate == candidate), best)
    least = 0.0 if row.thin else max(row.low / best.high - 1.0, 0.0)
    return row.ratio / best.ratio - 1.0, least, row.thin


def _tied(case: Case, candidate: Candidate) -> bool:
    ties = [] if case.measured is None else case.measured.ranking.ties(case.task.constraints())
    return any(row.candidate == candidate for row in ties)

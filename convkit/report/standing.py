"""How each choice stands: beside the limit of its kernel, beside the runner-up, and beside what would run untuned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from convkit import networks
from convkit.networks import Network
from convkit.problem import Problem
from convkit.report.layers import Setting, geometry, network_title, setting
from convkit.report.limits import limit
from convkit.report.regret import measured_loss
from convkit.tuner.choosing.ranking import TIE_LIMIT
from convkit.tuner.choosing.selector import Case, Selector
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.inventory import Candidate

__all__ = ["Standing", "Worth", "measured_standings", "standing", "untuned_selector", "worths"]


@dataclass(frozen=True, slots=True)
class Standing:
    """The choice for one measured problem.

    Attributes
    ----------
    chosen : Candidate
    seconds : float
        Of the choice. All times of a problem are on the scale of one session.
    limit : float or None
        Seconds below which the chosen kernel cannot get on this machine; None before `convkit calibrate`.
    runner_up : Candidate or None
        The fastest candidate of another family; None if no other may answer.
    behind : float
        How much slower the runner-up is: 0.1 is 10%. Less than 0 if it is faster, but only as much as measurements of
        equal speed differ.
    untuned : float or None
        Seconds of what would run if nothing had been measured here; None if that candidate was never measured.
    families : dict of str to float
        Seconds of the best candidate of each family.
    error : float or None
        Measured RMS error of the choice relative to the RMS of the result.
    """

    case: Case
    chosen: Candidate
    seconds: float
    limit: float | None
    runner_up: Candidate | None
    behind: float
    untuned: float | None
    families: dict[str, float]
    error: float | None

    @property
    def of_limit(self) -> float | None:
        """The share of its kernel's limit that the choice reaches."""
        return None if self.limit is None else self.limit / self.seconds

    @property
    def tied(self) -> bool:
        """The runner-up is as good, as far as could be measured."""
        return self.runner_up is not None and self.behind < TIE_LIMIT - 1.0

    @property
    def setting(self) -> Setting:
        """What it was measured with."""
        return setting(self.case.task.problem, self.case.task.threads)


def untuned_selector(choosing: Selector) -> Selector:
    """What chooses for somebody who has measured nothing: the trials of the package, and the cost model."""
    shipped = [tier for tier in choosing.tiers if tier.name == "shipped"]
    return Selector(choosing.inventory, UserTier(), shipped, choosing.constants, choosing.context_of)


def standing(case: Case, choosing: Selector, untuned: Selector) -> Standing | None:
    """How the choice for a problem stands; None if no candidate was measured that a call may use."""
    allowed = case.allowed()
    if not allowed:
        return None
    scale = allowed[0].seconds / allowed[0].ratio
    choice = case.choose()
    own = next((row for row in allowed if row.candidate == choice.candidate), None)
    seconds = choice.seconds if own is None else own.ratio * scale
    families: dict[str, float] = {}
    for row in allowed:
        families.setdefault(row.candidate.kernel.family, row.ratio * scale)
    other = next((row for row in allowed if row.candidate.kernel.family != choice.family), None)
    ratios = {row.candidate: row.ratio / allowed[0].ratio for row in allowed}
    problem, team = case.task.problem, case.task.threads
    loss = measured_loss(ratios, untuned.on(problem, team).choose().candidate)
    constants = choosing.constants
    peak = constants.fmas[choice.candidate.kernel.isa] * team * 4 / problem.itemsize
    return Standing(
        case=case,
        chosen=choice.candidate,
        seconds=seconds,
        limit=limit(case.task, choice.candidate, peak) if constants.calibrated else None,
        runner_up=other and other.candidate,
        behind=other.ratio * scale / seconds - 1.0 if other else 0.0,
        untuned=None if loss is None else (1.0 + loss) * allowed[0].ratio * scale,
        families=families,
        error=None if own is None else own.error,
    )


@dataclass(frozen=True, slots=True)
class Worth:
    """What choosing is worth for one network in one setting.

    Attributes
    ----------
    network : str
        Its title.
    layers : sequence of (str, int, Standing)
        The layers that were measured, as name, count and choice.
    of : int
        How many different layers the network has.
    """

    network: str
    setting: Setting
    layers: Sequence[tuple[str, int, Standing]]
    of: int

    @property
    def complete(self) -> bool:
        """Every layer was measured."""
        return len(self.layers) == self.of

    @property
    def tuned(self) -> float:
        """Seconds of all layers with the kernels that are chosen."""
        return sum(count * one.seconds for _, count, one in self.layers)

    @property
    def untuned(self) -> float:
        """Seconds with what would run if nothing had been measured here; what is not known counts as no loss."""
        return sum(count * (one.untuned or one.seconds) for _, count, one in self.layers)

    def with_family(self, family: str) -> float:
        """Seconds with one family wherever it applies, and the fastest direct summation elsewhere."""
        return sum(count * one.families.get(family, _direct(one)) for _, count, one in self.layers)

    def families(self) -> list[tuple[str, float]]:
        """Every family with its seconds for the whole network, the fastest first."""
        names = dict.fromkeys(family for _, _, one in self.layers for family in one.families)
        return sorted(((name, self.with_family(name)) for name in names), key=lambda pair: pair[1])


def _direct(one: Standing) -> float:
    direct = {kernel.family for kernel in one.case.task.competitors if kernel.direct}
    return min((seconds for family, seconds in one.families.items() if family in direct), default=one.seconds)


def worths(standings: Iterable[Standing]) -> list[Worth]:
    """What choosing is worth for each network of which at least half of the layers were measured in one setting.

    A network all of whose measured layers another one has, too, is left out.
    """
    found: dict[Setting, dict[object, Standing]] = {}
    for one in standings:
        found.setdefault(one.setting, {})[geometry(one.case.task.problem)] = one
    listed: list[Worth] = []
    for measured in found.values():
        here = [worth for network in networks.names() if (worth := _worth(networks.get(network), measured))]
        kept: list[set[Problem]] = []
        for worth in sorted(here, key=lambda worth: (-len(worth.layers), -worth.tuned)):
            shapes = {geometry(one.case.task.problem) for _, _, one in worth.layers}
            if not any(shapes <= other for other in kept):
                kept.append(shapes)
                listed.append(worth)
    return sorted(listed, key=lambda worth: (worth.setting, worth.network))


def _worth(network: Network, measured: dict[object, Standing]) -> Worth | None:
    layers = network.unique()
    known = [(layer.name, layer.count, measured.get(geometry(layer.problem(1)))) for layer in layers]
    rows = [(name, count, one) for name, count, one in known if one is not None]
    if not rows or 2 * len(rows) < len(layers):
        return None
    return Worth(network_title(network), rows[0][2].setting, rows, len(layers))


def measured_standings(cases: Iterable[Case], choosing: Selector) -> Iterator[Standing]:
    """How the choice for each problem stands that has a usable answer from measurements."""
    untuned = untuned_selector(choosing)
    for case in cases:
        one = standing(case, choosing, untuned)
        if one is not None:
            yield one

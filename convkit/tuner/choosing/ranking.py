"""From trials to an order: one figure for every candidate of a problem, comparable across sessions, and the tie set.

Within a session candidates are compared by their ratios to its anchor. Sessions are put on one scale through the
candidates that they share, and by raw time only if they share none. What happens to an output before it is stored
changes times, but hardly their order: a session with another epilogue counts as far as it shares candidates.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from convkit.tuner.choosing.intervals import median
from convkit.tuner.inventory import Candidate, Constraints, Kernel, Task
from convkit.tuner.machine import Context

if TYPE_CHECKING:
    from convkit.tuner.evidence.records import Session, Trial

# Fewer samples than these come from screening alone; fewer than those, on a busy machine, prove no more.
_FEW, _FEW_DOUBTFUL = 3, 8
# Intervals of a noisy session overlap everything: what is this much slower, or may be that much, is no tie.
TIE_LIMIT, _TIE_REACH = 1.03, 1.1
# What only a busy machine has shown to be faster by less than this is not known to be faster.
_DOUBTFUL_LIMIT = 1.05


class Row(NamedTuple):
    """A candidate with all that is known of it here.

    Attributes
    ----------
    status : str
        "complete", "raced out", "failed", "estimated" or "predicted".
    seconds : float
        Median time in the newest session that counts, or what is expected; infinite if the candidate failed.
    ratio, low, high : float
        Time relative to the best candidate of the problem, and the interval of it.
    error : float or None
        Measured RMS error relative to RMS(y), on normal data.
    workspace : int
        Bytes.
    epilogue : str
        The one that it was measured with, as a problem's text has it.
    default : bool
        It has the parameters that its kernel would choose.
    outdated : bool
        Known only from an older revision of the kernel.
    doubtful : bool
        Known only from a contended session, or from one that was bound to CPUs in another way.
    samples : int
        What its figures stand on.
    verdict : str
        In an explanation "chosen", or why it was not.
    """

    candidate: Candidate
    status: str
    seconds: float = math.inf
    ratio: float = math.inf
    low: float = math.inf
    high: float = math.inf
    error: float | None = None
    workspace: int = 0
    epilogue: str = ""
    default: bool = True
    outdated: bool = False
    doubtful: bool = False
    samples: int = 0
    verdict: str = ""

    @property
    def kernel(self) -> str:
        """The kernel's full name."""
        return self.candidate.kernel.name

    @property
    def parameters(self) -> tuple[int, ...]:
        """The parameters in the order of the kernel's schema."""
        return self.candidate.parameters

    @property
    def measured(self) -> bool:
        """The candidate was run."""
        return self.status not in ("estimated", "predicted")

    @property
    def thin(self) -> bool:
        """It was hardly more than screened, or measured a little on a busy machine."""
        return self.measured and self.samples < (_FEW_DOUBTFUL if self.doubtful else _FEW)


class Ranking(NamedTuple):
    """The candidates that something is known of, fastest first, those that failed, and kernels not yet measured.

    Those of which hardly anything is known come last.

    Attributes
    ----------
    missing : tuple of str
        Kernels without a trial at their current revision on a machine that was not contended.
    untried : tuple of str
        Those of them without any trial at their current revision.
    """

    ranked: Sequence[Row] = ()
    failed: Sequence[Row] = ()
    missing: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Every applicable kernel has a trial at its current revision, on a machine that was not contended."""
        return not self.missing

    @property
    def thin(self) -> bool:
        """Of no candidate more is known than hardly anything."""
        return any(row.thin for row in self.ranked[:1])

    def allowed(self, constraints: Constraints) -> list[Row]:
        """The candidates that may answer a call, fastest first."""
        return [row for row in self.ranked if constraints.refusal(row.candidate, row.workspace, row.error) is None]

    def ties(self, constraints: Constraints, among: Collection[Kernel] | None = None) -> list[Row]:
        """Of those that may answer, the ones as good as the best: least error first, then defaults, least workspace."""
        allowed = [row for row in self.allowed(constraints) if among is None or row.candidate.kernel in among]
        if not allowed:
            return []
        best = allowed[0]

        def as_good(row: Row) -> bool:
            doubtful_lead = best.doubtful and row.ratio <= _DOUBTFUL_LIMIT * best.ratio
            tied = row.low <= best.high and row.ratio <= TIE_LIMIT * best.ratio and row.high <= _TIE_REACH * best.high
            return row.thin <= best.thin and (doubtful_lead or tied)

        def worth(row: Row) -> tuple[float, bool, bool, int, int]:
            # Two direct kernels differ in error by chance only; the declared class is what tells kernels apart.
            kernel = row.candidate.kernel
            return kernel.error_class, row.doubtful, not row.default, row.workspace, kernel.index

        return sorted((row for row in allowed if row is best or as_good(row)), key=worth)


def expectations(status: str, expected: Iterable[tuple[Candidate, float, float | None]], task: Task) -> Ranking:
    """Rank candidates by seconds that are expected, not measured; given with them and with their kernels' errors."""
    found = sorted(expected, key=lambda item: (item[1], item[0].kernel.index))
    rows = []
    for candidate, seconds, error in found:
        # As good as the best is only who is as fast: nothing is known of how far these figures can be trusted.
        ratio = seconds / found[0][1]
        rows.append(Row(candidate, status, seconds, ratio, ratio, ratio, error, task.workspace(candidate)))
    return Ranking(rows)


class _Measured(NamedTuple):
    """A trial that may say something here. Trials of one `group` were timed together."""

    session: Session
    trial: Trial
    candidate: Candidate
    epilogue: str
    group: tuple[str, str]

    def doubt(self, own_epilogue: str, context: Context) -> tuple[bool, ...]:
        """What speaks against the trial, the gravest first."""
        return (
            self.trial.revision != self.candidate.kernel.revision,
            self.session.contended,
            self.session.affinity != context.affinity,
            self.session.machine != str(context.machine),
            self.epilogue != own_epilogue,
        )


def rank(evidence: Sequence[tuple[Session, Trial]], task: Task, context: Context) -> Ranking:
    """Rank what the evidence knows. Every kernel name and parameter in it is checked against the inventory here."""
    names = [kernel.name for kernel in task.competitors]
    measured: list[_Measured] = []
    failed: dict[Candidate, Row] = {}
    tried: set[str] = set()
    settled: set[str] = set()
    for session, trial in evidence:
        candidate = task.resolve(trial.kernel, trial.parameters)
        if candidate is None:
            continue
        if trial.median and trial.status != "failed":
            epilogue = epilogue_in(trial.problem)
            measured.append(_Measured(session, trial, candidate, epilogue, (session.uuid, epilogue)))
            continue
        if trial.revision == candidate.kernel.revision:
            failed[candidate] = Row(candidate, "failed", verdict=trial.reason)
            tried.add(candidate.kernel.name)
            settled.update(() if session.contended else (candidate.kernel.name,))
    # Trials that a better session outdoes still tell how the sessions compare.
    scales = _Scales(measured, task.problem.epilogue_text)
    by_candidate: dict[Candidate, list[_Measured]] = {}
    for m in measured:
        if m.group not in scales.factors:
            continue
        if m.trial.revision == m.candidate.kernel.revision:
            tried.add(m.candidate.kernel.name)
            settled.update(() if m.session.contended else (m.candidate.kernel.name,))
        if m.candidate not in failed:
            by_candidate.setdefault(m.candidate, []).append(m)
    rows = [_pool(candidate, found, scales, task, context) for candidate, found in by_candidate.items()]
    rows.sort(key=lambda row: (row.thin, row.ratio, row.candidate.kernel.index, row.candidate.parameters))
    best = rows[0].ratio if rows else 1.0
    rows = [row._replace(ratio=row.ratio / best, low=row.low / best, high=row.high / best) for row in rows]
    missing = tuple(name for name in names if name not in settled)
    return Ranking(rows, [*failed.values()], missing, tuple(name for name in names if name not in tried))


class _Scales:
    """What puts the ratios of sessions on one scale: that of the best session with the call's own epilogue.

    Attributes
    ----------
    factors : dict
        Of each group of trials the factor of its ratios, and its anchor's seconds. A group with another epilogue that
        shares no candidate with those known has none: its seconds say nothing here.
    units : dict
        Of each epilogue the seconds behind a ratio of 1 on the common scale.
    """

    def __init__(self, measured: Iterable[_Measured], own_epilogue: str) -> None:
        groups: dict[tuple[str, str], list[_Measured]] = {}
        for m in measured:
            groups.setdefault(m.group, []).append(m)
        self.own_epilogue = own_epilogue
        self.factors: dict[tuple[str, str], tuple[float, float]] = {}
        self.units: dict[str, float] = {}
        self._known: dict[Candidate, float] = {}

        def weight(group: tuple[str, str]) -> tuple[bool, int, str]:
            return group[1] == own_epilogue, len(groups[group]), groups[group][0].session.started

        left = sorted(groups, key=weight, reverse=True)
        while left:
            # What nothing could be compared with before may share candidates with what has come since.
            apart = [group for group in left if not self._place(group, groups[group])]
            left = apart if len(apart) < len(left) else []

    def _place(self, group: tuple[str, str], measured: Sequence[_Measured]) -> bool:
        anchor, ratios = _ratios(measured)
        epilogue = group[1]
        shared = [self._known[c] / ratio for c, ratio in ratios.items() if c in self._known]
        if not self.factors:
            factor = 1.0
        elif shared:
            factor = median(shared)
        elif epilogue in self.units:
            factor = anchor / self.units[epilogue]
        else:
            return False
        self.factors[group] = factor, anchor
        self.units.setdefault(epilogue, anchor / factor)
        for c, ratio in ratios.items():
            self._known.setdefault(c, ratio * factor)
        return True

    def seconds(self, m: _Measured, ratio: float) -> float:
        """Median time of a trial, from its ratio on the common scale if it had another epilogue."""
        own = self.units.get(self.own_epilogue)
        foreign = own is not None and m.epilogue != self.own_epilogue
        return ratio * (own or 0.0) if foreign else m.trial.median or 0.0


def _ratios(group: Sequence[_Measured]) -> tuple[float, dict[Candidate, float]]:
    """The anchor's seconds, and ratios to it; for trials without any, seconds themselves."""
    rated = {m.candidate: m.trial.ratio for m in group if m.trial.ratio}
    anchors = [(m.trial.median or 0.0) / m.trial.ratio for m in group if m.trial.ratio]
    return (median(anchors), rated) if rated else (1.0, {m.candidate: m.trial.median or 0.0 for m in group})


def _pool(candidate: Candidate, found: list[_Measured], scales: _Scales, task: Task, context: Context) -> Row:
    """One figure from the sessions that measured a candidate with the least doubt: the median of its scaled ratios."""
    doubts = [m.doubt(scales.own_epilogue, context) for m in found]
    least = min(doubts)
    best = [m for m, doubt in zip(found, doubts, strict=True) if doubt == least]
    ratios, lows, highs = [], [], []
    for m in best:
        factor, anchor = scales.factors[m.group]
        ratio = m.trial.ratio or (m.trial.median or 0.0) / anchor
        ratios.append(ratio * factor)
        lows.append((m.trial.ratio_low or ratio) * factor)
        highs.append((m.trial.ratio_high or ratio) * factor)
    newest = max(best, key=lambda m: m.session.started)
    ratio = median(ratios)
    return Row(
        candidate, newest.trial.status, scales.seconds(newest, ratio), ratio, median(lows), median(highs),
        max((m.trial.error for m in best if m.trial.error is not None), default=None), newest.trial.workspace,
        newest.epilogue, candidate == task.default(candidate.kernel), least[0], least[1] or least[2],
        sum(m.trial.n for m in best),
    )  # fmt: skip


def epilogue_in(problem: str) -> str:
    """The epilogue in a problem's text."""
    return problem.rsplit("-", 2)[1]

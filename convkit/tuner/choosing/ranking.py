"""From trials to an order: one figure for every candidate of a problem, comparable across sessions, and the tie set.

Within a session candidates are compared by their ratios to its anchor. Sessions are put on one scale through the
candidates that they share, and by raw time only where they share none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from convkit.problem import Problem
from convkit.tuner.choosing.intervals import median
from convkit.tuner.inventory import Candidate, Inventory
from convkit.tuner.machine import Context

if TYPE_CHECKING:
    from convkit.tuner.evidence.records import Session, Trial

# Intervals of a noisy session overlap everything; a candidate this much slower is never as good as the best.
TIE_LIMIT = 1.03


class Ranked(NamedTuple):
    """A candidate with all that is known of it here.

    Attributes
    ----------
    ratio, low, high : float
        Time relative to the best candidate of the problem, and the interval of it.
    seconds : float
        Median time in the newest session that counts.
    default : bool
        It has the parameters that its kernel would choose.
    outdated : bool
        Known only from an older revision of the kernel.
    doubtful : bool
        Known only from a contended session, or from one that was bound to CPUs in another way.
    """

    candidate: Candidate
    ratio: float
    low: float
    high: float
    seconds: float
    error: float | None
    workspace: int
    status: str
    reason: str
    n: int
    default: bool
    outdated: bool
    doubtful: bool


class Ranking(NamedTuple):
    """All candidates of a problem with evidence, fastest first, those that failed, and kernels not yet measured.

    Attributes
    ----------
    missing : tuple of str
        Kernels without a trial at their current revision on a machine that was not contended.
    untried : tuple of str
        Those of them without any trial at their current revision.
    """

    ranked: tuple[Ranked, ...]
    failed: tuple[tuple[Candidate, str], ...]
    missing: tuple[str, ...]
    untried: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Every applicable kernel has a trial at its current revision, on a machine that was not contended."""
        return not self.missing

    def tie_set(self, allowed: Iterable[Ranked] | None = None) -> list[Ranked]:
        """The candidates as good as the best of `allowed`: least error first, then defaults, then least workspace."""
        ranked = list(self.ranked if allowed is None else allowed)
        if not ranked:
            return []
        best = ranked[0]
        ties = [r for r in ranked if r is best or (r.low <= best.high and r.ratio <= TIE_LIMIT * best.ratio)]
        return sorted(ties, key=lambda r: (_error_class(r), not r.default, r.workspace, r.candidate.kernel.index))


def _error_class(ranked: Ranked) -> float:
    # Two direct kernels differ in error by chance only; the declared class is what tells kernels apart.
    return 1.0 if ranked.candidate.kernel.direct else max(ranked.candidate.kernel.rms_ratio, 1.0)


def rank(
    evidence: Sequence[tuple[Session, Trial]], problem: Problem, context: Context, inventory: Inventory
) -> Ranking:
    """Rank what the evidence knows. Every kernel name and parameter in it is checked against the inventory here."""
    usable: list[tuple[Session, Trial, Candidate]] = []
    failed: dict[Candidate, str] = {}
    tried: set[str] = set()
    settled: set[str] = set()
    for session, trial in evidence:
        candidate = inventory.resolve(trial.kernel, trial.parameters, problem)
        if candidate is None:
            continue
        current = trial.revision == candidate.kernel.revision
        if current:
            tried.add(candidate.kernel.name)
            if not session.contended:
                settled.add(candidate.kernel.name)
        if trial.status == "failed":
            if current:
                failed[candidate] = trial.reason
        elif trial.median:
            usable.append((session, trial, candidate))
    competitors = [kernel.name for kernel in inventory.competitors(problem)]
    missing = tuple(name for name in competitors if name not in settled)
    untried = tuple(name for name in competitors if name not in tried)
    # Trials that a better session outdoes still tell how the sessions compare.
    scale = _scales(usable)
    usable = _best_class(usable, context)
    by_candidate: dict[Candidate, list[tuple[Session, Trial]]] = {}
    for session, trial, candidate in usable:
        if candidate not in failed:
            by_candidate.setdefault(candidate, []).append((session, trial))
    defaults = {inventory.default(kernel, problem, context.threads) for kernel in {c.kernel for c in by_candidate}}
    rows = [
        _pool(candidate, pairs, scale, context, default=candidate in defaults)
        for candidate, pairs in by_candidate.items()
    ]
    best = min((row.ratio for row in rows), default=1.0)
    rows = [_relative(row, best) for row in rows]
    rows.sort(key=lambda row: (row.ratio, row.candidate.kernel.index, row.candidate.parameters))
    return Ranking(tuple(rows), tuple(failed.items()), missing, untried)


def _doubt(session: Session, trial: Trial, candidate: Candidate, context: Context) -> tuple[bool, bool, bool, bool]:
    return (
        trial.revision != candidate.kernel.revision,
        session.contended,
        session.affinity != context.affinity,
        session.machine != str(context.machine),
    )


def _best_class(
    usable: list[tuple[Session, Trial, Candidate]], context: Context
) -> list[tuple[Session, Trial, Candidate]]:
    """Of each candidate only the trials with the least doubt."""
    best: dict[Candidate, tuple[bool, bool, bool, bool]] = {}
    for session, trial, candidate in usable:
        doubt = _doubt(session, trial, candidate, context)
        best[candidate] = min(best.get(candidate, doubt), doubt)
    return [item for item in usable if _doubt(*item, context) == best[item[2]]]


def _value(trial: Trial) -> float | None:
    return trial.ratio if trial.ratio else None


def _scales(usable: list[tuple[Session, Trial, Candidate]]) -> dict[str, float]:
    """For each session the factor that puts its ratios on the scale of the session with the most trials."""
    sessions: dict[str, dict[Candidate, Trial]] = {}
    started: dict[str, str] = {}
    for session, trial, candidate in usable:
        sessions.setdefault(session.uuid, {})[candidate] = trial
        started[session.uuid] = session.started
    order = sorted(sessions, key=lambda uuid: (len(sessions[uuid]), started[uuid]), reverse=True)
    scale: dict[str, float] = {}
    known: dict[Candidate, float] = {}
    reference_anchor = 0.0
    for uuid in order:
        trials = sessions[uuid]
        values = {c: v for c, t in trials.items() if (v := _value(t))}
        anchors = [t.median / v for c, t in trials.items() if t.median and (v := values.get(c))]
        anchor_seconds = median(anchors) if anchors else 1.0
        shared = [known[c] / v for c, v in values.items() if c in known]
        if not scale:
            scale[uuid] = 1.0
            reference_anchor = anchor_seconds
        elif shared:
            scale[uuid] = median(shared)
        else:
            scale[uuid] = anchor_seconds / reference_anchor
        for c, v in values.items():
            known.setdefault(c, v * scale[uuid])
    return scale


def _pool(
    candidate: Candidate,
    pairs: list[tuple[Session, Trial]],
    scale: dict[str, float],
    context: Context,
    *,
    default: bool,
) -> Ranked:
    """One figure from the sessions that measured a candidate: the median of its scaled ratios."""
    anchor = median(
        trial.median / trial.ratio for _, trial in pairs if trial.median and trial.ratio
    ) if any(trial.ratio for _, trial in pairs) else 1.0  # fmt: skip
    ratios, lows, highs, errors = [], [], [], []
    for session, trial in pairs:
        ratio = _value(trial) or (trial.median or 0.0) / anchor
        factor = scale[session.uuid]
        ratios.append(ratio * factor)
        lows.append((trial.ratio_low or ratio) * factor)
        highs.append((trial.ratio_high or ratio) * factor)
        if trial.error is not None:
            errors.append(trial.error)
    session, newest = max(pairs, key=lambda pair: pair[0].started)
    doubt = _doubt(session, newest, candidate, context)
    return Ranked(
        candidate,
        median(ratios),
        median(lows),
        median(highs),
        newest.median or 0.0,
        max(errors, default=None),
        newest.workspace,
        newest.status,
        newest.reason,
        sum(trial.n for _, trial in pairs),
        default=default,
        outdated=doubt[0],
        doubtful=doubt[1] or doubt[2],
    )


def _relative(row: Ranked, best: float) -> Ranked:
    return row._replace(ratio=row.ratio / best, low=row.low / best, high=row.high / best)

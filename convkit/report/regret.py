"""How good a choice without measuring would have been, for every problem that was measured.

Regret is the time of what would have been chosen over the time of the best that the call allows, less one. Each problem
is left out in its turn: the cost model knows nothing of it, and neighbours are only ever other problems.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from convkit.report.layers import layer_name
from convkit.tables import fitted, threads_text
from convkit.tuner.choosing.ranking import Row
from convkit.tuner.choosing.selector import Case
from convkit.tuner.inventory import Candidate


@dataclass(frozen=True, slots=True)
class Regret:
    """One problem.

    Attributes
    ----------
    best : Row
        The fastest candidate that default accuracy and workspace allow.
    model, neighbour : float or None
        Regret of the cost model's choice and of the neighbours' choice; None if it cannot be told.
    """

    case: Case
    best: Row
    model: float | None
    neighbour: float | None
    model_choice: Candidate
    neighbour_choice: Candidate | None


def regrets(measured: Iterable[Case]) -> list[Regret]:
    """Regret for each of the problems that has a usable answer from measurements."""
    found = []
    for case in measured:
        allowed = case.allowed()
        if not allowed or case.measured is None or len(case.measured.ranking.ranked) < 2:
            continue
        ratios = {row.candidate: row.ratio / allowed[0].ratio for row in allowed}
        predicted = case.model_choice().candidate
        estimated = (row.candidate for row in case.estimates().ranked)
        estimate = next((candidate for candidate in estimated if measured_loss(ratios, candidate) is not None), None)
        found.append(
            Regret(
                case, allowed[0], measured_loss(ratios, predicted), measured_loss(ratios, estimate), predicted, estimate
            )
        )
    return found


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which this share of the values lies; NaN for none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def summary(found: Iterable[Regret], preferred: Collection[str] = ()) -> str:
    """A table of medians and 95th percentiles, and the worst problems."""
    rows = list(found)
    table = [("regret", "problems", "median", "95%", "worst")]
    for name, title in (("model", "cost model"), ("neighbour", "neighbours, left out")):
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        cells = [f"{100 * quantile(values, share):.1f}%" for share in (0.5, 0.95, 1.0)] if values else ["-"] * 3
        table.append((title, str(len(values)), cells[0], cells[1], cells[2]))
    lines = fitted(table)
    worst = sorted((row for row in rows if row.model), key=lambda row: -(row.model or 0.0))[:10]
    if worst:
        lines.append("")
        lines += fitted(
            [
                ("largest regrets", "", "", "cost model", "best is"),
                *(
                    (
                        layer_name(row.case.task.problem, preferred),
                        f"{row.case.task.problem.layout}, {threads_text(row.case.task.threads)}",
                        f"{100 * (row.model or 0.0):.1f}%",
                        row.model_choice.kernel.family,
                        _difference(row),
                    )
                    for row in worst
                ),
            ],
            left=(0, 1, 3, 4),
        )
    return "\n".join(lines)


def _difference(row: Regret) -> str:
    """What is best, beside what the cost model would take."""
    best, other = row.best.candidate.kernel, row.model_choice.kernel
    return best.family if best.family != other.family else "other parameters" if best is other else "another kernel"


def measured_loss(ratios: dict[Candidate, float], candidate: Candidate | None) -> float | None:
    """A candidate's measured ratio less one; of its kernel's best parameters if those were not measured."""
    if candidate is None:
        return None
    of_kernel = (ratio for other, ratio in ratios.items() if other.kernel is candidate.kernel)
    ratio = ratios.get(candidate) or min(of_kernel, default=None)
    return None if ratio is None else ratio - 1.0

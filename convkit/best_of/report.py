"""What a `BestOf` has found: a tree of selectors, alternatives and nested selectors, as text, rich or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convkit.tables import aligned

if TYPE_CHECKING:
    from convkit.best_of.selector import BestOf


@dataclass(frozen=True, slots=True)
class AlternativeReport:
    """One alternative on one problem."""

    name: str
    samples: int
    seconds: float | None
    ratio: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class ProblemReport:
    """One key: its alternatives, and what exploring has cost.

    Attributes
    ----------
    lost : float
        Seconds that all runs so far took beyond the best alternative's median.
    """

    key: str
    threads: int
    settled: str | None
    from_database: bool
    lost: float
    alternatives: tuple[AlternativeReport, ...]
    history: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class BestOfReport:
    """A selector, its problems, and the selectors nested in each alternative."""

    name: str
    problems: tuple[ProblemReport, ...]
    children: dict[str, tuple[BestOfReport, ...]]

    def __str__(self) -> str:
        return "\n".join(self._lines(""))

    def _lines(self, indent: str) -> list[str]:
        lines = [f"{indent}{self.name}"]
        for problem in self.problems:
            state = problem.settled or "exploring"
            where = ", from the database" if problem.from_database else f", lost {1e3 * problem.lost:.3f} ms"
            lines.append(f"{indent}  {problem.key}: {state}{where}")
            rows = [
                (
                    row.name,
                    "" if row.seconds is None else f"{1e3 * row.seconds:.4f} ms",
                    "" if row.ratio is None else f"{row.ratio:.3f}",
                    str(row.samples),
                    row.verdict,
                )
                for row in problem.alternatives
            ]
            lines += [f"{indent}    {line}" for line in aligned(rows, left=(0, 4))]
        for alternative, children in self.children.items():
            lines.append(f"{indent}  within {alternative}:")
            for child in children:
                lines += child._lines(indent + "    ")
        return lines

    def __rich__(self) -> Any:
        """The tree for rich."""
        from rich.table import Table
        from rich.tree import Tree

        tree = Tree(f"[bold]{self.name}")
        for problem in self.problems:
            state = f"[green]{problem.settled}" if problem.settled else "[yellow]exploring"
            table = Table("alternative", "ms", "ratio", "samples", "verdict")
            for row in problem.alternatives:
                table.add_row(
                    row.name,
                    "" if row.seconds is None else f"{1e3 * row.seconds:.4f}",
                    "" if row.ratio is None else f"{row.ratio:.3f}",
                    str(row.samples),
                    row.verdict,
                    style="bold" if row.name == problem.settled else None,
                )
            tree.add(f"{problem.key}: {state}").add(table)
        for alternative, children in self.children.items():
            branch = tree.add(f"within {alternative}")
            for child in children:
                branch.add(child.__rich__())
        return tree

    def to_json(self) -> str:
        """The tree as JSON."""
        return json.dumps(asdict(self), indent=1)


def report_on(selector: BestOf, seen: frozenset[int] = frozenset()) -> BestOfReport:
    """Build the report of a selector and of those nested in it."""
    with selector._lock:
        problems = tuple(_problem_report(selector, problem) for problem in selector._problems.values())
        nested = {label: list(children.values()) for label, children in selector._children.items()}
    seen = seen | {id(selector)}
    children = {
        label: tuple(report_on(child, seen) for child in below if id(child) not in seen)
        for label, below in nested.items()
    }
    return BestOfReport(selector.name, problems, {label: below for label, below in children.items() if below})


def _problem_report(selector: BestOf, problem: Any) -> ProblemReport:
    rounds = problem.rounds
    medians = [arm.median for arm in rounds.arms if arm.median is not None and not arm.failed]
    best = min(medians, default=None)
    rows = []
    for index, arm in enumerate(rounds.arms):
        verdict = "settled" if index == rounds.winner else arm.out or ("slower" if rounds.settled else "in")
        ratio = None if arm.median is None or best is None else arm.median / best
        rows.append(AlternativeReport(arm.name, len(arm.counted), arm.median, ratio, verdict))
    lost = sum(seconds - best for _, seconds in rounds.history) if best is not None else 0.0
    return ProblemReport(
        repr(problem.key), problem.threads,
        None if rounds.winner is None else selector.alternatives[rounds.winner],
        problem.from_database, max(lost, 0.0), tuple(rows),
        tuple((rounds.arms[index].name, seconds) for index, seconds in rounds.history),
    )  # fmt: skip

"""Why this kernel: every tier that was asked, every candidate, and why the losers lost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convkit import _core
from convkit.problem import Problem
from convkit.tables import aligned, bytes_text
from convkit.tuner.choosing.ranking import Ranking, Row
from convkit.tuner.choosing.selector import Case, Choice, Selector, selector
from convkit.tuner.inventory import Constraints
from convkit.tuner.process import planning

if TYPE_CHECKING:
    from convkit.typing import Accuracy, Algorithm

_COLUMNS = ("", "kernel", "parameters", "ms", "how", "ratio", "error", "workspace", "verdict")
_TEXTS = (0, 1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found. ``str()`` is a table; `choice` can be given to ``conv2d(algorithm=)``."""

    choice: Choice
    accuracy: Accuracy
    workspace_limit: int
    tiers: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def problem(self) -> Problem:
        """What is convolved."""
        return self.choice.problem

    @property
    def threads(self) -> int:
        """Team size."""
        return self.choice.threads

    def _head(self) -> list[str]:
        limit = bytes_text(self.workspace_limit)
        lines = [
            f"problem    {self.problem}",
            f"threads    {self.threads}, accuracy {self.accuracy}, workspace at most {limit}",
            f"choice     {self.choice}",
        ]
        lines += [f"{'tiers' if not i else '':10} {name}: {outcome}" for i, (name, outcome) in enumerate(self.tiers)]
        if self.missing:
            lines.append(f"stale      not measured yet: {', '.join(self.missing)}")
        return lines

    def __str__(self) -> str:
        return "\n".join([*self._head(), *aligned([_COLUMNS, *map(_cells, self.rows)], _TEXTS)])

    __repr__ = __str__

    def __rich__(self) -> Any:
        """The table for rich."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(*_COLUMNS[1:], title=f"{self.problem}")
        for row in self.rows:
            table.add_row(*_cells(row)[1:], style="bold green" if row.verdict == "chosen" else None)
        return Group(Text("\n".join(self._head())), table)

    def to_json(self) -> str:
        """Everything as one JSON object."""
        row = ("kernel", "parameters", "seconds", "measured", "ratio", "low", "high", "error", "workspace", "status")
        choice = ("kernel", "family", "parameters", "tier", "seconds", "measured", "error", "workspace", "stale")
        value = {
            "problem": str(self.problem), "threads": self.threads,
            "accuracy": self.accuracy, "workspace_limit": self.workspace_limit,
            "choice": {
                "problem": str(self.problem), "threads": self.threads, **_record(self.choice, (*choice, "epilogue"))
            },
            "tiers": dict(self.tiers), "missing": list(self.missing),
            "rows": [_record(one, (*row, "verdict")) for one in self.rows],
        }  # fmt: skip
        return json.dumps(value, indent=1)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        "*" if row.verdict == "chosen" else "", row.kernel, ",".join(map(str, row.parameters)),
        "" if math.isinf(row.seconds) else f"{1e3 * row.seconds:.3f}", "measured" if row.measured else row.status,
        "" if math.isinf(row.ratio) else f"{row.ratio:.3f}", "" if row.error is None else f"{row.error:.1e}",
        bytes_text(row.workspace), row.verdict,
    )  # fmt: skip


def _record(row: Row | Choice, names: Iterable[str]) -> dict[str, Any]:
    values = ((name, getattr(row, name)) for name in names)
    return {name: None if value == math.inf else value for name, value in values}


def explain_problem(
    problem: Problem,
    threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
    *,
    algorithm: Algorithm | None = None,
    choosing: Selector | None = None,
) -> Explanation:
    """Like `convkit.explain`, for a `Problem`. Nothing is timed and nothing is run."""
    if threads is None:
        threads = _core.default_threads()
    with planning:
        case = (choosing or selector()).on(problem, threads)
        constraints = case.task.constraints(accuracy, workspace_limit)
        choice = case.choose(constraints, algorithm)
        # What the model chose although there are measurements, it chose against these.
        tier = case.measured.tier if case.measured and choice.tier == "model" and choice.stale else choice.tier
        answer = next((a for a in case.answers if a.tier == tier and a.ranking.ranked), None)
        ranking = case.estimates() if choice.tier == "neighbour" else answer.ranking if answer else Ranking()
        known = {row.kernel for row in (*ranking.ranked, *ranking.failed)}
        predicted = case.predictions([kernel for kernel in case.task.competitors if kernel.name not in known])
        ties = {row.candidate for row in ranking.ties(constraints)}
        rows = [_judged(row, choice, constraints, _loss(row, row.candidate in ties, choice)) for row in ranking.ranked]
        rows += ranking.failed
        little = [a.ranking for a in case.answers if a.ranking.thin and a.ranking is not ranking]
        rows += [row._replace(verdict=f"{row.samples} samples prove little") for few in little for row in few.ranked]
        for row in predicted.ranked:
            if known:  # predictions are no scale for what is known better
                row = row._replace(ratio=math.inf, low=math.inf, high=math.inf)
            rows.append(_judged(row, choice, constraints, "not measured" if known else "predicted slower"))
        _, bound, limit = constraints
        return Explanation(choice, bound, limit, tuple(_tier_lines(case, choice)), ranking.missing, tuple(rows))


def _tier_lines(case: Case, choice: Choice) -> Iterator[tuple[str, str]]:
    for tier, ranking, outcome in case.answers:
        epilogues = ", ".join(sorted({row.epilogue for row in ranking.ranked}))
        what = f"{len(ranking.ranked)} candidates measured with {epilogues}" if ranking.ranked else "nothing"
        what += ", too little to go by it alone" if ranking.thin else ""
        yield tier, f"{what} ({outcome}){', answered' if tier == choice.tier else ''}"
    if choice.tier in ("neighbour", "model"):
        nearby = "; ".join(f"{near.distance:.2f} doublings away {near.task}" for near in case.neighbours)
        answered = ", answered" if choice.tier == "neighbour" else ""
        yield "neighbour", (nearby or "none near enough") + answered
    yield "model", "answered" if choice.tier == "model" else "not asked"


def _judged(row: Row, choice: Choice, constraints: Constraints, loss: str) -> Row:
    if row.candidate == choice.candidate:
        return row._replace(verdict="chosen")
    return row._replace(verdict=constraints.refusal(row.candidate, row.workspace, row.error) or loss)


def _loss(row: Row, tied: bool, choice: Choice) -> str:
    if not row.measured:
        return f"{row.ratio:.2f} times the fastest estimate"
    doubts = [text for flag, text in ((row.outdated, "older revision"), (row.doubtful, "contended")) if flag]
    suffix = f" ({', '.join(doubts)})" if doubts else ""
    if choice.tier == "model":
        return f"{choice.kernel} came later, and is predicted to be much faster{suffix}"
    if tied:
        return f"tied; {choice.kernel} is more exact, smaller or listed first{suffix}"
    return f"{'raced out, ' if row.status == 'raced out' else ''}{row.ratio:.2f} times the fastest{suffix}"

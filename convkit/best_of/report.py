"""What a `BestOf` has found: a tree of selectors, alternatives and nested selectors, as text, rich or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from convkit.tables import aligned
from convkit.tuner.measuring.rounds import RoundsReport

_COLUMNS = ("alternative", "ms", "ratio", "samples", "verdict")


@dataclass(frozen=True, slots=True)
class BestOfReport:
    """A selector, its problems, and the selectors nested in each alternative."""

    name: str
    problems: tuple[RoundsReport, ...]
    children: dict[str, tuple[BestOfReport, ...]]

    def __str__(self) -> str:
        return "\n".join(self._lines(""))

    def _lines(self, indent: str) -> list[str]:
        lines = [f"{indent}{self.name}"]
        for problem in self.problems:
            state = problem.settled or "exploring"
            where = ", from the database" if problem.from_database else f", lost {1e3 * problem.lost:.3f} ms"
            lines.append(f"{indent}  {problem.key}: {state}{where}")
            rows = [row.cells() for row in problem.alternatives]
            lines += [f"{indent}    {line}" for line in aligned([_COLUMNS, *rows], left=(0, 4))]
        for alternative, children in self.children.items():
            lines.append(f"{indent}  within {alternative}:")
            lines += [line for child in children for line in child._lines(indent + "    ")]
        return lines

    def __rich__(self) -> Any:
        """The tree for rich."""
        from rich.table import Table
        from rich.tree import Tree

        tree = Tree(f"[bold]{self.name}")
        for problem in self.problems:
            state = f"[green]{problem.settled}" if problem.settled else "[yellow]exploring"
            table = Table(*_COLUMNS)
            for row in problem.alternatives:
                table.add_row(*row.cells(), style="bold" if row.name == problem.settled else None)
            tree.add(f"{problem.key}: {state}").add(table)
        for alternative, children in self.children.items():
            branch = tree.add(f"within {alternative}")
            for child in children:
                branch.add(child.__rich__())
        return tree

    def to_json(self) -> str:
        """The tree as JSON."""
        return json.dumps(asdict(self), indent=1)

"""How figures are written for people: times, sizes, teams, and tables of them as plain text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["WIDTH", "aligned", "bytes_text", "fitted", "milliseconds", "threads_text", "time_text"]

# Columns of a terminal that nobody has made wider.
WIDTH = 80


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Columns side by side, a line for each row: text aligned to the left, numbers to the right.

    Parameters
    ----------
    rows : sequence of rows of cells
        The head among them. A row may end early; one of a single cell is a heading, whatever its length.
    left : collection of int
        Columns that hold text.

    Examples
    --------
    >>> aligned([("layer", "ms"), ("conv1_1", "0.125"), ("fc", "12.5")])
    ['layer       ms', 'conv1_1  0.125', 'fc        12.5']
    """
    columns = max(map(len, rows), default=0)
    widths = [
        max((len(row[column]) for row in rows if max(column, 1) < len(row) or columns == 1), default=0)
        for column in range(columns)
    ]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def fitted(rows: Sequence[Sequence[str]], left: Collection[int] = (0,), width: int = WIDTH) -> list[str]:
    """The columns of `aligned`, with the middle of long words in the first one left out until lines fit the width.

    Examples
    --------
    >>> fitted([("layer", "ms"), ("inception5b.branch3x3", "0.125")], width=20)
    ['layer             ms', 'inceptio…h3x3  0.125']
    """
    columns = max(map(len, rows), default=0)
    others = sum(2 + max(len(row[at]) for row in rows if at < len(row)) for at in range(1, columns))
    room = max(width - others, 8)
    return aligned([(_shortened(row[0], room), *row[1:]) if len(row) > 1 else row for row in rows], left)


def _shortened(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    tail = (room - 1) // 3
    return f"{text[: room - 1 - tail]}…{text[len(text) - tail :]}"


def time_text(seconds: float | None) -> str:
    """A time with three digits and its unit."""
    if seconds is None:
        return "-"
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1.0:
            return f"{seconds * factor:#.3g} {unit}".replace(". ", " ")
    return f"{seconds * 1e6:#.3g} µs".replace(". ", " ")


def milliseconds(seconds: float) -> str:
    """Milliseconds with three digits behind the point, fewer if there are many before it."""
    value = 1e3 * seconds
    return f"{value:.{3 if value < 10 else 2 if value < 100 else 1}f}"


def bytes_text(size: float) -> str:
    """A size in bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def threads_text(count: int) -> str:
    """A team size with its noun."""
    return "1 thread" if count == 1 else f"{count} threads"

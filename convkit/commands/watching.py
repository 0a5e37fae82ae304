"""Long work, watched: a bar with the time left in a terminal, a line for each problem without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID
    from rich.text import Text

__all__ = ["Watch"]

T = TypeVar("T")


class Watch:
    """Progress of a command, as a context manager.

    Parameters
    ----------
    what : str
        What is counted.
    total : float or None
        How many of them there are; seconds if `timed`.
    console : Console
    parts : bool
        Show a second bar for what happens within one problem.
    timed : bool
        The work ends after `total` seconds, whatever it gets done.
    """

    def __init__(
        self, what: str, total: float | None, console: Console, *, parts: bool = False, timed: bool = False
    ) -> None:
        # Not when this module is loaded: that is part of the time of every --help.
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        self._console = console
        count = () if timed else (MofNCompleteColumn(),)
        what_now = TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1))
        columns = (BarColumn(20), *count, TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(), what_now)
        # What others print while the bar is shown goes above it, but never away from a file or a pipe.
        self._progress = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal, expand=True,
            redirect_stdout=sys.stdout.isatty(), redirect_stderr=sys.stderr.isatty(),
        )  # fmt: skip
        self._whole = self._progress.add_task(what, total=total)
        self._part: TaskID | None = self._progress.add_task("", total=None) if parts else None
        self._began = time.monotonic()
        self._timed = timed
        self._told = ""

    def __enter__(self) -> Watch:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def tell(self, line: str | Text) -> None:
        """Print a line above the bar; it stays."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def now(self, text: str) -> None:
        """Say what is being done: beside the bar, or in a line of its own if there is none."""
        if self._console.is_terminal:
            done = time.monotonic() - self._began if self._timed else None
            self._progress.update(self._whole, description=text, completed=done)
        elif text != self._told:
            self.tell(text)
        self._told = text

    def within(self, done: int, total: int, text: str) -> None:
        """Move the bar of the problem in hand."""
        if self._part is not None:
            self._progress.update(self._part, completed=done, total=total, description=text)

    def each(self, items: Sequence[T], what: str) -> Iterator[T]:
        """Go through items, from the beginning of the bar to its end."""
        self._progress.reset(self._whole, total=len(items))
        self.now(f"{what}, {len(items)} problems")
        for item in items:
            yield item
            self.advance()

    def done(self, line: str) -> None:
        """Count one as done, and say so in a line if there is no bar."""
        if not self._console.is_terminal:
            self.tell(line)
        self.advance()

    def advance(self) -> None:
        """Count one as done."""
        self._progress.advance(self._whole)

    def expect(self, total: float) -> None:
        """Change how many there are."""
        self._progress.update(self._whole, total=total)

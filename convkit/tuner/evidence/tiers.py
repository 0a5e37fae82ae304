"""Sources of evidence in the order of asking. A tier never raises: what it cannot read is a miss, logged once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from convkit.tuner.locks import planning
from convkit.tuner.machine import Context, MachineClass
from convkit.tuner.notices import notice_once

if TYPE_CHECKING:
    from convkit.tuner.evidence.database import Database
    from convkit.tuner.evidence.records import Session, Trial

Evidence = list[tuple["Session", "Trial"]]
T = TypeVar("T")


class Tier(Protocol):
    """Trials of one origin."""

    name: str

    def evidence(self, problem: str, context: Context) -> Evidence: ...
    def problems(self, context: Context) -> list[tuple[str, int]]: ...
    def outcome(self) -> str: ...


class FileTier:
    """Trials of one database file, as they were when this process first asked.

    Parameters
    ----------
    name : {"user", "site"}
    path : str
    exact : bool
        Only trials of exactly this machine class count; otherwise those of machines like it do, too.
    """

    def __init__(self, name: str, path: str, *, exact: bool) -> None:
        self.name = name
        self._path = path
        self._exact = exact
        self._last_row: int | None = None
        self._trouble = ""
        self._busy = False

    def evidence(self, problem: str, context: Context) -> Evidence:
        """Trials of a problem, given by its text, that count in this context."""

        def ask(database: Database, last_row: int) -> Evidence:
            return database.evidence(problem, last_row)

        pairs: Evidence = self._ask(ask, [])
        return [pair for pair in pairs if counts_here(pair[0], context, exact=self._exact)]

    def problems(self, context: Context) -> list[tuple[str, int]]:
        """Problems with trials of this machine class, as (text, threads)."""
        rows: list[tuple[str, str, int]] = self._ask(lambda database, last_row: database.problems(last_row), [])
        return [
            (text, threads) for text, machine, threads in rows if machine_counts(machine, context.machine, self._exact)
        ]

    def outcome(self) -> str:
        """What `explain` says of the file."""
        return self._trouble or str(self._path)

    def _ask(self, question: Callable[..., T], otherwise: T) -> T:
        # Without a file SQLite need not even be imported.
        if not os.path.lexists(self._path):
            self._trouble = f"no file {self._path}"
            return otherwise
        with planning:
            from pathlib import Path

            from convkit.tuner.evidence.database import READ_WAIT, Database, DatabaseError

            # Once is enough: what is locked is mostly locked for long.
            wait = 0.0 if self._busy else READ_WAIT
            database = Database(Path(self._path), owned=self._exact, read_wait=wait)
            try:
                if self._last_row is None:
                    self._last_row = database.last_row()
                answer = question(database, self._last_row)
            except DatabaseError as error:
                self._trouble = str(error)
                self._busy = error.cause == "busy"
                if error.cause != "absent":
                    notice_once(f"read {self._path}", f"tuning database skipped: {error}")
                return otherwise
            self._trouble = ""
            self._busy = False
            return answer


class MemoryTier:
    """Trials that this process measured itself; they come before any file."""

    name = "user"

    def __init__(self, why: str = "measured in this process") -> None:
        self._why = why
        self._pairs: dict[str, Evidence] = {}

    def add(self, session: Session, trials: Iterable[Trial]) -> None:
        """Remember trials of a session."""
        with planning:
            for trial in trials:
                self._pairs.setdefault(trial.problem, []).append((session, trial))

    def evidence(self, problem: str, context: Context) -> Evidence:
        """Trials of a problem, given by its text, that count in this context."""
        with planning:
            pairs = list(self._pairs.get(problem, ()))
        return [pair for pair in pairs if counts_here(pair[0], context, exact=True)]

    def problems(self, context: Context) -> list[tuple[str, int]]:
        """Problems measured in this process, as (text, threads)."""
        with planning:
            found = {(text, session.threads) for text, pairs in self._pairs.items() for session, _ in pairs}
        return sorted(found)

    def outcome(self) -> str:
        """What `explain` says of it."""
        return self._why


def machine_counts(machine: str, here: MachineClass, exact: bool) -> bool:
    """Whether trials of a machine class, given by its key, say something about this machine."""
    if machine == str(here):
        return True
    if exact:
        return False
    try:
        return MachineClass.parse(machine).like(here)
    except ValueError:
        return False


def counts_here(session: Session, context: Context, *, exact: bool) -> bool:
    """Whether a session's trials are evidence in this context."""
    return session.threads == context.threads and machine_counts(session.machine, context.machine, exact)

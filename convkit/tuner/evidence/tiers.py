"""Sources of evidence in the order of asking. A tier never raises: what it cannot read is a miss, logged once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from convkit.tuner.machine import Context, MachineClass
from convkit.tuner.process import notice_once, planning

if TYPE_CHECKING:
    from convkit.tuner.evidence.database import Database
    from convkit.tuner.evidence.database_file import DatabaseError
    from convkit.tuner.evidence.records import Session, Trial

# Seconds for which a caller's convolution waits for another process at most, and those of a command.
CALL_WAIT = 1.0
COMMAND_WAIT = 20.0
_TRY_WAIT = 0.05

_FIXES = {
    "busy": "what was measured is kept and written with the next trial, if the database is free then",
    "damaged": "it was left where it is; remove it or set CONVKIT_DB",
    "foreign": "set CONVKIT_DB to another path",
    "frozen": "set CONVKIT_DB to another path",
    "future": "set CONVKIT_DB to another path or use the newer convkit",
    "forbidden": "correct its owner or mode, or set CONVKIT_DB",
    "unwritable": "make it writable, free space, or set CONVKIT_DB",
    "absent": "set HOME or CONVKIT_DB",
}

Evidence = list[tuple["Session", "Trial"]]
T = TypeVar("T")


class Tier(Protocol):
    """Trials of one origin. Problems are given by their texts."""

    name: str

    def evidence(self, problems: Collection[str], context: Context) -> Evidence: ...
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

    def __init__(self, name: str, path: str, *, exact: bool = False) -> None:
        self.name = name
        self._path = path
        self._exact = exact
        self._last_row: int | None = None
        self._trouble = ""
        self._busy = False

    def evidence(self, problems: Collection[str], context: Context) -> Evidence:
        """Trials of any of the problems that count in this context, oldest first."""
        pairs: Evidence = self._ask(lambda database, last_row: database.evidence(problems, last_row), [])
        return [pair for pair in pairs if counts_here(pair[0], context, exact=self._exact)]

    def problems(self, context: Context) -> list[tuple[str, int]]:
        """Problems with trials of this machine class, as (text, threads)."""
        rows: list[tuple[str, str, int]] = self._ask(lambda database, last_row: database.problems(last_row), [])
        return [
            (text, threads) for text, machine, threads in rows if machine_counts(machine, context.machine, self._exact)
        ]

    def outcome(self) -> str:
        """What `explain` says of the file."""
        return self._trouble or self._path

    def _ask(self, question: Callable[[Database, int], T], otherwise: T) -> T:
        # Without a file SQLite need not even be imported.
        if not os.path.lexists(self._path):
            self._trouble = f"no file {self._path}"
            return otherwise
        with planning:
            from convkit.tuner.evidence.database import Database
            from convkit.tuner.evidence.database_file import READ_WAIT, DatabaseError

            # Once is enough: what is locked is mostly locked for long.
            database = Database(self._path, owned=self._exact, read_wait=0.0 if self._busy else READ_WAIT)
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


class UserTier:
    """The user's trials: those that the file held when this process first asked, and those that it has measured since.

    Parameters
    ----------
    path : str or None
        The file; None keeps everything in memory.
    reason : str
        Why there is no file, and what would change that.
    """

    name = "user"

    def __init__(self, path: str | None = None, reason: str = "of this process") -> None:
        self._path = path
        self._reason = reason
        self._file = None if path is None else FileTier("user", path, exact=True)
        self._own: dict[str, Evidence] = {}
        self._unwritten: list[tuple[Session, Sequence[Trial]]] = []
        self._waited_in_vain = False

    def evidence(self, problems: Collection[str], context: Context) -> Evidence:
        """Trials of any of the problems that count in this context, oldest first."""
        with planning:
            own = self.own(problems)
            stored = [] if self._file is None else self._file.evidence(problems, context)
        known = {session.uuid for session, _ in own}
        pairs = [pair for pair in stored if pair[0].uuid not in known]
        return pairs + [pair for pair in own if counts_here(pair[0], context, exact=True)]

    def own(self, problems: Collection[str]) -> Evidence:
        """Trials of any of the problems that this process has measured."""
        return [pair for text in problems for pair in self._own.get(text, ())]

    def problems(self, context: Context) -> list[tuple[str, int]]:
        """Problems with trials of this machine class, as (text, threads)."""
        with planning:
            own = {(text, session.threads) for text, pairs in self._own.items() for session, _ in pairs}
            return sorted(own.union(() if self._file is None else self._file.problems(context)))

    def outcome(self) -> str:
        """What `explain` says of it."""
        return f"memory only: {self._reason}" if self._file is None else self._file.outcome()

    @property
    def unwritten(self) -> int:
        """Trials that are to be in the file and are not yet."""
        return sum(len(trials) for _, trials in self._unwritten)

    def record(
        self, session: Session, trials: Sequence[Trial], *, store: bool = True, lock_wait: float = CALL_WAIT
    ) -> None:
        """Remember the trials of a session and write them, with any that could not be written before.

        Parameters
        ----------
        store : bool
            False leaves the file alone.
        lock_wait : float
            Seconds to wait for other processes at most. Once that was in vain, this process never waits again.
        """
        with planning:
            for trial in trials:
                self._own.setdefault(trial.problem, []).append((session, trial))
            if store and trials and self._path is None:
                notice_once("no database", f"tuning results are kept in memory only: {self._reason}")
            elif store and trials:
                self._unwritten.append((session, trials))
        self.flush(lock_wait)

    def flush(self, lock_wait: float = CALL_WAIT) -> None:
        """Write what is not in the file yet, a transaction for each session."""
        deadline = time.monotonic() + (0.0 if self._waited_in_vain else lock_wait)
        while True:
            # In short tries, so that neither other threads' calls nor a fork wait along.
            with planning:
                error = self._write()
                busy = error is not None and error.cause == "busy"
                if not busy or time.monotonic() >= deadline:
                    self._waited_in_vain |= busy
                    if error is not None:
                        text = f"tuning results are kept in memory only: {error}; {_FIXES[error.cause]}"
                        notice_once(f"write {self._path}", text)
                    return
            time.sleep(0.01)

    def _write(self) -> DatabaseError | None:
        if self._path is None or not self._unwritten:
            return None
        from convkit.tuner.evidence.database import Database
        from convkit.tuner.evidence.database_file import DatabaseError

        database = Database(self._path, write_wait=0.0 if self._waited_in_vain else _TRY_WAIT)
        moved = None
        while self._unwritten:
            try:
                database.append(*self._unwritten[0])
                self._unwritten.pop(0)
            except DatabaseError as error:
                moved = database.move_aside() if error.cause == "damaged" and moved is None else None
                if moved is None:
                    return error
                notice_once(f"moved {self._path}", f"the damaged tuning database was moved to {moved}")
        return None


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

"""Writes what was measured to the user's database, a session at a time. Trouble with the file never costs a result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from convkit.tuner.evidence.database import Database, DatabaseError, move_aside
from convkit.tuner.evidence.records import Session, Trial
from convkit.tuner.evidence.tiers import MemoryTier
from convkit.tuner.locks import planning
from convkit.tuner.notices import notice_once

# Seconds for which a caller's convolution waits for another process at most, and those of a command.
CALL_WAIT = 1.0
COMMAND_WAIT = 20.0
_TRY_WAIT = 0.05

_FIXES = {
    "busy": "what was measured is kept and written with the next trial, if the database is free then",
    "damaged": "it was left where it is; remove it or set CONVKIT_DB",
    "foreign": "set CONVKIT_DB to another path",
    "future": "set CONVKIT_DB to another path or use the newer convkit",
    "forbidden": "correct its owner or mode, or set CONVKIT_DB",
    "unwritable": "make it writable, free space, or set CONVKIT_DB",
    "absent": "set HOME or CONVKIT_DB",
}


class Recorder:
    """Remembers trials in this process and appends them to the user's file, one transaction for each session.

    Parameters
    ----------
    path : Path or None
        The file; None keeps everything in memory.
    memory : MemoryTier
        Gets every trial first.
    """

    def __init__(self, path: Path | None, memory: MemoryTier, why_none: str = "") -> None:
        self._path = path
        self._memory = memory
        self._why_none = why_none
        self._pending: list[tuple[Session, Sequence[Trial]]] = []
        self._waited_in_vain = False

    @property
    def pending(self) -> int:
        """Trials that are not in the file yet."""
        return sum(len(trials) for _, trials in self._pending)

    def record(self, session: Session, trials: Sequence[Trial], lock_wait: float = CALL_WAIT) -> None:
        """Remember the trials of a session and try to write them, with any that could not be written before.

        Parameters
        ----------
        lock_wait : float
            Seconds to wait for other processes at most. Once that was in vain, this process never waits again.
        """
        with planning:
            if not trials:
                return
            self._memory.add(session, trials)
            if self._path is None:
                notice_once("no database", f"tuning results are kept in memory only: {self._why_none}")
                return
            self._pending.append((session, trials))
        self.flush(lock_wait)

    def flush(self, lock_wait: float = CALL_WAIT) -> None:
        """Write what is not in the file yet."""
        deadline = time.monotonic() + (0.0 if self._waited_in_vain else lock_wait)
        while True:
            # In short tries, so that neither other threads' calls nor a fork wait along.
            with planning:
                error = self._try()
                busy = error is not None and error.cause == "busy"
                if not busy or time.monotonic() >= deadline:
                    self._waited_in_vain |= busy
                    if error is not None:
                        text = f"tuning results are kept in memory only: {error}; {_FIXES[error.cause]}"
                        notice_once(f"write {self._path}", text)
                    return
            time.sleep(0.01)

    def _try(self) -> DatabaseError | None:
        path = self._path
        if path is None:
            return None
        wait = 0.0 if self._waited_in_vain else _TRY_WAIT
        database = Database(path, write_wait=wait)
        for attempt in range(2):
            try:
                while self._pending:
                    database.append(*self._pending[0])
                    self._pending.pop(0)
                return None
            except DatabaseError as error:
                if attempt == 0 and error.cause == "damaged":
                    moved = move_aside(path)
                    if moved is not None:
                        notice_once(f"moved {path}", f"the damaged tuning database was moved to {moved}")
                        continue
                return error
        raise AssertionError

"""Writes trials to the user's database as they are made. Trouble with the file never costs a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.tuner.evidence.records import Session, Trial
from convkit.tuner.evidence.tiers import MemoryTier
from convkit.tuner.locks import ForkSafeLock
from convkit.tuner.notices import notice_once

if TYPE_CHECKING:
    from pathlib import Path

_FIXES = {
    "busy": "another process holds it; what was measured is kept and written with the next trial",
    "damaged": "it was left where it is; remove it or set CONVKIT_DB",
    "foreign": "set CONVKIT_DB to another path",
    "future": "set CONVKIT_DB to another path or use the newer convkit",
    "forbidden": "correct its owner or mode, or set CONVKIT_DB",
    "unwritable": "make it writable, free space, or set CONVKIT_DB",
    "absent": "set HOME or CONVKIT_DB",
}


class Recorder:
    """Remembers trials in this process and appends them to the user's file, one transaction each.

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
        self._lock = ForkSafeLock()
        self._pending: list[tuple[Session, Trial]] = []
        self._marks: list[Session] = []

    @property
    def pending(self) -> int:
        """Trials that are not in the file yet."""
        return len(self._pending)

    def add(self, session: Session, trial: Trial) -> None:
        """Remember a trial and try to write it, with any that could not be written before."""
        self._memory.add(session, trial)
        if self._path is None:
            notice_once("no database", f"tuning results are kept in memory only: {self._why_none}")
            return
        with self._lock:
            self._pending.append((session, trial))
            self._flush()

    def mark_contended(self, session: Session) -> None:
        """Mark a session whose trials were added before; the mark is only ever set, never cleared."""
        self._memory.mark_contended(session)
        with self._lock:
            self._pending = [(session if s.uuid == session.uuid else s, trial) for s, trial in self._pending]
            if self._path is not None:
                self._marks.append(session)
                self._flush()

    def _flush(self) -> None:
        from convkit.tuner.evidence.database import Database, DatabaseError, move_aside

        path = self._path
        if path is None:
            return
        for attempt in range(2):
            try:
                while self._pending:
                    session, trial = self._pending[0]
                    Database(path).append(session, [trial])
                    self._pending.pop(0)
                while self._marks:
                    Database(path).append(self._marks[0], ())
                    self._marks.pop(0)
                return
            except DatabaseError as error:
                if attempt == 0 and error.cause == "damaged":
                    moved = move_aside(path)
                    if moved is not None:
                        notice_once(f"moved {path}", f"the damaged tuning database was moved to {moved}")
                        continue
                fix = _FIXES[error.cause]
                notice_once(f"write {path}", f"tuning results are kept in memory only: {error}; {fix}")
                return

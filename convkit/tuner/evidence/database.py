"""The tuning database: an append-only file of sessions and trials.

Rows are hints: what is read goes through `records`, and the kernel names in it are looked up in the inventory before
anything runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from convkit.tuner.evidence.database_file import WRITE_WAIT, DatabaseError, DatabaseFile
from convkit.tuner.evidence.paths import paths
from convkit.tuner.evidence.records import (
    SESSION_COLUMNS,
    TRIAL_COLUMNS,
    RecordError,
    Session,
    Trial,
    from_line,
    to_line,
)

__all__ = ["Database", "DatabaseError", "Merged", "open_user", "read_lines", "write_lines"]

_HEADER = '{"convkit": "trials", "version": 1}'
_LONGEST_LINE = 65536

_SESSION_FIELDS = ", ".join(f"session.{name}" for name in SESSION_COLUMNS)
_TRIAL_FIELDS = ", ".join(f"trial.{name}" for name in TRIAL_COLUMNS)
# What a choice needs to know of a session.
_CIRCUMSTANCES = ", ".join("'{}'" if name in ("versions", "facts", "policy") else f"session.{name}"
                           for name in SESSION_COLUMNS)  # fmt: skip
_JOINED = "FROM trial JOIN session ON session.uuid = trial.session"
_INSERT_SESSION = (
    f"INSERT INTO session({', '.join(SESSION_COLUMNS)}) VALUES({', '.join('?' * len(SESSION_COLUMNS))}) "
    "ON CONFLICT(uuid) DO UPDATE SET contended = excluded.contended WHERE contended < excluded.contended"
)
_INSERT_TRIAL = f"INSERT OR IGNORE INTO trial({', '.join(TRIAL_COLUMNS)}) VALUES({', '.join('?' * len(TRIAL_COLUMNS))})"


class Merged(NamedTuple):
    """Numbers of records: those that were new, or that were written or deleted."""

    sessions: int
    trials: int


class Database(DatabaseFile):
    """What is in the file."""

    def last_row(self) -> int:
        """Row number of the newest trial: with it, later reads see what was there now and nothing newer."""
        return int(self._all("SELECT coalesce(max(id), 0) FROM trial")[0][0])

    def evidence(self, problems: Collection[str], last_row: int = 2**62) -> list[tuple[Session, Trial]]:
        """Trials of any of the problems with their sessions, oldest first; records that are none are left out.

        The sessions come without versions, facts and policy.
        """
        rows = self._all(
            f"SELECT {_CIRCUMSTANCES}, {_TRIAL_FIELDS} {_JOINED} "
            f"WHERE trial.problem IN ({', '.join('?' * len(problems))}) AND trial.id <= ? "
            "ORDER BY trial.id LIMIT 20000",
            (*problems, last_row),
        )
        return [pair for _, pair in _pairs((0, *row) for row in rows) if pair is not None]

    def problems(self, last_row: int = 2**62) -> list[tuple[str, str, int]]:
        """Distinct (problem, machine, threads) that have trials."""
        rows = self._all(
            f"SELECT DISTINCT trial.problem, session.machine, session.threads {_JOINED} "
            "WHERE trial.id <= ? LIMIT 200000",
            (last_row,),
        )
        return [row for row in rows if (type(row[0]), type(row[1]), type(row[2])) == (str, str, int)]

    def sessions(self) -> Iterator[Session]:
        """Every session, oldest first."""
        for row in self._all(f"SELECT {_SESSION_FIELDS} FROM session ORDER BY started, uuid"):
            with contextlib.suppress(RecordError):
                yield Session.from_row(row)

    def trials(self) -> Iterator[Trial]:
        """Every trial in the order of writing."""
        for row in self._all(f"SELECT {_TRIAL_FIELDS} FROM trial ORDER BY id"):
            with contextlib.suppress(RecordError):
                yield Trial.from_row(row)

    def counts(self) -> dict[str, int]:
        """Numbers of sessions, trials, problems and machine classes."""
        (row,) = self._all(
            "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM trial), "
            "(SELECT count(DISTINCT problem) FROM trial), (SELECT count(DISTINCT machine) FROM session)"
        )
        return dict(zip(("sessions", "trials", "problems", "machines"), map(int, row), strict=True))

    def verify(self) -> list[str]:
        """Everything that is wrong with the file, in sentences; empty for a sound one."""
        found: list[str] = []
        with self.reading() as connection:
            found += [f"SQLite: {row[0]}" for row in connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
            known: set[str] = set()
            for row in connection.execute(f"SELECT {_SESSION_FIELDS} FROM session"):
                try:
                    known.add(Session.from_row(row).uuid)
                except RecordError as error:
                    found.append(str(error))
            for row in connection.execute(f"SELECT {_TRIAL_FIELDS} FROM trial"):
                try:
                    trial = Trial.from_row(row)
                    trial.check_problem()
                    if trial.session not in known:
                        found.append(f"a trial of {trial.kernel} belongs to no session: {trial.session}")
                except RecordError as error:
                    found.append(str(error))
        return found

    def append(self, session: Session, trials: Iterable[Trial]) -> int:
        """Add trials in one transaction, with their session if it is new. Returns how many were new."""
        return self.add([session], trials).trials

    def merge(self, other: Path) -> Merged:
        """Add every record of another database: a set union, so that repeating it changes nothing."""
        source = Database(other, owned=False)
        return self.add(list(source.sessions()), list(source.trials()))

    def import_lines(self, stream: TextIO) -> Merged:
        """Add the records of an export file. Wrong lines raise, and then nothing is added."""
        return self.add(*read_lines(stream))

    def export(self, stream: TextIO, *, contended: bool = False) -> Merged:
        """Write records as JSON lines; sessions of a contended machine stay behind unless they are asked for."""
        kept = {session.uuid: session for session in self.sessions() if contended or not session.contended}
        return write_lines(stream, kept.values(), [trial for trial in self.trials() if trial.session in kept])

    def prune(self, drop: Callable[[Session, Trial], bool]) -> Merged:
        """Delete the trials for which `drop` is true, and sessions that are empty then. The only deletion there is."""
        with self.writing() as connection:
            rows = connection.execute(f"SELECT trial.id, {_SESSION_FIELDS}, {_TRIAL_FIELDS} {_JOINED}").fetchall()
            doomed = [(number,) for number, pair in _pairs(rows) if pair is None or drop(*pair)]
            connection.executemany("DELETE FROM trial WHERE id = ?", doomed)
            empty = connection.execute("DELETE FROM session WHERE uuid NOT IN (SELECT session FROM trial)").rowcount
        return Merged(max(empty, 0), len(doomed))

    def freeze(self, target: Path) -> Merged:
        """Write a read-only copy: with CONVKIT_DB set to it, choices do not change as tuning goes on."""
        frozen = Database(target)
        if frozen.exists():
            raise DatabaseError("unwritable", f"{target} exists already")
        try:
            merged = frozen.merge(self.path)
            frozen.make_read_only()
        except BaseException:
            frozen.path.unlink(missing_ok=True)
            raise
        return merged

    def add(self, sessions: Iterable[Session], trials: Iterable[Trial]) -> Merged:
        """Add records in one transaction; those that are there already change nothing.

        The file and its directory are created if they do not exist. A session's `contended` mark is only ever set.
        """
        with self.writing() as connection:
            count = "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM trial)"
            before = connection.execute(count).fetchone()
            connection.executemany(_INSERT_SESSION, [session.row() for session in sessions])
            connection.executemany(_INSERT_TRIAL, [trial.row() for trial in trials])
            after = connection.execute(count).fetchone()
        return Merged(after[0] - before[0], after[1] - before[1])

    def _all(self, query: str, values: tuple[str | int, ...] = ()) -> list[tuple[Any, ...]]:
        with self.reading() as connection:
            return connection.execute(query, values).fetchall()


def open_user(*, create: bool = False, write_wait: float = WRITE_WAIT) -> Database:
    """The user's database.

    Parameters
    ----------
    create : bool
        Make the file if there is none. Otherwise an absent file raises.
    write_wait : float
        As for `Database`.

    Raises
    ------
    DatabaseError
    """
    found = paths()
    if found.user is None:
        raise DatabaseError("absent", f"there is no database file: {found.reason}")
    database = Database(found.user, write_wait=write_wait)
    if create:
        with database.writing():
            pass
    elif not database.exists():
        raise DatabaseError("absent", f"there is no database at {found.user} yet; convkit tune makes one")
    return database


def write_lines(stream: TextIO, sessions: Collection[Session], trials: Collection[Trial]) -> Merged:
    """Write an export file."""
    stream.writelines(f"{line}\n" for line in (_HEADER, *map(to_line, sessions), *map(to_line, trials)))
    return Merged(len(sessions), len(trials))


def read_lines(stream: TextIO) -> tuple[list[Session], list[Trial]]:
    """Read an export file; DatabaseError names the first wrong line."""
    sessions: list[Session] = []
    trials: list[Trial] = []
    if stream.readline(_LONGEST_LINE).strip() != _HEADER:
        raise DatabaseError("foreign", "this is not an export of convkit trials of version 1")
    number = 1
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        try:
            record = from_line(line) if line.strip() else None
            if isinstance(record, Session):
                sessions.append(record)
            elif record:
                record.check_problem()
                trials.append(record)
        except RecordError as error:
            raise DatabaseError("damaged", f"line {number}: {error}") from None
    return sessions, trials


def _pairs(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, tuple[Session, Trial] | None]]:
    """Records from joined rows behind their numbers; None instead of what are none."""
    split = 1 + len(SESSION_COLUMNS)
    sessions: dict[str, Session] = {}
    for row in rows:
        try:
            session = sessions.get(row[1]) or sessions.setdefault(row[1], Session.from_row(row[1:split]))
            yield row[0], (session, Trial.from_row(row[split:]))
        except (RecordError, TypeError, ValueError):
            yield row[0], None

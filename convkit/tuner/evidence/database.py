"""The tuning database: an append-only SQLite file of sessions and trials.

Rollback journal (TRUNCATE) with synchronous=FULL, never WAL: it must work in network homes and on read-only mounts.
Every access opens its own connection and closes it, so that none is ever carried across a fork. Rows are hints: what is
read goes through `records`, and the kernel names in it are looked up in the inventory before anything runs.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from convkit.tuner.evidence.paths import is_default, paths
from convkit.tuner.evidence.records import (
    SESSION_COLUMNS,
    TRIAL_COLUMNS,
    RecordError,
    Session,
    Trial,
    from_line,
    to_line,
)

__all__ = ["Database", "DatabaseError", "Merged", "Session", "Trial", "open_user", "paths"]

READ_WAIT = 0.05
WRITE_WAIT = 20.0

_APPLICATION_ID = 0x434B5431
_SCHEMA_VERSION = 1
_MAGIC = b"SQLite format 3\x00"
_LONGEST_VALUE = 65536
EXPORT_HEADER = '{"convkit": "trials", "version": 1}'

_SCHEMA = (
    "CREATE TABLE session(uuid TEXT PRIMARY KEY, machine TEXT NOT NULL, isa TEXT NOT NULL, threads INTEGER NOT NULL, "
    "affinity TEXT NOT NULL, started TEXT NOT NULL, anchor TEXT NOT NULL, contended INTEGER NOT NULL, "
    "versions TEXT NOT NULL, facts TEXT NOT NULL, policy TEXT NOT NULL)",
    "CREATE TABLE trial(id INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL REFERENCES session(uuid), "
    "problem TEXT NOT NULL, kernel TEXT NOT NULL, revision INTEGER NOT NULL, parameters TEXT NOT NULL, "
    "status TEXT NOT NULL, n INTEGER NOT NULL, median REAL, ratio REAL, ratio_low REAL, ratio_high REAL, error REAL, "
    "workspace INTEGER NOT NULL, reason TEXT NOT NULL, UNIQUE(session, problem, kernel, revision, parameters))",
    "CREATE INDEX trial_by_problem ON trial(problem)",
)
_SEQUENCE = "CREATE TABLE sqlite_sequence(name,seq)"

_SESSION_FIELDS = ", ".join(f"session.{name}" for name in SESSION_COLUMNS)
_TRIAL_FIELDS = ", ".join(f"trial.{name}" for name in TRIAL_COLUMNS)
_INSERT_SESSION = (
    f"INSERT INTO session({', '.join(SESSION_COLUMNS)}) VALUES({', '.join('?' * len(SESSION_COLUMNS))}) "
    "ON CONFLICT(uuid) DO UPDATE SET contended = excluded.contended WHERE contended < excluded.contended"
)
_INSERT_TRIAL = f"INSERT OR IGNORE INTO trial({', '.join(TRIAL_COLUMNS)}) VALUES({', '.join('?' * len(TRIAL_COLUMNS))})"


class DatabaseError(Exception):
    """A database that cannot be used, with the reason in one sentence.

    Attributes
    ----------
    cause : {"absent", "busy", "damaged", "foreign", "future", "forbidden", "unwritable"}
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Merged:
    """How many records were new."""

    sessions: int
    trials: int


class Database:
    """One database file.

    Parameters
    ----------
    path : Path
        Absolute path.
    owned : bool
        The file must belong to this user and not be writable by everyone (the user tier). Site files may be root's.
    read_wait, write_wait : float
        Seconds to wait for other processes at most.
    """

    def __init__(
        self, path: Path, *, owned: bool = True, read_wait: float = READ_WAIT, write_wait: float = WRITE_WAIT
    ) -> None:
        self.path: Path = Path(path).absolute()
        self.owned = owned
        self._read_wait = read_wait
        self._write_wait = write_wait

    # Reading

    def exists(self) -> bool:
        """True where there is something at the path."""
        return os.path.lexists(self.path)

    def last_row(self) -> int:
        """Row number of the newest trial: with it, later reads see what was there now and nothing newer."""
        with self._reading() as connection:
            row = connection.execute("SELECT max(id) FROM trial").fetchone()
        return int(row[0] or 0)

    def evidence(self, problem: str, last_row: int = 2**62) -> list[tuple[Session, Trial]]:
        """Trials of a problem with their sessions, oldest first; records that are none are left out."""
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT {_SESSION_FIELDS}, {_TRIAL_FIELDS} FROM trial JOIN session ON session.uuid = trial.session "
                "WHERE trial.problem = ? AND trial.id <= ? ORDER BY trial.id LIMIT 20000",
                (problem, last_row),
            ).fetchall()
        return list(_valid_pairs(rows))

    def problems(self, last_row: int = 2**62) -> list[tuple[str, str, int]]:
        """Distinct (problem, machine, threads) that have trials."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT trial.problem, session.machine, session.threads FROM trial "
                "JOIN session ON session.uuid = trial.session WHERE trial.id <= ? LIMIT 200000",
                (last_row,),
            ).fetchall()
        return [row for row in rows if (type(row[0]), type(row[1]), type(row[2])) == (str, str, int)]

    def sessions(self) -> Iterator[Session]:
        """Every session, oldest first."""
        for row in self._all(f"SELECT {_SESSION_FIELDS} FROM session ORDER BY started, uuid"):
            with contextlib.suppress(RecordError):
                yield Session.from_row(row)

    def trials(self, problem: str | None = None) -> Iterator[Trial]:
        """Every trial in the order of writing, of one problem or of all."""
        where, values = ("", ()) if problem is None else ("WHERE problem = ?", (problem,))
        for row in self._all(f"SELECT {_TRIAL_FIELDS} FROM trial {where} ORDER BY id", values):
            with contextlib.suppress(RecordError):
                yield Trial.from_row(row)

    def counts(self) -> dict[str, int]:
        """Numbers of sessions, trials, problems and machine classes."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM trial), "
                "(SELECT count(DISTINCT problem) FROM trial), (SELECT count(DISTINCT machine) FROM session)"
            ).fetchone()
        return dict(zip(("sessions", "trials", "problems", "machines"), map(int, row), strict=True))

    def verify(self) -> list[str]:
        """Everything that is wrong with the file, in sentences; empty for a sound one."""
        found: list[str] = []
        with self._reading() as connection:
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

    # Writing

    def append(self, session: Session, trials: Iterable[Trial]) -> int:
        """Add trials in one transaction, with their session where it is new. Returns how many were new.

        The file and its directory are created where they do not exist. A session's `contended` mark is only ever set.
        """
        return self._write([session], trials).trials

    def merge(self, other: Path) -> Merged:
        """Add every record of another database: a set union, so that repeating it changes nothing."""
        source = Database(other, owned=False)
        return self._write(list(source.sessions()), list(source.trials()))

    def import_lines(self, stream: TextIO) -> Merged:
        """Add the records of an export file. Wrong lines raise, and then nothing is added."""
        sessions: list[Session] = []
        trials: list[Trial] = []
        for number, line in enumerate(_lines(stream), 1):
            if number == 1:
                if line.strip() != EXPORT_HEADER:
                    raise DatabaseError("foreign", "this is not an export of convkit trials of version 1")
                continue
            try:
                record = from_line(line)
                if isinstance(record, Session):
                    sessions.append(record)
                else:
                    record.check_problem()
                    trials.append(record)
            except RecordError as error:
                raise DatabaseError("damaged", f"line {number}: {error}") from None
        return self._write(sessions, trials)

    def export(self, stream: TextIO, *, contended: bool = False) -> Merged:
        """Write records as JSON lines; sessions of a contended machine stay behind unless they are asked for."""
        stream.write(EXPORT_HEADER + "\n")
        kept = {session.uuid: session for session in self.sessions() if contended or not session.contended}
        for session in kept.values():
            stream.write(to_line(session) + "\n")
        count = 0
        for trial in self.trials():
            if trial.session in kept:
                stream.write(to_line(trial) + "\n")
                count += 1
        return Merged(len(kept), count)

    def prune(self, drop: Callable[[Session, Trial], bool]) -> Merged:
        """Delete the trials for which `drop` is true, and sessions that are empty then. The only deletion there is."""
        with self._writing() as connection:
            rows = connection.execute(
                f"SELECT trial.id, {_SESSION_FIELDS}, {_TRIAL_FIELDS} FROM trial "
                "JOIN session ON session.uuid = trial.session"
            ).fetchall()
            doomed = []
            for number, *row in rows:
                pair = next(_valid_pairs([tuple(row)]), None)
                if pair is None or drop(*pair):
                    doomed.append((number,))
            connection.executemany("DELETE FROM trial WHERE id = ?", doomed)
            empty = connection.execute("DELETE FROM session WHERE uuid NOT IN (SELECT session FROM trial)").rowcount
        return Merged(max(empty, 0), len(doomed))

    def freeze(self, target: Path) -> Merged:
        """Write a read-only copy: with CONVKIT_DB set to it, choices do not change as tuning goes on."""
        target = Path(target).absolute()
        if os.path.lexists(target):
            raise DatabaseError("unwritable", f"{target} exists already")
        merged = Database(target).merge(self.path)
        target.chmod(0o444)
        return merged

    def _write(self, sessions: Iterable[Session], trials: Iterable[Trial]) -> Merged:
        with self._writing() as connection:
            before = _sizes(connection)
            connection.executemany(_INSERT_SESSION, [session.row() for session in sessions])
            connection.executemany(_INSERT_TRIAL, [trial.row() for trial in trials])
            after = _sizes(connection)
        return Merged(after[0] - before[0], after[1] - before[1])

    def _all(self, query: str, values: tuple[str, ...] = ()) -> list[tuple[object, ...]]:
        with self._reading() as connection:
            return connection.execute(query, values).fetchall()

    # Connections

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        inspect_file(self.path, self.owned)
        with _translated(self.path), contextlib.closing(self._reader()) as connection:
            yield connection

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._connect("ro", self._read_wait)
        except sqlite3.OperationalError:
            # A writer that was killed left a journal that only a writing connection may roll back.
            if not self.owned or not _has_journal(self.path) or not os.access(self.path, os.W_OK):
                raise
            return self._connect("rw", self._read_wait)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        deadline = time.monotonic() + self._write_wait
        _create(self.path)
        with _directory_lock(self.path.parent, deadline), _translated(self.path):
            inspect_file(self.path, self.owned, for_writing=True)
            left = max(0.0, deadline - time.monotonic())
            with contextlib.closing(self._connect("rw", left, empty=True)) as connection:
                connection.execute("PRAGMA journal_mode=TRUNCATE")
                connection.execute("PRAGMA synchronous=FULL")
                # Each statement would wait as long again.
                _limit_wait(connection, deadline)
                connection.execute("BEGIN IMMEDIATE")
                try:
                    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                        connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
                        for statement in _SCHEMA:
                            connection.execute(statement)
                    yield connection
                    _limit_wait(connection, deadline)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")

    def _connect(self, mode: str, wait: float, *, empty: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self.path.as_uri()}?mode={mode}", uri=True, timeout=wait, isolation_level=None)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute("PRAGMA mmap_size=0")
            _check_schema(connection, empty=empty)
        except BaseException:
            connection.close()
            raise
        return connection


def open_user(*, create: bool = False, write_wait: float = WRITE_WAIT) -> Database:
    """The user's database.

    Parameters
    ----------
    create : bool
        Make the file where there is none. Otherwise an absent file raises.
    write_wait : float
        As for `Database`.

    Raises
    ------
    DatabaseError
    """
    found = paths()
    if found.user is None:
        raise DatabaseError("absent", f"there is no database file: {found.reason}")
    database = Database(Path(found.user), write_wait=write_wait)
    if create:
        with database._writing():
            pass
    elif not database.exists():
        raise DatabaseError("absent", f"there is no database at {found.user} yet; convkit tune makes one")
    return database


def inspect_file(path: Path, owned: bool, *, for_writing: bool = False) -> str:
    """Look at a file before SQLite does: "sound" or, for a writer, "empty"; DatabaseError for anything unusable."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DatabaseError("foreign", f"{path} is not a regular file")
        if owned and (status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH):
            raise DatabaseError(
                "forbidden", f"{path} must belong to this user and not be writable by everyone; it is ignored"
            )
        with open(path, "rb") as stream:
            header = stream.read(100)
    except FileNotFoundError:
        raise DatabaseError("absent", f"there is no database at {path}") from None
    except OSError as error:
        raise DatabaseError("unwritable" if for_writing else "forbidden", f"{path}: {error.strerror}") from None
    if not header:
        if for_writing:
            return "empty"
        raise DatabaseError("absent", f"{path} is empty")
    if not header.startswith(_MAGIC[: len(header)]):
        raise DatabaseError("damaged" if is_default(path) else "foreign", f"{path} is not a tuning database")
    if len(header) < 100:
        raise DatabaseError("damaged", f"{path} is cut off")
    if int.from_bytes(header[68:72], "big") != _APPLICATION_ID:
        raise DatabaseError("foreign", f"{path} is a SQLite file of something else")
    if int.from_bytes(header[60:64], "big") != _SCHEMA_VERSION:
        raise DatabaseError("future", f"{path} has a schema of another version of convkit")
    if header[18:20] != b"\x01\x01":
        raise DatabaseError("foreign", f"{path} is not in rollback-journal mode, so convkit did not write it")
    return "sound"


def move_aside(path: Path) -> Path | None:
    """Rename a damaged database of ours, under a lock that keeps writers out; None where it was not to be moved."""
    from datetime import UTC, datetime

    try:
        with _directory_lock(path.parent):
            # Another process may have moved it and begun a new one in the meantime.
            if not _is_damaged(path):
                return None
            target = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            os.rename(path, target)
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}-journal", f"{target}-journal")
            return target
    except (OSError, DatabaseError):
        return None


def _is_damaged(path: Path) -> bool:
    try:
        inspect_file(path, owned=True)
        with _translated(path):
            connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=READ_WAIT, isolation_level=None)
            with contextlib.closing(connection):
                _check_schema(connection)
                row = connection.execute("PRAGMA quick_check(1)").fetchone()
                return bool(row[0] != "ok")
    except DatabaseError as error:
        return error.cause == "damaged"


def _create(path: Path) -> None:
    try:
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DatabaseError("unwritable", f"{path} cannot be made: {error.strerror}") from None


def _check_schema(connection: sqlite3.Connection, *, empty: bool = False) -> None:
    found = {row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT 50")}
    if not found and not empty:
        raise DatabaseError("absent", "the database has no tables yet")
    if found and found != {*_SCHEMA, _SEQUENCE}:
        raise DatabaseError("foreign", "the database's schema is not convkit's")


def _has_journal(path: Path) -> bool:
    try:
        return os.stat(f"{path}-journal").st_size > 0
    except OSError:
        return False


def _sizes(connection: sqlite3.Connection) -> tuple[int, int]:
    sessions, trials = connection.execute(
        "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM trial)"
    ).fetchone()
    return int(sessions), int(trials)


def _valid_pairs(rows: Iterable[tuple[object, ...]]) -> Iterator[tuple[Session, Trial]]:
    split = len(SESSION_COLUMNS)
    for row in rows:
        with contextlib.suppress(RecordError, TypeError, ValueError):
            yield Session.from_row(tuple(row[:split])), Trial.from_row(tuple(row[split:]))


def _lines(stream: TextIO) -> Iterator[str]:
    while line := stream.readline(_LONGEST_VALUE):
        if line.strip():
            yield line


def _limit_wait(connection: sqlite3.Connection, deadline: float) -> None:
    connection.execute(f"PRAGMA busy_timeout={max(0, round(1000 * (deadline - time.monotonic())))}")


@contextlib.contextmanager
def _directory_lock(directory: Path, shared_until: float | None = None) -> Iterator[None]:
    """Writers share it, whoever moves a damaged file aside holds it alone: a lock that needs no file of its own.

    Parameters
    ----------
    shared_until : float, optional
        On the monotonic clock, how long to wait for a share. Otherwise the lock is to be had alone, now.
    """
    import fcntl

    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DatabaseError("unwritable", f"{directory}: {error.strerror}") from None
    try:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_EX if shared_until is None else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                if shared_until is None or time.monotonic() >= shared_until:
                    raise DatabaseError("busy", f"{directory} is locked by another process") from None
                time.sleep(0.005)
                continue
            except OSError:
                # Some network file systems have no flock; then nothing is ever moved aside there.
                if shared_until is None:
                    raise DatabaseError("unwritable", f"{directory} does not support locks") from None
            break
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        cause = _cause(error)
        what = f"{path} is locked by another process" if cause == "busy" else f"{path}: {error}"
        raise DatabaseError(cause, what) from error
    except (OverflowError, UnicodeError) as error:
        raise DatabaseError("damaged", f"{path}: {error}") from error


def _cause(error: sqlite3.Error) -> str:
    # The lower 8 bits hold the primary code; errors raised by the sqlite3 module itself carry none.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "busy"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH):
        return "damaged"
    return "unwritable"

"""The SQLite file under a tuning database: opened for one access, by one rule for whose it is and what it may hold.

Rollback journal (TRUNCATE) with synchronous=FULL, never WAL: it must work in network homes and on read-only mounts.
Every access opens its own connection and closes it, so that none is ever carried across a fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from convkit.tuner.evidence.paths import is_default

READ_WAIT = 0.05
WRITE_WAIT = 20.0

_APPLICATION_ID = 0x434B5431
_SCHEMA_VERSION = 1
_MAGIC = b"SQLite format 3\x00"
# Format versions in the header, for writing and for reading: what SQLite may write to, and what it only ever reads.
_FORMATS = slice(18, 20)
_OPEN, _FROZEN = b"\x01\x01", b"\x03\x01"
_LONGEST_VALUE = 65536

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


class DatabaseError(Exception):
    """A database that cannot be used, with the reason in one sentence.

    Attributes
    ----------
    cause : {"absent", "busy", "damaged", "foreign", "frozen", "future", "forbidden", "unwritable"}
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class DatabaseFile:
    """One file.

    Parameters
    ----------
    path : Path or str
    owned : bool
        The file must belong to this user and not be writable by everyone (the user tier). Site files may be root's.
    read_wait, write_wait : float
        Seconds to wait for other processes at most.
    """

    def __init__(
        self, path: Path | str, *, owned: bool = True, read_wait: float = READ_WAIT, write_wait: float = WRITE_WAIT
    ) -> None:
        self.path: Path = Path(path).absolute()
        self.owned = owned
        self._read_wait = read_wait
        self._write_wait = write_wait

    def exists(self) -> bool:
        """True if there is something at the path."""
        return os.path.lexists(self.path)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that changes nothing."""
        self._inspect()
        with self._translated(), contextlib.closing(self._reader()) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, in a new file if there is none."""
        deadline = time.monotonic() + self._write_wait
        self._create()
        with _directory_lock(self.path.parent, deadline), self._translated():
            self._inspect(for_writing=True)
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

    def make_read_only(self) -> None:
        """Mark the file as one that SQLite only reads, whoever asks."""
        with open(self.path, "r+b") as stream:
            stream.seek(_FORMATS.start)
            stream.write(_FROZEN)
            stream.flush()
            os.fsync(stream.fileno())
        self.path.chmod(0o444)

    def move_aside(self) -> Path | None:
        """Rename a damaged file of ours, under a lock that keeps writers out; None if it was not to be moved."""
        path = self.path
        try:
            with _directory_lock(path.parent):
                # Another process may have moved it and begun a new one in the meantime.
                if not self._is_damaged():
                    return None
                target = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
                os.rename(path, target)
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{path}-journal", f"{target}-journal")
                return target
        except (OSError, DatabaseError):
            return None

    def _is_damaged(self) -> bool:
        try:
            with self.reading() as connection:
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        except DatabaseError as error:
            return error.cause == "damaged"

    def _inspect(self, *, for_writing: bool = False) -> None:
        """Look at the file before SQLite does; DatabaseError for what cannot be used."""
        path = self.path
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise DatabaseError("foreign", f"{path} is not a regular file")
            if self.owned and (status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH):
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
                return
            raise DatabaseError("absent", f"{path} is empty")
        if not header.startswith(_MAGIC[: len(header)]):
            raise DatabaseError("damaged" if is_default(path) else "foreign", f"{path} is not a tuning database")
        if len(header) < 100:
            raise DatabaseError("damaged", f"{path} is cut off")
        if int.from_bytes(header[68:72], "big") != _APPLICATION_ID:
            raise DatabaseError("foreign", f"{path} is a SQLite file of something else")
        if int.from_bytes(header[60:64], "big") != _SCHEMA_VERSION:
            raise DatabaseError("future", f"{path} has a schema of another version of convkit")
        if header[_FORMATS] == _FROZEN:
            if for_writing:
                raise DatabaseError("frozen", f"{path} is frozen: nothing is ever written to it")
        elif header[_FORMATS] != _OPEN:
            raise DatabaseError("foreign", f"{path} is not in rollback-journal mode, so convkit did not write it")

    def _create(self) -> None:
        try:
            os.makedirs(self.path.parent, mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise DatabaseError("unwritable", f"{self.path} cannot be made: {error.strerror}") from None

    def _reader(self) -> sqlite3.Connection:
        try:
            return self._connect("ro", self._read_wait)
        except sqlite3.OperationalError:
            # A writer that was killed left a journal that only a writing connection may roll back.
            journal = f"{self.path}-journal"
            left = os.path.exists(journal) and os.path.getsize(journal) > 0
            if not (self.owned and left and os.access(self.path, os.W_OK)):
                raise
            return self._connect("rw", self._read_wait)

    def _connect(self, mode: str, wait: float, *, empty: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self.path.as_uri()}?mode={mode}", uri=True, timeout=wait, isolation_level=None)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute("PRAGMA mmap_size=0")
            statements = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT 50")
            found = {row[0] for row in statements}
            if not found and not empty:
                raise DatabaseError("absent", f"{self.path} has no tables yet")
            if found and found != {*_SCHEMA, _SEQUENCE}:
                raise DatabaseError("foreign", f"{self.path} has another schema than convkit's")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            cause = _cause(error)
            what = f"{self.path} is locked by another process" if cause == "busy" else f"{self.path}: {error}"
            raise DatabaseError(cause, what) from error
        except (OverflowError, UnicodeError) as error:
            raise DatabaseError("damaged", f"{self.path}: {error}") from error


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


def _cause(error: sqlite3.Error) -> str:
    # The lower 8 bits hold the primary code; errors raised by the sqlite3 module itself carry none.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "busy"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH):
        return "damaged"
    return "unwritable"

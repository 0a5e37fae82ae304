"""The database file: what it keeps, what it refuses, and that no file whatever fails a caller."""

from __future__ import annotations

import contextlib
import fcntl
import io
import multiprocessing
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import MACHINE, context_of

from convkit.problem import Problem
from convkit.tuner.evidence.database import Database, DatabaseError
from convkit.tuner.evidence.paths import is_default, paths
from convkit.tuner.evidence.records import RecordError, Session, Trial, from_line, to_line
from convkit.tuner.evidence.tiers import CALL_WAIT, FileTier, UserTier

PROBLEM = Problem(n=1, c=8, h=16, w=16, o=8, kh=3, kw=3)


def make_session(number: int = 1, **changes: object) -> Session:
    values = {
        "uuid": f"{number:032x}", "machine": str(MACHINE), "isa": "avx2", "threads": 1, "affinity": "unpinned",
        "started": "2026-01-01T00:00:00Z", "versions": {"convkit": "test"},
    }  # fmt: skip
    return Session(**{**values, **changes})  # type: ignore[arg-type]


def make_trial(session: Session, number: int = 0, **changes: object) -> Trial:
    values = {
        "session": session.uuid, "problem": str(PROBLEM), "kernel": f"f32_gemm{number}__avx2", "revision": 1,
        "parameters": (8, number), "status": "complete", "n": 9, "median": 1e-3, "ratio": 1.0, "ratio_low": 0.9,
        "ratio_high": 1.1, "error": 1e-7, "workspace": 64,
    }  # fmt: skip
    return Trial(**{**values, **changes})  # type: ignore[arg-type]


def filled(path: Path, sessions: int = 2, trials: int = 3) -> Database:
    database = Database(path)
    for number in range(1, sessions + 1):
        session = make_session(number)
        database.append(session, [make_trial(session, i) for i in range(trials)])
    return database


def test_round_trip_and_file_attributes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trials-v1.sqlite"
    session = make_session(facts={"cpus": 2})
    trials = [make_trial(session), make_trial(session, 1, status="failed", n=0, median=None, ratio=None, reason="x")]
    database = Database(path)
    assert database.append(session, trials) == 2
    assert database.append(session, trials) == 0
    assert list(database.sessions()) == [session]
    assert list(database.trials()) == trials
    assert [pair[1] for pair in database.evidence([str(PROBLEM)])] == trials
    assert database.evidence(["other"]) == []
    assert database.problems() == [(str(PROBLEM), str(MACHINE), 1)]
    assert database.verify() == []
    assert database.counts() == {"sessions": 1, "trials": 2, "problems": 1, "machines": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_later_rows_are_invisible_to_a_snapshot(tmp_path: Path) -> None:
    database = filled(tmp_path / "trials", 1)
    last = database.last_row()
    session = make_session(9)
    database.append(session, [make_trial(session, 7)])
    assert len(database.evidence([str(PROBLEM)], last)) == 3
    assert len(database.evidence([str(PROBLEM)])) == 4


def test_the_contended_mark_is_only_ever_set(tmp_path: Path) -> None:
    database = filled(tmp_path / "trials", 1)
    database.append(make_session(1, contended=True), [])
    database.append(make_session(1), [])
    assert [session.contended for session in database.sessions()] == [True]


def test_merge_is_a_union(tmp_path: Path) -> None:
    first, second = filled(tmp_path / "first", 2), filled(tmp_path / "second", 3)
    merged = first.merge(second.path)
    assert (merged.sessions, merged.trials) == (1, 3)
    again = first.merge(second.path)
    assert (again.sessions, again.trials) == (0, 0)
    assert first.counts()["trials"] == 9
    second.merge(first.path)
    assert set(map(to_line, first.trials())) == set(map(to_line, second.trials()))


def test_export_and_import(tmp_path: Path) -> None:
    database = filled(tmp_path / "first")
    marked = make_session(7, contended=True)
    database.append(marked, [make_trial(marked)])
    stream = io.StringIO()
    assert database.export(stream).trials == 6
    other = Database(tmp_path / "second")
    stream.seek(0)
    assert other.import_lines(stream).trials == 6
    stream.seek(0)
    assert other.import_lines(stream).trials == 0
    assert list(other.sessions()) == [s for s in database.sessions() if not s.contended]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{",
        '{"session": 3}',
        '{"trial": {"session": "x"}}',
        '{"trial": null}',
        '{"other": {}}',
        "[" * 9000,
        '{"session": {"uuid": "../../etc/passwd"}}',
        "x" * 100000,
    ],
)
def test_import_refuses_hostile_lines_and_adds_nothing(tmp_path: Path, line: str) -> None:
    session = make_session()
    text = "\n".join(['{"convkit": "trials", "version": 1}', to_line(session), to_line(make_trial(session)), line])
    database = Database(tmp_path / "trials")
    if not line:
        assert database.import_lines(io.StringIO(text)).trials == 1
        return
    with pytest.raises(DatabaseError, match="line 4"):
        database.import_lines(io.StringIO(text))
    assert not database.exists()


def test_import_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="not an export"):
        Database(tmp_path / "trials").import_lines(io.StringIO("import os\n"))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)


@given(st.recursive(SCALARS, st.lists, max_leaves=4), st.sampled_from([*Trial.__dataclass_fields__]))
def test_records_take_only_what_they_should(value: object, name: str) -> None:
    session = make_session()
    try:
        trial = make_trial(session, **{name: value})
    except (RecordError, TypeError):
        return
    assert from_line(to_line(trial)) == trial


def test_prune_and_freeze(tmp_path: Path) -> None:
    database = filled(tmp_path / "trials")
    frozen = tmp_path / "frozen"
    assert database.freeze(frozen).trials == 6
    assert stat.S_IMODE(frozen.stat().st_mode) == 0o444
    assert len(list(Database(frozen, owned=False).trials())) == 6
    with pytest.raises(DatabaseError, match="exists"):
        database.freeze(frozen)
    pruned = database.prune(lambda session, trial: session.uuid == make_session(1).uuid)
    assert (pruned.sessions, pruned.trials) == (1, 3)
    assert database.counts()["trials"] == 3


def test_a_frozen_file_is_frozen_for_root_too(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    database = filled(tmp_path / "trials")
    frozen = Database(tmp_path / "frozen")
    database.freeze(frozen.path)
    frozen.path.chmod(0o666 & ~0o002)
    before = frozen.path.read_bytes()
    attempts = (
        lambda: frozen.append(make_session(9), [make_trial(make_session(9))]),
        lambda: frozen.merge(database.path),
        lambda: frozen.prune(lambda session, trial: True),
    )
    for attempt in attempts:
        with pytest.raises(DatabaseError, match="is frozen") as refused:
            attempt()
        assert refused.value.cause == "frozen"
    # Programs that know nothing of convkit are refused by SQLite itself.
    with contextlib.closing(sqlite3.connect(frozen.path)) as connection:
        assert connection.execute("SELECT count(*) FROM trial").fetchone() == (6,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM trial")
    assert ask(frozen.path)[0] == 6
    record(frozen.path)
    assert [entry.name for entry in tmp_path.iterdir() if "damaged" in entry.name] == []
    (line,) = [entry.getMessage() for entry in log.records]
    assert "is frozen: nothing is ever written to it; set CONVKIT_DB to another path" in line
    assert frozen.path.read_bytes() == before
    assert frozen.verify() == []
    thawed = Database(tmp_path / "thawed")
    thawed.merge(frozen.path)
    assert thawed.counts() == database.counts()


def ask(path: Path, *, exact: bool = True) -> tuple[int, str]:
    """How many trials a tier finds in a file, and what it says of it."""
    tier = FileTier("user", str(path), exact=exact)
    return len(tier.evidence([str(PROBLEM)], context_of(1))), tier.outcome()


def record(path: Path, lock_wait: float = CALL_WAIT) -> UserTier:
    user = UserTier(str(path))
    session = make_session(50)
    user.record(session, [make_trial(session)], lock_wait=lock_wait)
    return user


def test_every_truncation_is_a_miss_or_an_answer(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    whole = filled(tmp_path / "whole").path.read_bytes()
    path = tmp_path / "trials"
    for size in [*range(0, 101, 10), *range(100, len(whole), 509), len(whole) - 1]:
        path.write_bytes(whole[:size])
        found, outcome = ask(path)
        assert found <= 6
        assert outcome
        record(path)
    assert len(log.records) <= 3


def test_random_bytes_are_a_miss_or_an_answer(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole").path.read_bytes()
    path = tmp_path / "trials"
    generator = random.Random(5)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(generator.choice([1, 4, 64])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        ask(path)
        record(path)
        for name in tmp_path.iterdir():
            if name.name not in ("whole", "trials"):
                name.unlink()


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE trial(id)")
    connection.commit()
    connection.close()


def _future(path: Path) -> None:
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=2")
    connection.close()


def _other_schema(path: Path) -> None:
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER t AFTER INSERT ON trial BEGIN DELETE FROM session; END")
    connection.close()


def _wal(path: Path) -> None:
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _world_writable(path: Path) -> None:
    filled(path)
    path.chmod(0o666)


UNUSABLE = {
    "directory": Path.mkdir,
    "text": lambda path: path.write_text("not a database, but somebody's file\n" * 9),
    "foreign SQLite": _foreign,
    "future schema": _future,
    "trigger added": _other_schema,
    "WAL": _wal,
    "fifo": _fifo,
    "dangling link": lambda path: path.symlink_to("nowhere/at/all"),
    "world-writable": _world_writable,
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_files_are_left_alone_with_one_line(tmp_path: Path, log: pytest.LogCaptureFixture, kind: str) -> None:
    path = tmp_path / "trials"
    UNUSABLE[kind](path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(3):
        assert ask(path)[0] == 0
    readings = len(log.records)
    assert readings <= 1
    for _ in range(3):
        user = record(path)
        assert len(user.evidence([str(PROBLEM)], context_of(1))) == 1
        assert user.unwritten == 1
    assert len(log.records) == readings + 1
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_damaged_file_of_ours_is_moved_aside(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    path = filled(tmp_path / "trials").path
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    assert record(path).unwritten == 0
    assert Database(path).verify() == []
    (moved,) = (name for name in tmp_path.glob("trials.damaged-*") if not name.name.endswith("-journal"))
    assert moved.read_bytes()[:4096] == content[:4096]
    assert sum("moved to" in r.getMessage() for r in log.records) == 1
    assert Database(path).move_aside() is None


def test_a_locked_file_is_skipped_by_readers(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    path = filled(tmp_path / "trials").path
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    found, outcome = ask(path)
    assert found == 0
    assert "locked" in outcome
    holder.execute("ROLLBACK")
    holder.close()
    assert ask(path)[0] == 6
    assert len(log.records) == 1


def test_what_a_lock_kept_out_of_the_file_is_written_with_the_next(tmp_path: Path) -> None:
    path = filled(tmp_path / "trials").path
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    user = record(path, lock_wait=0.01)
    assert user.unwritten == 1
    holder.execute("ROLLBACK")
    holder.close()
    session = make_session(51)
    user.record(session, [make_trial(session)])
    assert user.unwritten == 0
    assert Database(path).counts()["trials"] == 8
    assert len(user.evidence([str(PROBLEM)], context_of(1))) == 8


@pytest.mark.parametrize("lock", ["exclusive", "immediate", "directory"])
def test_a_process_waits_for_a_lock_once_and_not_long(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    path = filled(tmp_path / "trials").path
    slept = [0.0]
    tries: list[float] = []
    write = Database.writing

    def counted(self: Database) -> Any:
        tries.append(self._write_wait)
        slept[0] += self._write_wait
        return write(self)

    monkeypatch.setattr(Database, "writing", counted)
    clock = SimpleNamespace(monotonic=lambda: slept[0], sleep=lambda seconds: slept.__setitem__(0, slept[0] + seconds))
    monkeypatch.setattr("convkit.tuner.evidence.tiers.time", clock)
    with held(path, lock):
        user = UserTier(str(path))
        for number in range(1, 9):
            session = make_session(100 + number)
            user.record(session, [make_trial(session)])
        assert user.unwritten == 8
        assert CALL_WAIT <= slept[0] <= 2
        assert tries[-7:] == [0.0] * 7
        assert [r.getMessage() for r in log.records if "locked by another process" not in r.getMessage()] == []
        assert len(log.records) == 1
    user.flush()
    assert user.unwritten == 0


@pytest.mark.parametrize("lock", ["exclusive", "directory"])
def test_a_command_that_finds_a_lock_says_so(tmp_path: Path, lock: str) -> None:
    path = filled(tmp_path / "trials").path
    other = filled(tmp_path / "other", 9).path
    with held(path, lock), pytest.raises(DatabaseError, match="locked by another process"):
        Database(path, write_wait=0.1).merge(other)


@contextlib.contextmanager
def held(path: Path, lock: str) -> Iterator[None]:
    """Hold a lock that writers need, as another process would."""
    if lock == "directory":
        handle = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        os.close(handle)
        return
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute(f"BEGIN {lock}")
    yield
    holder.close()


def test_a_full_disk_costs_the_memory_only(tmp_path: Path) -> None:
    code = f"""
        import resource, signal, sys
        sys.path[:0] = {sys.path!r}
        from pathlib import Path
        from test_database import UserTier, make_session, make_trial, Database, PROBLEM, context_of
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = Path({str(tmp_path)!r}) / "trials"
        recorder = UserTier(str(path))
        session = make_session(1)
        recorder.record(session, [make_trial(session, 0)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, resource.RLIM_INFINITY))
        for number in range(1, 40):
            recorder.record(session, [make_trial(session, number)])
        assert recorder.unwritten > 0
        assert len(recorder.evidence([str(PROBLEM)], context_of(1))) == 40
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        session = make_session(2)
        recorder.record(session, [make_trial(session, 0)])
        assert recorder.unwritten == 0
        assert Database(path).verify() == []
        assert Database(path).counts()["trials"] == 41
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def _raise_no_home(*_: object, **__: object) -> str:
    raise RuntimeError("could not determine the home directory")


def test_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVKIT_DB", f"{tmp_path}/a:{tmp_path}/b")
    assert paths().user == f"{tmp_path}/a"
    assert paths().sites == [f"{tmp_path}/b"]
    monkeypatch.setenv("CONVKIT_DB", f":memory::{tmp_path}/b")
    assert paths().user is None
    assert paths().sites == [f"{tmp_path}/b"]
    monkeypatch.setenv("CONVKIT_DB", ":memory:")
    assert (paths().user, paths().sites) == (None, [])
    monkeypatch.delenv("CONVKIT_DB")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/path")
    monkeypatch.setenv("HOME", "relative")
    assert os.path.isabs(paths().user or os.sep)
    # Somebody without a home: platformdirs before 4.12 returned what begins with "~", later ones raise.
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: "~/.local/share/convkit")
    assert paths().user is None
    monkeypatch.setattr("platformdirs.user_data_dir", _raise_no_home)
    assert paths().user is None
    assert "set HOME, XDG_DATA_HOME or CONVKIT_DB" in paths().reason
    assert not is_default(tmp_path)
    monkeypatch.undo()
    monkeypatch.delenv("CONVKIT_DB", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert paths().user == f"{tmp_path}/convkit/trials-v1.sqlite"


def _write_many(path: Path, number: int, count: int) -> None:
    user = UserTier(str(path))
    session = make_session(number + 1)
    for i in range(count):
        user.record(session, [make_trial(session, i)], lock_wait=60)
    assert user.unwritten == 0


def test_sixteen_processes_lose_no_trial(tmp_path: Path) -> None:
    path = tmp_path / "trials"
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=_write_many, args=(path, number, 8)) for number in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    database = Database(path)
    assert database.verify() == []
    assert database.counts()["trials"] == 16 * 8


def test_killed_at_any_moment_the_file_opens_and_holds_what_was_told(tmp_path: Path) -> None:
    path = tmp_path / "trials"
    code = """
        import sys
        sys.path[:0] = {path!r}
        from pathlib import Path
        from test_database import Database, make_session, make_trial
        session = make_session({number})
        for i in range(100000):
            Database(Path({file!r})).append(session, [make_trial(session, i)])
            print(i, flush=True)
    """
    generator = random.Random(3)
    told = 0
    for number in range(1, 9):
        text = textwrap.dedent(code.format(path=sys.path, number=number, file=str(path)))
        with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(generator.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
            told += 1 + len(process.stdout.read().splitlines())
        found = len(Database(path).evidence([str(PROBLEM)]))
        assert told <= found <= told + number
        assert Database(path).verify() == []

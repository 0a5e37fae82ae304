"""Stored evidence that is wrong, or cannot be stored: what is told of it, and that nothing fails for it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
from pathlib import Path

import pytest
from test_database import filled, make_session
from typer.testing import CliRunner

import convkit
from convkit.commands import app
from convkit.tuner.choosing import cost_model
from convkit.tuner.evidence.database import Database, DatabaseError
from convkit.tuner.evidence.database_file import _directory_lock

WRONG = {
    "UPDATE session SET threads = 0 WHERE uuid = '{one}'": "threads",
    "UPDATE trial SET median = -1 WHERE session = '{one}' AND kernel = 'f32_gemm0__avx2'": "median",
    "UPDATE trial SET problem = 'no problem' WHERE session = '{one}'": "no problem",
    "DELETE FROM session WHERE uuid = '{one}'": "a trial of f32_gemm0__avx2 belongs to no session: {one}",
}


@pytest.mark.parametrize("change", WRONG)
def test_verify_names_what_is_wrong(change: str, database: Path) -> None:
    one = make_session(1).uuid
    filled(database)
    command = CliRunner().invoke(app, ["db", "verify"])
    assert command.exit_code == 0
    assert "is sound" in command.output
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(change.format(one=one))
    told = Database(database).verify()
    assert any(WRONG[change].format(one=one) in sentence for sentence in told), told
    command = CliRunner().invoke(app, ["db", "verify"])
    assert command.exit_code == 1
    assert "is sound" not in command.output
    assert told[0] in command.output


def test_prune_counts_what_cannot_be_read(database: Path) -> None:
    filled(database, sessions=1, trials=3)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE trial SET median = -1 WHERE kernel = 'f32_gemm0__avx2'")
    command = CliRunner().invoke(app, ["db", "prune", "--contended", "--dry-run"])
    assert command.exit_code == 0, command.output
    assert "unreadable records" in command.output
    assert "1 of 3 trials" in command.output


def test_where_there_are_no_locks_trials_are_kept_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(handle: int, kind: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unknown)
    database = filled(tmp_path / "trials", sessions=1)
    assert database.counts()["trials"] == 3
    with pytest.raises(DatabaseError, match="does not support locks"), _directory_lock(tmp_path):
        pass
    with pytest.raises(DatabaseError, match="No such file"), _directory_lock(tmp_path / "nowhere"):
        pass


CONSTANTS = cost_model.Constants({"avx2": 1e10}, corrections={}, source="a test")


def test_a_calibration_that_cannot_be_kept(
    database: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    kept = Path(str(cost_model.constants_path()))
    kept.mkdir()
    cost_model.save("a machine", {}, CONSTANTS)
    cost_model.save("a machine", {}, CONSTANTS)
    assert len(log.records) == 1
    assert f"the calibration is not kept: {kept}: Is a directory" in log.text
    monkeypatch.setenv("CONVKIT_DB", ":memory:")
    convkit.reload()
    cost_model.save("a machine", {}, CONSTANTS)
    assert len(log.records) == 2
    assert "the calibration is not kept: " in log.records[1].getMessage()


def test_a_calibration_that_others_may_write_is_ignored(database: Path, log: pytest.LogCaptureFixture) -> None:
    cost_model.save("a machine", {}, CONSTANTS)
    kept = Path(str(cost_model.constants_path()))
    assert cost_model.load("a machine") is not None
    kept.chmod(0o666)
    assert cost_model.load("a machine") is None
    assert "must belong to this user, not be writable by everyone, and be small" in log.text
    value = json.loads(kept.read_text())
    value["constants"]["fmas"] = {}
    with pytest.raises(ValueError, match="no FMA peak"):
        cost_model.constants_from(value)

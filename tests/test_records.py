"""The limits of every column, one step on either side, and how values are written to rows and lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_database import make_session, make_trial

from convkit.problem import Problem
from convkit.tuner.evidence.records import BEST_OF, RecordError, Result, Session, Trial, from_line, to_line
from convkit.tuner.machine import context

TAKEN: dict[str, tuple[Any, ...]] = {
    "machine": ("m", "m" * 200),
    "isa": ("i", "i" * 40),
    "threads": (1, 65536),
    "affinity": ("a", "a" * 40),
    "started": ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456Z"),
    "anchor": ("", "k" * 300),
    "contended": (False, True),
    "facts": ({}, {"a": "b" * (8192 - 9)}),
}
REFUSED: dict[str, tuple[Any, ...]] = {
    "uuid": ("", "0" * 31, "0" * 33, "g" * 32, "A" * 32, 7),
    "machine": ("", "m" * 201, 5),
    "isa": ("", "i" * 41),
    "threads": (0, 65537, 1.0, True, "1"),
    "affinity": ("", "a" * 41),
    "started": ("2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00:00Z\n"),
    "anchor": ("k" * 301, None),
    "contended": (0, 1, None),
    "facts": ({"a": "b" * (8193 - 9)}, [], "{}"),
}
TRIAL_TAKEN: dict[str, tuple[Any, ...]] = {
    "problem": ("p", "p" * 400),
    "kernel": ("k", "k" * 120, "f32_9"),
    "revision": (0, 2**31 - 1),
    "parameters": ((), (-(2**31), 2**31 - 1), (1, 2, 3, 4, 5, 6)),
    "status": ("complete", "raced out", "failed"),
    "n": (1, 2**31 - 1),
    "median": (1e-9, 1e12 - 1),
    "ratio": (None, 0.0, 1e12 - 1),
    "error": (None, 0.0),
    "workspace": (0, 2**62 - 1),
    "reason": ("", "r" * 400),
}
TRIAL_REFUSED: dict[str, tuple[Any, ...]] = {
    "problem": ("", "p" * 401),
    "kernel": ("", "k" * 121, "k-1", "k 1", "kernel\n", "kérnel"),
    "revision": (-1, 2**31, 1.0),
    "parameters": ((-(2**31) - 1,), (2**31,), (1,) * 7, [1], (1.0,), (True,)),
    "status": ("done", "", None),
    "n": (-1, 0, 2**31, 1.0),
    "median": (None, 0.0, -1.0, 1e12, float("nan"), float("inf"), 1),
    "ratio": (-1e-9, 1e12, float("nan"), "1"),
    "error": (-1e-9, float("inf"), 0),
    "workspace": (-1, 2**62),
    "reason": ("r" * 401, None),
}


def cases(columns: dict[str, tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{str(value)[:20]}-{len(str(value))}")
        for name, values in columns.items()
        for value in values
    ]


@pytest.mark.parametrize(("name", "value"), cases(TAKEN))
def test_a_session_takes(name: str, value: Any) -> None:
    session = make_session(**{name: value})
    assert getattr(session, name) == value
    assert Session.from_row(session.row()) == from_line(to_line(session)) == session


@pytest.mark.parametrize(("name", "value"), cases(REFUSED))
def test_a_session_refuses(name: str, value: Any) -> None:
    with pytest.raises(RecordError, match=rf"^session\.{name}: impossible value"):
        make_session(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(TRIAL_TAKEN))
def test_a_trial_takes(name: str, value: Any) -> None:
    trial = make_trial(make_session(), **{name: value})
    assert getattr(trial, name) == value
    assert Trial.from_row(trial.row()) == from_line(to_line(trial)) == trial


@pytest.mark.parametrize(("name", "value"), cases(TRIAL_REFUSED))
def test_a_trial_refuses(name: str, value: Any) -> None:
    told = "median" if (name, value) == ("n", 0) else name
    with pytest.raises(RecordError, match=rf"^trial\.{told}: impossible value"):
        make_trial(make_session(), **{name: value})


def test_a_failure_needs_no_time() -> None:
    trial = make_trial(make_session(), status="failed", n=0, median=None)
    assert (trial.n, trial.median) == (0, None)


def test_rows_hold_what_sqlite_can() -> None:
    session = make_session(contended=True, facts={"b": 1, "a": 2})
    row = dict(zip(Session.__dataclass_fields__, session.row(), strict=True))
    assert (row["contended"], row["facts"]) == (1, '{"a": 2, "b": 1}')
    trial = make_trial(make_session(), parameters=(8, -3))
    assert dict(zip(Trial.__dataclass_fields__, trial.row(), strict=True))["parameters"] == "8,-3"


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("contended", 2), ("contended", "yes"), ("facts", "[]"), ("facts", "{"), ("facts", 3), ("facts", "[" * 8000),
        ("facts", '{"a": "' + "b" * 8192 + '"}'),
    ],
)  # fmt: skip
def test_a_row_of_a_session_that_nobody_wrote_is_refused(name: str, stored: object) -> None:
    row = dict(zip(Session.__dataclass_fields__, make_session().row(), strict=True)) | {name: stored}
    with pytest.raises(RecordError):
        Session.from_row(tuple(row.values()))


@pytest.mark.parametrize("stored", ["08", "8, 3", "8,", "x", 8, None, "1,2,3,4,5,6,7"])
def test_parameters_that_nobody_wrote_are_refused(stored: object) -> None:
    row = dict(zip(Trial.__dataclass_fields__, make_trial(make_session()).row(), strict=True)) | {"parameters": stored}
    with pytest.raises(RecordError, match=r"trial\.parameters"):
        Trial.from_row(tuple(row.values()))


def test_lines_name_their_kind_and_have_a_longest() -> None:
    session = make_session()
    assert set(json.loads(to_line(session))) == {"session"}
    assert set(json.loads(to_line(make_trial(session)))) == {"trial"}
    line = to_line(session)
    assert line == json.dumps(json.loads(line), sort_keys=True)
    padded = line.ljust(4 * 8192)
    assert from_line(padded) == session
    with pytest.raises(RecordError, match="32768 characters"):
        from_line(padded + " ")
    with pytest.raises(RecordError, match="neither a session nor a trial"):
        from_line(line.replace('"session"', '"other"'))
    with pytest.raises(RecordError, match="not a record"):
        from_line('{"trial": {}}')


def test_a_session_begins_here_and_now_and_is_closed_once() -> None:
    here = context(2)
    session = Session.begin(here, {"budget": 3})
    assert (session.machine, session.isa, session.threads) == (str(here.machine), here.machine.isa, 2)
    assert (session.affinity, session.policy, session.anchor) == (here.affinity, {"budget": 3}, "")
    assert session.versions["convkit"]
    assert session.facts
    assert not session.contended
    assert Session.begin(here, {}).uuid != session.uuid
    quiet = session.closed("gemm(8)", noise_floor=0.01)
    assert (quiet.anchor, quiet.contended, quiet.facts["noise_floor"]) == ("gemm(8)", False, 0.01)
    assert "contention" not in quiet.facts
    busy = session.closed("gemm(8)", "another process")
    assert (busy.contended, busy.facts["contention"]) == (True, "another process")
    assert "noise_floor" not in busy.facts


def test_a_trial_is_of_a_candidate_and_its_result() -> None:
    session = make_session()
    result = Result("complete", 5, 1e-3, 1.0, 0.9, 1.1, 1e-7, 64, "")
    trial = Trial.of(session, "p", ("f32_gemm", 3, (8,)), result)
    assert (trial.session, trial.problem, trial.kernel, trial.revision, trial.parameters) == (
        session.uuid, "p", "f32_gemm", 3, (8,),
    )  # fmt: skip
    assert (trial.status, trial.n, trial.median, trial.workspace) == ("complete", 5, 1e-3, 64)


def test_the_problem_of_a_trial_is_checked_on_demand() -> None:
    session, text = make_session(), str(Problem(n=1, c=1, h=3, w=3, o=1, kh=1, kw=1))
    make_trial(session, problem=text).check_problem()
    assert BEST_OF == "best_of-"
    make_trial(session, problem=BEST_OF + "anything").check_problem()
    with pytest.raises(RecordError, match="not a problem"):
        make_trial(session, problem="anything").check_problem()

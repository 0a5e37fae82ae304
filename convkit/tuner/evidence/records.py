"""Sessions and trials: the two records of the tuning database, and the checks that anything read must pass.

Rows and export files may come from anywhere. A record that is constructed here has the right types, bounded sizes and
finite numbers; nothing more is believed of it.
"""

from __future__ import annotations

import json
import math
import re
import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from convkit.problem import Problem
from convkit.tuner import machine as machines

# Problems of `BestOf` selectors begin with it; all others are convolutions.
BEST_OF = "best_of-"
STATUSES = ("complete", "raced out", "failed")
MAX_PARAMETERS = 6

_LONGEST_JSON = 8192

R = TypeVar("R", bound="_Record")
Check = Callable[[Any], bool]


class RecordError(ValueError):
    """A record with a wrong type, an excessive size or an impossible value."""


def _text(longest: int, shortest: int = 1) -> Check:
    return lambda value: isinstance(value, str) and shortest <= len(value) <= longest


def _matching(pattern: str) -> Check:
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _whole(least: int, below: int) -> Check:
    return lambda value: type(value) is int and least <= value < below


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_figure(value: Any) -> bool:
    return value is None or (type(value) is float and math.isfinite(value) and 0 <= value < 1e12)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and len(json.dumps(dict(value))) <= _LONGEST_JSON


def _is_parameters(value: Any) -> bool:
    within = _whole(-(2**31), 2**31)
    return type(value) is tuple and len(value) <= MAX_PARAMETERS and all(map(within, value))


def _column(check: Check, **default: Any) -> Any:
    return field(metadata={"check": check}, **default)


_UUID = _matching("[0-9a-f]{32}")
_NO_FIGURE = {"default": None}


class _Record:
    """Checks its fields, and is read from and written to a row in their order."""

    __slots__ = ()

    def __post_init__(self) -> None:
        names, checks, values_of = _COLUMNS[type(self)]
        for name, check, value in zip(names, checks, values_of(self), strict=True):
            if not check(value):
                raise RecordError(f"{type(self).__name__.lower()}.{name}: impossible value {str(value)[:80]!r}")

    def row(self) -> tuple[Any, ...]:
        """The values of the record's row."""
        _, checks, values_of = _COLUMNS[type(self)]
        pairs = zip(checks, values_of(self), strict=True)
        return tuple([_CODECS[check][0](value) if check in _CODECS else value for check, value in pairs])

    @classmethod
    def from_row(cls: type[R], row: tuple[Any, ...]) -> R:
        """The record behind a row; RecordError if it is not one."""
        pairs = zip(_COLUMNS[cls][1], row, strict=True)
        return cls(*[_CODECS[check][1](value) if check in _CODECS else value for check, value in pairs])


@dataclass(frozen=True, slots=True)
class Session(_Record):
    """One run of measurements: the circumstances that its trials share.

    Attributes
    ----------
    uuid : str
        32 hexadecimal digits; makes merging databases a set union.
    machine : str
        Key of the `MachineClass`.
    anchor : str
        The candidate to which the trials' ratios refer, as a kernel's name with its parameters in parentheses.
    contended : bool
        True if something else used the machine; such trials count only if nothing better exists.
    """

    uuid: str = _column(_UUID)
    machine: str = _column(_text(200))
    isa: str = _column(_text(40))
    threads: int = _column(_whole(1, 65537))
    affinity: str = _column(_text(40))
    started: str = _column(_matching(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"))
    anchor: str = _column(_text(300, 0), default="")
    contended: bool = _column(_is_flag, default=False)
    versions: Mapping[str, Any] = _column(_is_object, default_factory=dict)
    facts: Mapping[str, Any] = _column(_is_object, default_factory=dict)
    policy: Mapping[str, Any] = _column(_is_object, default_factory=dict)

    @classmethod
    def begin(cls, here: machines.Context, policy: Mapping[str, Any]) -> Session:
        """A new session on this machine."""
        return cls(
            uuids.uuid4().hex, str(here.machine), here.machine.isa, here.threads, here.affinity,
            f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
            versions=machines.versions(), facts=machines.facts(), policy=policy,
        )  # fmt: skip

    def closed(self, anchor: str, contention: str | None = None, noise_floor: float | None = None) -> Session:
        """The session with what is known at its end: the anchor, what showed that the machine was not ours, the floor.

        The noise floor is how much a candidate may seem to differ from itself.
        """
        found = {"contention": contention, "noise_floor": noise_floor}
        facts = {**self.facts, **{name: value for name, value in found.items() if value is not None}}
        return replace(self, anchor=anchor, contended=contention is not None, facts=facts)


class Result(NamedTuple):
    """What a measurement found out about one candidate: the figures of its trial.

    Attributes
    ----------
    n : int
        Samples taken, the warm-up not counted.
    median : float or None
        Median seconds of one run; None if the candidate failed.
    ratio, ratio_low, ratio_high : float or None
        Median of the paired ratios to the session's anchor and the interval that holds the true median.
    error : float or None
        RMS error relative to the RMS of the exact result, on normal data against float64.
    workspace : int
        Bytes.
    reason : str
        Why it failed or was raced out.
    """

    status: str
    n: int = 0
    median: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    error: float | None = None
    workspace: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trial(_Record):
    """What one candidate did on one problem within a session; `Result` explains the figures."""

    session: str = _column(_UUID)
    problem: str = _column(_text(400))
    kernel: str = _column(_matching(r"\w{1,120}"))
    revision: int = _column(_whole(0, 2**31))
    parameters: tuple[int, ...] = _column(_is_parameters)
    status: str = _column(lambda value: value in STATUSES)
    n: int = _column(_whole(0, 2**31), default=0)
    median: float | None = _column(_is_figure, **_NO_FIGURE)
    ratio: float | None = _column(_is_figure, **_NO_FIGURE)
    ratio_low: float | None = _column(_is_figure, **_NO_FIGURE)
    ratio_high: float | None = _column(_is_figure, **_NO_FIGURE)
    error: float | None = _column(_is_figure, **_NO_FIGURE)
    workspace: int = _column(_whole(0, 2**62), default=0)
    reason: str = _column(_text(400, 0), default="")

    def __post_init__(self) -> None:
        _Record.__post_init__(self)
        if self.status != "failed" and not (self.n and self.median):
            raise RecordError(f"trial.median: impossible value {str(self.median)!r}")

    @classmethod
    def of(cls, session: Session, problem: str, candidate: tuple[str, int, tuple[int, ...]], result: Result) -> Trial:
        """The trial of a candidate, given by kernel, revision and parameters."""
        kernel, revision, parameters = candidate
        return cls(session.uuid, problem, kernel, revision, parameters, *result)

    def check_problem(self) -> None:
        """RecordError if the text of the trial's problem is none."""
        if self.problem.startswith(BEST_OF):
            return
        try:
            Problem.parse(self.problem)
        except ValueError as error:
            raise RecordError(str(error)) from None


SESSION_COLUMNS = tuple(column.name for column in fields(Session))
TRIAL_COLUMNS = tuple(column.name for column in fields(Trial))
# Of each kind of record the names of its columns, their checks, and what gets their values.
_COLUMNS: dict[type[Any], tuple[tuple[str, ...], tuple[Check, ...], Callable[[Any], tuple[Any, ...]]]] = {
    record: (names, tuple(column.metadata["check"] for column in fields(record)), attrgetter(*names))
    for record, names in ((Session, SESSION_COLUMNS), (Trial, TRIAL_COLUMNS))
}


def to_line(record: Session | Trial) -> str:
    """A record as one line of an export file."""
    kind = "session" if isinstance(record, Session) else "trial"
    return json.dumps({kind: asdict(record)}, sort_keys=True, allow_nan=False)


def from_line(line: str) -> Session | Trial:
    """Read what `to_line` wrote; RecordError for anything else."""
    value = _object(line, 4 * _LONGEST_JSON)
    try:
        if set(value) == {"session"}:
            return Session(**value["session"])
        if set(value) == {"trial"}:
            return Trial(**{**value["trial"], "parameters": tuple(value["trial"].get("parameters", ()))})
    except (TypeError, AttributeError) as error:
        raise RecordError(f"not a record: {error}") from None
    raise RecordError(f"neither a session nor a trial: {line[:80]!r}")


def _object(text: Any, longest: int = _LONGEST_JSON) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > longest:
        raise RecordError(f"not JSON of at most {longest} characters: {str(text)[:80]!r}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RecordError(f"not a JSON object: {text[:80]!r}")
    return value


def _parameters(text: Any) -> Any:
    try:
        values = tuple(int(part) for part in text.split(",")) if text else ()
    except (AttributeError, ValueError):
        return text
    return values if _parameters_text(values) == text else text


def _parameters_text(parameters: tuple[int, ...]) -> str:
    return ",".join(map(str, parameters))


# How values are written to a row and read from it, by the check of their column; all others are stored as they are.
# What cannot be read stays as it is, for the check to refuse.
_CODECS: dict[Check, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    _is_flag: (int, lambda value: bool(value) if value in (0, 1) else value),
    _is_parameters: (_parameters_text, _parameters),
    _is_object: (lambda value: json.dumps(dict(value), sort_keys=True), _object),
}

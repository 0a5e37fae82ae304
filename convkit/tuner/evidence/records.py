"""Sessions and trials: the two records of the tuning database, and the checks that anything read must pass.

Rows and export files may come from anywhere. A record that is constructed here has the right types, bounded sizes and
finite numbers; nothing more is believed of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from convkit.problem import Problem

# Problems of `BestOf` selectors begin with it; all others are convolutions.
BEST_OF = "best_of-"
STATUSES = ("complete", "raced out", "failed")
MAX_PARAMETERS = 6

_UUID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_KERNEL = re.compile(r"\w{1,120}", re.ASCII)
_STARTED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
_LONGEST_JSON = 8192


class RecordError(ValueError):
    """A record with a wrong type, an excessive size or an impossible value."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of measurements: the circumstances that its trials share.

    Attributes
    ----------
    uuid : str
        32 hexadecimal digits; makes merging databases a set union.
    machine : str
        Key of the `MachineClass`.
    anchor : str
        The candidate to which the trials' ratios refer, as `anchor_text` writes it.
    contended : bool
        True where something else used the machine; such trials count only where nothing better exists.
    """

    uuid: str
    machine: str
    isa: str
    threads: int
    affinity: str
    started: str
    anchor: str = ""
    contended: bool = False
    versions: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(_matches(_UUID, self.uuid), "session.uuid", self.uuid)
        _text("session.machine", self.machine, 200)
        _text("session.isa", self.isa, 40)
        _require(type(self.threads) is int and 1 <= self.threads <= 65536, "session.threads", self.threads)
        _text("session.affinity", self.affinity, 40)
        _require(_matches(_STARTED, self.started), "session.started", self.started)
        _text("session.anchor", self.anchor, 300, empty=True)
        _require(type(self.contended) is bool, "session.contended", self.contended)
        for name in ("versions", "facts", "policy"):
            value = getattr(self, name)
            _require(isinstance(value, Mapping), f"session.{name}", value)
            _require(len(json.dumps(dict(value))) <= _LONGEST_JSON, f"session.{name}", "too long")

    def row(self) -> tuple[Any, ...]:
        """The values of the session's row, in the order of the fields."""
        return (
            self.uuid, self.machine, self.isa, self.threads, self.affinity, self.started, self.anchor,
            int(self.contended), *(json.dumps(dict(value), sort_keys=True) for value in (
                self.versions, self.facts, self.policy)),
        )  # fmt: skip

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Session:
        """The session behind a row; RecordError where it is not one."""
        uuid, machine, isa, threads, affinity, started, anchor, contended, versions, facts, policy = row
        _require(contended in (0, 1), "session.contended", contended)
        return cls(
            uuid, machine, isa, threads, affinity, started, anchor, bool(contended),
            _object(versions), _object(facts), _object(policy),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trial:
    """What one candidate did on one problem within a session.

    Attributes
    ----------
    n : int
        Samples taken, the warm-up not counted.
    median : float or None
        Median seconds of one run; None where the candidate failed.
    ratio, ratio_low, ratio_high : float or None
        Median of the paired ratios to the session's anchor and the interval that holds the true median.
    error : float or None
        RMS error relative to the RMS of the exact result, on normal data against float64.
    workspace : int
        Bytes.
    reason : str
        Why it failed or was raced out.
    """

    session: str
    problem: str
    kernel: str
    revision: int
    parameters: tuple[int, ...]
    status: str
    n: int = 0
    median: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    error: float | None = None
    workspace: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        _require(_matches(_UUID, self.session), "trial.session", self.session)
        _text("trial.problem", self.problem, 400)
        _require(_matches(_KERNEL, self.kernel), "trial.kernel", self.kernel)
        _require(type(self.revision) is int and 0 <= self.revision < 2**31, "trial.revision", self.revision)
        _require(
            type(self.parameters) is tuple
            and len(self.parameters) <= MAX_PARAMETERS
            and all(type(value) is int and -(2**31) <= value < 2**31 for value in self.parameters),
            "trial.parameters",
            self.parameters,
        )
        _require(self.status in STATUSES, "trial.status", self.status)
        _require(type(self.n) is int and 0 <= self.n < 2**31, "trial.n", self.n)
        for name in ("median", "ratio", "ratio_low", "ratio_high", "error"):
            value = getattr(self, name)
            _require(
                value is None or (type(value) is float and math.isfinite(value) and 0 <= value < 1e12),
                f"trial.{name}",
                value,
            )
        _require(type(self.workspace) is int and 0 <= self.workspace < 2**62, "trial.workspace", self.workspace)
        _text("trial.reason", self.reason, 400, empty=True)
        if self.status != "failed":
            _require(self.n > 0 and bool(self.median), "trial.median", self.median)

    def check_problem(self) -> None:
        """RecordError where the text of the trial's problem is none."""
        if self.problem.startswith(BEST_OF):
            return
        try:
            Problem.parse(self.problem)
        except ValueError as error:
            raise RecordError(str(error)) from None

    def row(self) -> tuple[Any, ...]:
        """The values of the trial's row, in the order of the fields."""
        return (
            self.session, self.problem, self.kernel, self.revision, parameters_text(self.parameters), self.status,
            self.n, self.median, self.ratio, self.ratio_low, self.ratio_high, self.error, self.workspace, self.reason,
        )  # fmt: skip

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Trial:
        """The trial behind a row; RecordError where it is not one."""
        session, problem, kernel, revision, parameters, *rest = row
        return cls(session, problem, kernel, revision, parse_parameters(parameters), *rest)


SESSION_COLUMNS = tuple(f.name for f in fields(Session))
TRIAL_COLUMNS = tuple(f.name for f in fields(Trial))


def parameters_text(parameters: tuple[int, ...]) -> str:
    """Parameters as the database stores them."""
    return ",".join(map(str, parameters))


def parse_parameters(text: Any) -> tuple[int, ...]:
    """Read what `parameters_text` wrote; RecordError for anything else."""
    _text("parameters", text, 100, empty=True)
    try:
        values = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise RecordError(f"parameters: {text!r}") from None
    _require(len(values) <= MAX_PARAMETERS and parameters_text(values) == text, "parameters", text)
    return values


def anchor_text(kernel: str, parameters: tuple[int, ...]) -> str:
    """A candidate as `Session.anchor` names it."""
    return f"{kernel}({parameters_text(parameters)})"


def to_line(record: Session | Trial) -> str:
    """A record as one line of an export file."""
    kind = "session" if isinstance(record, Session) else "trial"
    return json.dumps({kind: asdict(record)}, sort_keys=True, allow_nan=False)


def from_line(line: str) -> Session | Trial:
    """Read what `to_line` wrote; RecordError for anything else."""
    if len(line) > 4 * _LONGEST_JSON:
        raise RecordError("a line of an export file is too long")
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
    _text("JSON", text, longest)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise RecordError(f"not JSON: {text[:80]!r}") from None
    _require(isinstance(value, dict), "JSON object", text[:80])
    return dict(value)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _text(name: str, value: Any, longest: int, *, empty: bool = False) -> None:
    _require(isinstance(value, str) and len(value) <= longest and (empty or bool(value)), name, value)


def _require(condition: bool, name: str, value: Any) -> None:
    if not condition:
        raise RecordError(f"{name}: impossible value {str(value)[:80]!r}")

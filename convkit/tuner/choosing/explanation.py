"""Why this kernel: every tier that was asked, every candidate, and why the losers lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convkit.problem import Problem, of_call
from convkit.tables import aligned, bytes_text
from convkit.tuner.choosing.ranking import Ranked
from convkit.tuner.choosing.selector import Case, Choice, Selector, TierAnswer, selector
from convkit.tuner.inventory import Candidate, Constraints
from convkit.tuner.locks import planning

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from convkit.typing import (
        Accuracy,
        Activation,
        Algorithm,
        Layout,
        Op,
        Padding,
        Pair,
        Shape,
        SupportsDLPack,
    )

_COLUMNS = ("", "kernel", "parameters", "ms", "how", "ratio", "error", "workspace", "verdict")
_TEXTS = (0, 1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class ExplanationRow:
    """One candidate.

    Attributes
    ----------
    candidate : Candidate
    status : str
        "complete", "raced out", "failed", "estimated" or "predicted".
    verdict : str
        "chosen", or why it was not.
    workspace : int
        Bytes.
    seconds : float or None
        Median or prediction; None where the candidate failed.
    ratio, low, high : float or None
        Time relative to the fastest measured candidate, and its interval.
    error : float or None
        Measured RMS error relative to RMS(y).
    """

    candidate: Candidate
    status: str
    verdict: str
    workspace: int = 0
    seconds: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    error: float | None = None

    @property
    def kernel(self) -> str:
        """The kernel's full name."""
        return self.candidate.kernel.name

    @property
    def parameters(self) -> tuple[int, ...]:
        """The parameters in the order of the kernel's schema."""
        return self.candidate.parameters

    @property
    def measured(self) -> bool:
        """The candidate was run."""
        return self.status not in ("estimated", "predicted")

    def cells(self) -> tuple[str, ...]:
        """The row as the table shows it."""
        return (
            "*" if self.verdict == "chosen" else "",
            self.kernel,
            ",".join(map(str, self.parameters)),
            "" if self.seconds is None else f"{1e3 * self.seconds:.3f}",
            "measured" if self.measured else self.status,
            "" if self.ratio is None else f"{self.ratio:.3f}",
            "" if self.error is None else f"{self.error:.1e}",
            bytes_text(self.workspace),
            self.verdict,
        )

    def record(self) -> dict[str, Any]:
        """The row for JSON."""
        names = ("kernel", "parameters", "seconds", "measured", "ratio", "low", "high", "error", "workspace", "status")
        return {name: getattr(self, name) for name in (*names, "verdict")}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found. ``str()`` is a table; `choice` can be given to ``conv2d(algorithm=)``."""

    constraints: Constraints
    choice: Choice
    tiers: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    rows: tuple[ExplanationRow, ...]

    @property
    def problem(self) -> Problem:
        """What is convolved."""
        return self.choice.problem

    @property
    def threads(self) -> int:
        """Team size."""
        return self.choice.threads

    def _head(self) -> list[str]:
        limit = bytes_text(self.constraints.workspace_limit)
        lines = [
            f"problem    {self.problem}",
            f"threads    {self.threads}, accuracy {self.constraints.accuracy}, workspace at most {limit}",
            f"choice     {self.choice}",
        ]
        lines += [f"{'tiers' if not i else '':10} {name}: {outcome}" for i, (name, outcome) in enumerate(self.tiers)]
        if self.missing:
            lines.append(f"stale      not measured yet: {', '.join(self.missing)}")
        return lines

    def __str__(self) -> str:
        return "\n".join([*self._head(), *aligned([_COLUMNS, *(row.cells() for row in self.rows)], _TEXTS)])

    __repr__ = __str__

    def __rich__(self) -> Any:
        """The table for rich."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(*_COLUMNS[1:], title=f"{self.problem}")
        for row in self.rows:
            table.add_row(*row.cells()[1:], style="bold green" if row.verdict == "chosen" else None)
        return Group(Text("\n".join(self._head())), table)

    def to_json(self) -> str:
        """Everything as one JSON object."""
        choice = self.choice
        names = ("kernel", "family", "parameters", "tier", "seconds", "measured", "error", "workspace", "stale")
        value = {
            "problem": str(self.problem),
            "threads": self.threads,
            "accuracy": self.constraints.accuracy,
            "workspace_limit": self.constraints.workspace_limit,
            "choice": {
                "problem": str(self.problem), "threads": self.threads, "epilogue": choice.epilogue,
                **{name: getattr(choice, name) for name in names},
            },
            "tiers": dict(self.tiers),
            "missing": list(self.missing),
            "rows": [row.record() for row in self.rows],
        }  # fmt: skip
        return json.dumps(value, indent=1)


def explain(
    x: SupportsDLPack | Shape,
    w: SupportsDLPack | Shape,
    bias: SupportsDLPack | Shape | bool | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
    activation: Activation | None = None,
    residual: SupportsDLPack | Shape | bool | None = None,
    out: SupportsDLPack | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
    dtype: DTypeLike | None = None,
    packed: bool = False,
    op: Op = "forward",
) -> Explanation:
    """Explain which kernel `conv2d` or one of its gradients would run for these arguments, and why.

    Nothing is timed and nothing is run.

    Parameters
    ----------
    x, w : array or tuple of int
        Arrays, or shapes; then `dtype` says the element type.
    bias : array, tuple of int or bool, optional
        As for `conv2d`; beside shapes it is enough to say whether there is one.
    stride, padding, dilation, groups, layout, activation : optional
        As for `conv2d`.
    residual : array, tuple of int or bool, optional
        As `bias`.
    out, algorithm, num_threads, accuracy, workspace_limit : optional
        As for `conv2d`.
    dtype : dtype, optional
        Element type of the shapes, float32 if it is left out.
    packed : bool
        True explains what `Conv2d` would run: its weights are packed beforehand.
    op : {"forward", "input_grad", "weight_grad"}
        The gradients of ``conv2d(x, w, ...)`` by `convkit.grad.conv2d_input` (which `conv_transpose2d` is, too, with w
        as it takes it) and by `convkit.grad.conv2d_weight`. They take no bias, activation, residual or out here.

    Returns
    -------
    Explanation
        Its text is a table; its `choice` may be given to `conv2d` as `algorithm`.
    """
    extras = {"bias": bias, "activation": activation, "residual": residual, "out": out}
    surplus = [name for name, value in extras.items() if value is not None]
    if op != "forward" and surplus:
        raise ValueError(f"{surplus[0]} must be None where op is {op!r}")
    problem, threads = of_call(
        x, w, bias, stride, padding, dilation, groups, layout=layout, activation=activation, residual=residual, out=out,
        num_threads=num_threads, dtype=dtype, packed=packed, op=op,
    )  # fmt: skip
    return explain_problem(problem, threads, algorithm=algorithm, accuracy=accuracy, workspace_limit=workspace_limit)


def explain_problem(
    problem: Problem,
    threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
    *,
    algorithm: Algorithm | None = None,
    choosing: Selector | None = None,
) -> Explanation:
    """Like `explain`, for a `Problem`."""
    if threads is None:
        from convkit import _core

        threads = _core.default_threads()
    with planning:
        case = (choosing or selector()).on(problem, threads)
        constraints = case.task.constraints(accuracy, workspace_limit)
        choice = case.choose(constraints, algorithm)
        answering = next((a for a in case.answers if a.tier == choice.tier and a.ranking.ranked), None)
        rows = [] if answering is None else list(_measured_rows(answering, constraints, choice))
        rows += _estimated_rows(case, constraints, choice) if choice.tier == "neighbour" else []
        rows += _predicted_rows(case, constraints, choice, {row.kernel for row in rows})
        missing = answering.ranking.missing if answering is not None else ()
        return Explanation(constraints, choice, tuple(_tier_lines(case, choice)), missing, tuple(rows))


def _tier_lines(case: Case, choice: Choice) -> Iterator[tuple[str, str]]:
    for answer in case.answers:
        rows = answer.ranking.ranked
        epilogues = ", ".join(sorted({row.epilogue for row in rows}))
        what = f"{len(rows)} candidates measured with {epilogues}" if rows else "nothing"
        yield answer.tier, f"{what} ({answer.outcome}){', answered' if answer.tier == choice.tier else ''}"
    if choice.tier in ("neighbour", "model"):
        nearby = "; ".join(f"{near.distance:.2f} doublings away {near.task}" for near in case.neighbours)
        answered = ", answered" if choice.tier == "neighbour" else ""
        yield "neighbour", (nearby or "none near enough") + answered
    yield "model", "answered" if choice.tier == "model" else "not asked"


def _measured_rows(answer: TierAnswer, constraints: Constraints, choice: Choice) -> Iterator[ExplanationRow]:
    ties = {row.candidate for row in answer.ranking.ties(constraints)}
    for row in answer.ranking.ranked:
        loss = constraints.refusal(row.candidate, row.workspace, row.error) or _loss(row, row.candidate in ties, choice)
        verdict = "chosen" if row.candidate == choice.candidate else loss
        yield ExplanationRow(
            row.candidate, row.status, verdict, row.workspace, row.seconds, row.ratio, row.low, row.high, row.error
        )
    for candidate, reason in answer.ranking.failed:
        yield ExplanationRow(candidate, "failed", reason)


def _loss(ranked: Ranked, tied: bool, choice: Choice) -> str:
    doubts = [text for flag, text in ((ranked.outdated, "older revision"), (ranked.doubtful, "contended")) if flag]
    suffix = f" ({', '.join(doubts)})" if doubts else ""
    if tied:
        return f"tied; {choice.kernel} is more exact, smaller or listed first{suffix}"
    return f"{'raced out, ' if ranked.status == 'raced out' else ''}{ranked.ratio:.2f} times the fastest{suffix}"


def _estimated_rows(case: Case, constraints: Constraints, choice: Choice) -> Iterator[ExplanationRow]:
    found = case.estimates()
    for candidate, seconds, error in found:
        workspace = case.task.workspace(candidate)
        ratio = seconds / found[0].seconds
        loss = constraints.refusal(candidate, workspace, error) or f"{ratio:.2f} times the fastest estimate"
        verdict = "chosen" if candidate == choice.candidate else loss
        yield ExplanationRow(candidate, "estimated", verdict, workspace, seconds, ratio, error=error)


def _predicted_rows(case: Case, constraints: Constraints, choice: Choice, known: set[str]) -> Iterator[ExplanationRow]:
    kernels = [kernel for kernel in case.task.competitors if kernel.name not in known]
    for seconds, candidate in case.predicted(kernels):
        workspace = case.task.workspace(candidate)
        loss = constraints.refusal(candidate, workspace, None) or ("not measured" if known else "predicted slower")
        verdict = "chosen" if candidate == choice.candidate else loss
        yield ExplanationRow(candidate, "predicted", verdict, workspace, seconds)

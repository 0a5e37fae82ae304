"""Why this kernel: every tier that was asked, every candidate, and why the losers lost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convkit.problem import Problem, of_call
from convkit.tuner.choosing.neighbours import Neighbour
from convkit.tuner.choosing.ranking import Ranked
from convkit.tuner.choosing.selector import Choice, Constraints, Selector, TierAnswer, selector
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


@dataclass(frozen=True, slots=True)
class ExplanationRow:
    """One candidate.

    Attributes
    ----------
    seconds : float or None
        Median or prediction; None where the candidate failed.
    measured : bool
    ratio, low, high : float or None
        Time relative to the fastest measured candidate, and its interval.
    error : float or None
        Measured RMS error relative to RMS(y).
    workspace : int
        Bytes.
    status : str
        "complete", "raced out", "failed", "estimated" or "predicted".
    verdict : str
        "chosen", or why it was not.
    """

    kernel: str
    parameters: tuple[int, ...]
    seconds: float | None
    measured: bool
    ratio: float | None
    low: float | None
    high: float | None
    error: float | None
    workspace: int
    status: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found. ``str()`` is a table; `choice` can be given to ``conv2d(algorithm=)``."""

    problem: Problem
    threads: int
    accuracy: str | float
    workspace_limit: int
    choice: Choice
    tiers: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    rows: tuple[ExplanationRow, ...]

    def __str__(self) -> str:
        lines = [
            f"problem    {self.problem}",
            f"threads    {self.threads}, accuracy {self.accuracy}, workspace at most {_bytes(self.workspace_limit)}",
            f"choice     {self.choice}",
        ]
        lines += [f"{'tiers' if not i else '':10} {name}: {outcome}" for i, (name, outcome) in enumerate(self.tiers)]
        if self.missing:
            lines.append(f"stale      not measured yet: {', '.join(self.missing)}")
        cells = [_COLUMNS, *map(self._cells, self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
        for row in cells:
            text = "  ".join(
                cell.rjust(width) if 3 <= column <= 7 and column != 4 else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append(text.rstrip())
        return "\n".join(lines)

    __repr__ = __str__

    def _cells(self, row: ExplanationRow) -> tuple[str, ...]:
        return (
            "*" if row.verdict == "chosen" else "",
            row.kernel,
            ",".join(map(str, row.parameters)),
            "" if row.seconds is None else f"{1e3 * row.seconds:.3f}",
            "measured" if row.measured else row.status,
            "" if row.ratio is None else f"{row.ratio:.3f}",
            "" if row.error is None else f"{row.error:.1e}",
            _bytes(row.workspace),
            row.verdict,
        )

    def __rich__(self) -> Any:
        """The table for rich."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        head = str(self).splitlines()
        table = Table(*_COLUMNS[1:], title=f"{self.problem}")
        for row in self.rows:
            table.add_row(*self._cells(row)[1:], style="bold green" if row.verdict == "chosen" else None)
        return Group(Text("\n".join(head[: -len(self.rows) - 1])), table)

    def to_json(self) -> str:
        """Everything as one JSON object."""
        value = {
            "problem": str(self.problem),
            "threads": self.threads,
            "accuracy": self.accuracy,
            "workspace_limit": self.workspace_limit,
            "choice": {**self.choice._asdict(), "problem": str(self.problem)},
            "tiers": dict(self.tiers),
            "missing": list(self.missing),
            "rows": [asdict(row) for row in self.rows],
        }
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
    accuracy: Any = None,
    workspace_limit: int | None = None,
    *,
    algorithm: Any = None,
    choosing: Selector | None = None,
) -> Explanation:
    """Like `explain`, for a `Problem`."""
    if threads is None:
        from convkit import _core

        threads = _core.default_threads()
    with planning:
        return _explain(problem, threads, accuracy, workspace_limit, algorithm, choosing or selector())


def _explain(
    problem: Problem, threads: int, accuracy: Any, workspace_limit: Any, algorithm: Any, choosing: Selector
) -> Explanation:
    constraints = Constraints.of_call(choosing.inventory, problem, accuracy, workspace_limit)
    choice = choosing.choose(problem, threads, algorithm=algorithm, accuracy=accuracy, workspace_limit=workspace_limit)
    answers = choosing.answers(problem, threads)
    answering = next((a for a in answers if a.tier == choice.tier and a.ranking.ranked), None)
    rows = [] if answering is None else _measured_rows(answering, problem, constraints, choice)
    near = choosing.neighbours(problem, threads) if choice.tier in ("neighbour", "model") else []
    if choice.tier == "neighbour":
        rows += _estimated_rows(choosing, problem, threads, constraints, choice)
    rows += _predicted_rows(choosing, problem, threads, constraints, choice, {row.kernel for row in rows})
    return Explanation(
        problem,
        threads,
        constraints.accuracy,
        constraints.workspace_limit,
        choice,
        tuple(_tier_lines(answers, near, choice)),
        answering.ranking.missing if answering is not None else (),
        tuple(rows),
    )


def _tier_lines(answers: list[TierAnswer], near: list[Neighbour], choice: Choice) -> list[tuple[str, str]]:
    lines = []
    for answer in answers:
        count = len(answer.ranking.ranked)
        what = f"{count} candidates" if count else "nothing"
        lines.append((answer.tier, f"{what} ({answer.outcome}){', answered' if answer.tier == choice.tier else ''}"))
    if choice.tier in ("neighbour", "model"):
        nearby = "; ".join(f"{n.distance:.2f} doublings away {n.problem} with {n.threads} threads" for n in near)
        answered = ", answered" if choice.tier == "neighbour" else ""
        lines.append(("neighbour", (nearby or "none near enough") + answered))
    lines.append(("model", "answered" if choice.tier == "model" else "not asked"))
    return lines


def _measured_rows(
    answer: TierAnswer, problem: Problem, constraints: Constraints, choice: Choice
) -> list[ExplanationRow]:
    allowed = {
        row.candidate: constraints.refusal(row.candidate, problem, row.workspace, row.error)
        for row in answer.ranking.ranked
    }
    ties = {
        row.candidate for row in answer.ranking.tie_set([r for r in answer.ranking.ranked if not allowed[r.candidate]])
    }
    rows = []
    for ranked in answer.ranking.ranked:
        candidate = ranked.candidate
        is_choice = (candidate.kernel.name, candidate.parameters) == (choice.kernel, choice.parameters)
        verdict = "chosen" if is_choice else allowed[candidate] or _loss(ranked, candidate in ties, choice)
        rows.append(
            ExplanationRow(
                candidate.kernel.name,
                candidate.parameters,
                ranked.seconds,
                True,
                ranked.ratio,
                ranked.low,
                ranked.high,
                ranked.error,
                ranked.workspace,
                ranked.status,
                verdict,
            )
        )
    for candidate, reason in answer.ranking.failed:
        rows.append(
            ExplanationRow(
                candidate.kernel.name, candidate.parameters, None, True, None, None, None, None, 0, "failed", reason
            )
        )
    return rows


def _loss(ranked: Ranked, tied: bool, choice: Choice) -> str:
    doubts = [text for flag, text in ((ranked.outdated, "older revision"), (ranked.doubtful, "contended")) if flag]
    suffix = f" ({', '.join(doubts)})" if doubts else ""
    if tied:
        return f"tied; {choice.kernel} is more exact, smaller or listed first{suffix}"
    return f"{'raced out, ' if ranked.status == 'raced out' else ''}{ranked.ratio:.2f} times the fastest{suffix}"


def _estimated_rows(
    choosing: Selector, problem: Problem, threads: int, constraints: Constraints, choice: Choice
) -> list[ExplanationRow]:
    rows = []
    found = choosing.estimates(problem, threads)
    for estimate in found:
        candidate = estimate.candidate
        workspace = choosing.inventory.workspace(candidate, problem, threads)
        is_choice = (candidate.kernel.name, candidate.parameters) == (choice.kernel, choice.parameters)
        ratio = estimate.seconds / found[0].seconds
        reason = constraints.refusal(candidate, problem, workspace, estimate.error)
        verdict = "chosen" if is_choice else reason or f"{ratio:.2f} times the fastest estimate"
        rows.append(
            ExplanationRow(
                candidate.kernel.name,
                candidate.parameters,
                estimate.seconds,
                False,
                ratio,
                None,
                None,
                estimate.error,
                workspace,
                "estimated",
                verdict,
            )
        )
    return rows


def _predicted_rows(
    choosing: Selector, problem: Problem, threads: int, constraints: Constraints, choice: Choice, known: set[str]
) -> list[ExplanationRow]:
    kernels = [k for k in choosing.inventory.competitors(problem) if k.name not in known]
    rows = []
    for seconds, candidate in choosing.predicted(problem, threads, kernels):
        workspace = choosing.inventory.workspace(candidate, problem, threads)
        is_choice = (candidate.kernel.name, candidate.parameters) == (choice.kernel, choice.parameters)
        reason = constraints.refusal(candidate, problem, workspace, None)
        verdict = "chosen" if is_choice else reason or ("predicted slower" if not known else "not measured")
        rows.append(
            ExplanationRow(
                candidate.kernel.name,
                candidate.parameters,
                seconds,
                False,
                None,
                None,
                None,
                None,
                workspace,
                "predicted",
                verdict,
            )
        )
    return rows


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"

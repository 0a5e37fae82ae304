"""``convkit tune``: measure the kernels for shapes that matter, with everything kept whenever it is stopped."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from convkit.commands import arguments
from convkit.commands.failing import CommandError
from convkit.commands.terminal import console, error_console
from convkit.commands.watching import Watch
from convkit.problem import DTYPES, LAYOUTS, Problem
from convkit.tables import threads_text, time_text

if TYPE_CHECKING:
    from convkit.tuner import Choice
    from convkit.tuner.choosing.selector import Case

__all__ = ["CALLS", "Job", "Tally", "tune", "tune_all"]

CALLS = ("forward", "input", "weight")
# Seconds: less than a few samples are no measurement, and every problem gets some of them.
_LEAST = 0.01
_SHARE = 0.05
# Seconds in which to learn how near the CPUs of a team can be, and the share of the time that may go in waiting until
# they are so again, for what is measured once more.
_LEARNING = 1.0
_WAITING = 0.1


@dataclass(frozen=True)
class Job:
    """One problem at one team size."""

    label: str
    problem: Problem
    threads: int


@dataclass
class Tally:
    """What became of the jobs."""

    measured: int = 0
    reused: int = 0
    failed: int = 0
    pending: int = 0
    again: int = 0
    regrets: list[float] = field(default_factory=list)
    gains: dict[Job, tuple[float, float]] = field(default_factory=dict)
    noisy: dict[Job, str] = field(default_factory=dict)

    @property
    def slower(self) -> float | None:
        """How many times slower the cost model's choices are on average; None if nothing tells."""
        return math.exp(sum(map(math.log, self.regrets)) / len(self.regrets)) if self.regrets else None

    @property
    def faster(self) -> float | None:
        """How many times faster one run of every measured problem is than it was before; None if nothing tells."""
        before, after = (sum(times) for times in zip(*self.gains.values(), strict=True)) if self.gains else (0.0, 0.0)
        return before / after if after else None

    def to_json(self) -> str:
        """One line of JSON."""
        counts = {name: getattr(self, name) for name in ("measured", "reused", "failed", "pending", "again")}
        noisy = {_named(job): why for job, why in self.noisy.items()}
        return dumps({**counts, "faster": self.faster, "cost_model_slower": self.slower, "noisy": noisy})

    def text(self) -> str:
        """A line of counts, what it was worth, and what is still in doubt."""
        parts = [f"{self.measured} measured", f"{self.reused} reused", f"{self.failed} failed"]
        if self.again:
            parts.append(f"{self.again} of them twice, on a busy machine or for want of samples")
        if self.pending:
            parts.append(f"{self.pending} not reached")
        if self.slower is not None:
            parts.append(f"the cost model alone would be {100 * (self.slower - 1):.1f} % slower")
        lines = [", ".join(parts)]
        if self.faster is not None:
            better = sum(before > after for before, after in self.gains.values())
            lines.append(
                f"against what ran before, by samples taken in turns: {self.faster:.3f} times as fast, "
                f"{better} of {len(self.gains)} problems faster"
            )
        if self.noisy:
            lines.append("in doubt; convkit tune --stale on an idle machine, with more time, settles it:")
            lines += [f"  {_named(job)}: {why}" for job, why in self.noisy.items()]
        return "\n".join(lines)


def tune(
    context: typer.Context,
    network: Annotated[str, typer.Option(help="Networks, separated by commas.")] = "",
    shapes: Annotated[
        Path | None, typer.Option(help="A file of shapes, one a line.", exists=True, dir_okay=False)
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1",
    threads: Annotated[str, typer.Option(help="Team sizes; empty: what a call would use.")] = "",
    layout: Annotated[str, typer.Option(help="NCHW, NHWC or both.")] = "NCHW,NHWC",
    dtype: Annotated[str, typer.Option(help="float32, float64 or both.")] = "float32",
    op: Annotated[str, typer.Option(help="forward, input, weight: the call and its gradients.")] = "forward",
    weights: Annotated[str, typer.Option(help="packed (Conv2d), cold (conv2d) or both.")] = "packed",
    activation: Annotated[str, typer.Option(help="relu, none or both: fused into the layers or not.")] = "relu",
    budget: Annotated[str, typer.Option(help="Time for all of it, such as 10m; empty: until all is settled.")] = "",
    per_shape: Annotated[str, typer.Option(help="Time for each problem; empty: about a second.")] = "",
    stale: Annotated[bool, typer.Option("--stale", help="What an upgrade or a busy machine left to measure.")] = False,
    from_misses: Annotated[
        Path | None,
        typer.Option(help="A log written with CONVKIT_VERBOSE=1: what it had to predict.", exists=True, dir_okay=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--again", help="Leave out what the database answers, or measure it again.")
    ] = True,
    shard: Annotated[str, typer.Option(help="Which share of the work is this machine's: 2/8.")] = "",
    dask: Annotated[str, typer.Option(help="Address of a dask.distributed scheduler whose workers measure.")] = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead: a line for each problem, and one for all of them.")
    ] = False,
) -> None:
    """Measure the kernels for a network's layers or a file of shapes, and remember the outcome.

    What the database already answers is not measured again. Ctrl-C keeps everything measured so far.
    """
    if not network and shapes is None and not stale and from_misses is None:
        raise typer.BadParameter("name a --network, a file of --shapes, --stale or --from-misses")
    if not network:
        idle = ("batch", "layout", "dtype", "op", "weights", "activation")
        arguments.refuse_idle(context, idle, "without --network there is nothing to vary")
        if shapes is None:
            arguments.refuse_idle(context, ("threads",), "what is listed comes with its team sizes")
    elif "forward" not in arguments.words(op, CALLS, "--op"):
        arguments.refuse_idle(context, ("weights", "activation"), "gradients have no epilogue and pack nothing")
    if dask:
        arguments.refuse_idle(context, ("budget", "resume"), "workers are given a time --per-shape and measure it all")
    teams = arguments.teams(threads, elsewhere=bool(dask))
    labelled: dict[Problem, str] = {}
    if shapes is not None:
        labelled.update((problem, _label(problem)) for problem in arguments.shapes_file(shapes))
    for table in arguments.network_list(network) if network else ():
        for size in arguments.counts(batch, "--batch"):
            for layer in table.unique():
                for problem in _variants(layer.problem(size, bias=layer.bias), layout, dtype, op, weights, activation):
                    labelled.setdefault(problem, f"{table.name} {layer.name} {_label(problem)}")
    jobs = [Job(label, problem, count) for problem, label in labelled.items() for count in teams]
    jobs += _listed(stale, from_misses)
    jobs = _share(list(dict.fromkeys(jobs)), shard)
    each = arguments.duration(per_shape, "--per-shape", _LEAST) if per_shape else None
    whole = _whole(budget, jobs, not resume)
    if jobs:
        _try_database()
    if dask:
        _tune_with_dask(dask, jobs, each, json)
        return
    tally = tune_all(jobs, whole, each=each, again=not resume, json=json, shown=error_console if json else console)
    if json:
        print(tally.to_json())
    else:
        console.print(tally.text())
    _write_the_rest()
    if tally.pending:
        raise typer.Exit(130)
    if tally.failed and not tally.measured and not tally.reused:
        raise typer.Exit(1)


def _whole(budget: str, jobs: Sequence[Job], again: bool) -> float | None:
    """Seconds of --budget, enough for every job that is to be measured."""
    if not budget:
        return None
    from convkit.tuner import is_complete

    count = sum(again or not is_complete(job.problem, job.threads) for job in jobs)
    return arguments.duration(budget, "--budget", _SHARE * max(count, 1), f", {_SHARE:g} s a problem")


def _try_database() -> None:
    """Raise if nobody would remember what is measured."""
    from convkit.tuner.evidence.database import DatabaseError, open_user
    from convkit.tuner.evidence.paths import is_default, paths

    try:
        open_user(create=True, write_wait=0.05)
    except DatabaseError as error:
        # Locks go away, and a damaged file in convkit's own place is moved aside by the first who writes.
        if error.cause != "busy" and not (error.cause == "damaged" and is_default(Path(paths().user or ""))):
            raise


def _write_the_rest() -> None:
    """Write what a locked database has not taken so far; trials that it does not take now are lost."""
    from convkit.tuner.choosing.selector import selector

    user = selector().user
    user.flush()
    if user.unwritten:
        raise CommandError(f"{user.unwritten} trials are lost: the database could not be written; the log says why")


def _listed(stale: bool, from_misses: Path | None) -> list[Job]:
    """Problems that the database or a log names, with their team sizes."""
    from convkit.report.summary import measured_cases, missed_problems, stale_cases

    cases = stale_cases(measured_cases()) if stale else []
    found = [(case.task.problem, case.task.threads) for case in cases]
    if from_misses is not None:
        found += missed_problems(from_misses.read_text(errors="replace"))
    return [Job(_label(problem), problem, threads) for problem, threads in found]


def _tune_with_dask(address: str, jobs: Sequence[Job], each: float | None, json: bool) -> None:
    from convkit.fleet import tune_with_dask

    with Watch("shards", None, error_console if json else console) as watch:

        def home(done: int, total: int, text: str) -> None:
            watch.expect(total)
            watch.advance()
            watch.now(f"{done} of {total} shards, {text}")

        try:
            found = tune_with_dask(address, [(job.problem, job.threads) for job in jobs], budget=each, progress=home)
        except (ImportError, OSError, ValueError) as error:
            raise CommandError(f"--dask {address}: {error}") from None
    if json:
        print(dumps(asdict(found)))
        return
    for reason in found.failed:
        console.print(f"failed: {reason}", style="red", highlight=False, markup=False)
    console.print(f"{found.trials} trials in {found.sessions} sessions from {len(found.machines)} machine classes")


def tune_all(
    jobs: Sequence[Job],
    budget: float | None = None,
    any_answer: bool = False,
    *,
    each: float | None = None,
    again: bool = False,
    json: bool = False,
    shown: Console = console,
) -> Tally:
    """Tune every job that the database does not answer yet, under a progress bar.

    What a busy machine disturbed is measured once more after all others, unless the time is limited. While the CPUs of
    a team are apart, one thread's work goes first.

    Parameters
    ----------
    jobs : sequence of Job
    budget : float, optional
        Seconds for all of them.
    any_answer : bool
        Be content with any answer of the user's database, also one from a busy machine or from before an upgrade.
    each : float, optional
        Seconds for each of them.
    again : bool
        Measure also what the database answers.
    json : bool
        Print a line of JSON for each job.
    shown : Console
        Where people read.

    Returns
    -------
    Tally
        With `pending` jobs if it was interrupted: what was measured is kept.
    """
    from convkit import tuner
    from convkit.tuner.choosing.selector import selector

    tally = Tally()
    waiting = deque(jobs)
    untuned: dict[Job, Choice] = {}
    busy: set[Job] = set()
    patient = budget is None and each is None and not any_answer
    deadline = math.inf if budget is None else time.monotonic() + budget

    def tell(watch: Watch, job: Job, source: str, text: str, style: str, **facts: object) -> None:
        watch.tell(Text.assemble((f"{source:8}", style), f"  {_named(job)}: {text}"))
        if json:
            line = {"problem": str(job.problem), "label": job.label, "threads": job.threads, "outcome": source}
            print(dumps({**line, **facts}), flush=True)
        watch.advance()

    begin = time.monotonic()
    waited = 0.0
    with Watch("problems", len(jobs), shown, parts=True) as watch:
        try:
            while waiting:
                job = _turn(waiting)
                if job in busy:
                    waited += _wait(job.threads, _WAITING * (time.monotonic() - begin) - waited, until=False)
                case = selector().on(job.problem, job.threads)
                before = untuned.setdefault(job, case.choose())
                known = tuner.is_complete(job.problem, job.threads) or (any_answer and bool(case.own.ranked))
                choice, source = case.choose(), "database"
                if again or not known:
                    if patient and job.threads > 1 and not waited:
                        waited = _wait(job.threads, _LEARNING, until=True)
                    left = max(_SHARE, (deadline - time.monotonic()) / (len(waiting) + 1))
                    share = each if deadline == math.inf else min(left, each or left)
                    try:
                        choice, case = _measure(job, share, watch)
                    except (ValueError, MemoryError) as error:
                        tally.failed += 1
                        tell(watch, job, "failed", str(error), "red", reason=str(error))
                        continue
                    source = "measured"
                    tally.again += job in busy
                    tally.measured += job not in busy
                    if patient and job not in busy and not tuner.is_complete(job.problem, job.threads):
                        source = "busy"
                        busy.add(job)
                        waiting.append(job)
                        watch.expect(len(jobs) + len(busy))
                    else:
                        _judge(tally, job, case, before, choice)
                else:
                    tally.reused += 1
                facts = {"kernel": choice.kernel, "parameters": choice.parameters, "seconds": choice.seconds}
                tell(watch, job, source, f"{choice.kernel} {time_text(choice.seconds)}", "green", **facts)
        except KeyboardInterrupt:
            tally.pending = len(waiting) + 1
            watch.tell("stopped; what was measured is kept")
    return tally


def _turn(waiting: deque[Job]) -> Job:
    """Take the next job. If its team is apart now, one for a single thread is as well measured."""
    from convkit.tuner.measuring.contention import team_apart

    job = waiting[0]
    if job.threads > 1 and team_apart(job.threads):
        job = next((other for other in waiting if other.threads == 1), job)
    waiting.remove(job)
    return job


def _wait(threads: int, most: float, *, until: bool) -> float:
    """Wait until a team is apart, or no longer is; the seconds that it took, `most` at most."""
    from convkit.tuner.measuring.contention import team_apart

    begin = time.monotonic()
    while threads > 1 and (spent := time.monotonic() - begin) < most and team_apart(threads) is not until:
        time.sleep(min(0.02, most - spent))
    return time.monotonic() - begin


def _measure(job: Job, budget: float | None, watch: Watch) -> tuple[Choice, Case]:
    """What results, and what is known then. Raises ValueError if every candidate fails, and tells of some that do."""
    from convkit import tuner
    from convkit.tuner.choosing.selector import selector

    choice = tuner.tune_problem(job.problem, job.threads, budget=budget, progress=watch.within)
    case = selector().on(job.problem, job.threads)
    reasons = [f"{row.candidate}: {row.verdict}" for row in case.own.failed]
    if reasons and not case.own.ranked:
        raise ValueError("; ".join(reasons))
    for reason in reasons:
        watch.tell(f"{_named(job)}: left out {reason}")
    return choice, case


def _judge(tally: Tally, job: Job, case: Case, before: Choice, choice: Choice) -> None:
    """Compare the choice with what ran before and with the cost model's, and say why it may not be the last word."""
    predicted = case.model_choice()
    times = {row.candidate: row.ratio for row in case.own.ranked}
    if choice.candidate in times:
        if predicted.candidate in times:
            tally.regrets.append(max(1.0, times[predicted.candidate] / times[choice.candidate]))
        if before.candidate in times:
            old = choice.seconds * times[before.candidate] / times[choice.candidate]
            tally.gains[job] = old, choice.seconds
    chosen = next((row for row in case.own.ranked if row.candidate == choice.candidate), None)
    if chosen is None or chosen.samples < 3:
        tally.noisy[job] = "there was time for a first look only"
    elif chosen.doubtful:
        tally.noisy[job] = "the machine was busy with something else"
    elif case.own.untried:
        tally.noisy[job] = f"no time for {len(case.own.untried)} of {len(case.task.competitors)} kernels"


def _named(job: Job) -> str:
    return f"{job.label}, {threads_text(job.threads)}"


def _variants(problem: Problem, layout: str, dtype: str, op: str, weights: str, activation: str) -> Iterable[Problem]:
    epilogues = {"relu": "clamp", "none": "none"}
    for call, order, kind, packed, fused in product(
        arguments.words(op, CALLS, "--op"),
        arguments.words(layout.upper(), LAYOUTS, "--layout"),
        arguments.words(dtype, DTYPES, "--dtype"),
        arguments.words(weights, ("packed", "cold"), "--weights"),
        arguments.words(activation, tuple(epilogues), "--activation"),
    ):
        varied = problem.replace(layout=order, dtype=kind)
        if call != "forward":
            # convkit.grad's functions are given other weights at every step of a training.
            yield varied.of_op(call).replace(packed=False)
        elif problem.op != "forward":
            yield varied.replace(bias=False, packed=packed == "packed")
        else:
            yield varied.replace(epilogue=epilogues[fused], packed=packed == "packed")


def _share(jobs: list[Job], shard: str) -> list[Job]:
    if not shard:
        return jobs
    index, slash, count = shard.partition("/")
    if not slash or not index.isdecimal() or not count.isdecimal() or not 1 <= int(index) <= int(count):
        raise typer.BadParameter(f"{shard!r} is not of the form 2/8", param_hint="'--shard'")
    return jobs[int(index) - 1 :: int(count)]


def _label(problem: Problem) -> str:
    p = problem
    stride = f"s{p.stride_h}" if p.stride_h == p.stride_w else f"s{p.stride_h}x{p.stride_w}"
    grouped = "" if p.groups == 1 else f" g{p.groups}"
    op = {"forward": "", "input_grad": " dx", "weight_grad": " dw"}[p.op]
    return f"{p.n}x{p.c}@{p.h}x{p.w} {p.o}x{p.kh}x{p.kw} {stride}{grouped} {p.layout}{op}"

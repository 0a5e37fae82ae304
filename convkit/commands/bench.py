"""``convkit bench``: convkit beside its single kernels and other libraries, on your layers, on your machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

from convkit.commands import arguments
from convkit.commands.terminal import console
from convkit.commands.tune import OPS, Job, gradient, tune_all
from convkit.contest import limits
from convkit.contest.contestants import PEERS, Array, Contestant, Operands, convkit_contestant, installed, peer
from convkit.contest.results import Report, Row, by_layer
from convkit.contest.training import Pass, pass_problems, torch_pass, training_contestant
from convkit.contest.turns import race
from convkit.distribution import install_line
from convkit.networks import Network
from convkit.problem import LAYOUTS, Problem
from convkit.tables import threads_text

__all__ = ["bench"]

_TOO_WRONG = 1e-3
# What a program would use for every layer if it could not choose.
_STATIC = "direct,im2col,conv_gemm,winograd2,winograd4"
_STATIC_TRAINING = f"columns,{_STATIC}"


def bench(
    context: typer.Context,
    network: Annotated[str, typer.Option(help="Networks, separated by commas.")] = "",
    shapes: Annotated[
        Path | None, typer.Option(help="A file of shapes, one a line.", exists=True, dir_okay=False)
    ] = None,
    layer: Annotated[str, typer.Option(help="Only layers whose name contains this.")] = "",
    batch: Annotated[int, typer.Option(help="Batch size.", min=1)] = 1,
    threads: Annotated[str, typer.Option(help="Team sizes; empty: what a call would use.")] = "",
    layout: Annotated[str, typer.Option(help="NCHW, NHWC or both.")] = "NCHW",
    op: Annotated[str, typer.Option(help="forward, input, weight, or training: all three in turn.")] = "forward",
    kernels: Annotated[str, typer.Option(help="selected, all, or algorithms separated by commas.")] = "selected",
    against: Annotated[str, typer.Option(help=f"Peers: {', '.join(PEERS)}, installed, or none.")] = "numpy",
    accuracy: Annotated[str, typer.Option(help="strict, standard or fast; empty: the default.")] = "",
    seconds: Annotated[float, typer.Option(help="Time for each contestant and layer.")] = 0.3,
    tuning: Annotated[bool, typer.Option("--tune/--no-tune", help="Measure layers that the database lacks.")] = True,
    json: Annotated[Path | None, typer.Option(help="Save the rows as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Save the rows as a table.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Save the pictures; their names begin with this one.")] = None,
    table: Annotated[
        str, typer.Option(help='"layers", or "bestof": every algorithm against the selection.')
    ] = "layers",
) -> None:
    """Time layers with convkit and with other libraries, in turns, in one process, and check every result."""
    if table not in ("layers", "bestof"):
        raise typer.BadParameter(f"--table {table!r} is neither layers nor bestof")
    teams = arguments.teams(threads)
    layers = _layers(network, shapes, layer, batch, layout, op)
    if not layers:
        raise typer.BadParameter("name a --network or a file of --shapes with at least one layer")
    peers = _peers(against)
    algorithms = kernels
    if table == "bestof" and kernels == "selected":
        algorithms = _STATIC_TRAINING if op == "training" else _STATIC
    if tuning:
        jobs = [
            Job(f"{net} {name}", part, team)
            for net, name, _, problem in layers
            for part in (pass_problems(problem) if op == "training" else (problem,))
            for team in teams
        ]
        if tune_all(jobs, any_answer=True).pending:
            raise typer.Exit(130)
    report = Report.here()
    report.machine["command"] = _command(context)
    work = [(row, team) for team in teams for row in layers]
    try:
        for (name, label, count, problem), team in track(work, "Layers", console=console, transient=True):
            report.measure_limits(team)
            with _limited(team):
                entered, exact = _enter(problem, op, team, algorithms, peers, accuracy, tuning)
                timings = race(entered, exact, seconds, threads=team)
            for contestant, timing in zip(entered, timings, strict=True):
                limit = sum(limits.kernel_limit(*part, team, report.fma_peak[team]) for part in contestant.parts)
                report.rows.append(
                    Row(
                        name,
                        label,
                        count,
                        str(problem),
                        team,
                        contestant.name,
                        contestant.kernel,
                        contestant.parameters,
                        timing.median,
                        timing.best,
                        timing.samples,
                        timing.cpu_per_wall,
                        timing.error,
                        timing.rms_error,
                        limit,
                        op,
                    )
                )
    except KeyboardInterrupt:
        console.print("stopped; what was measured is shown")
    for title in report.networks():
        for team in report.teams():
            if rows := report.select(title, team):
                shown = _best_of_table if table == "bestof" else _layer_table
                console.print(shown(report, title, team, rows))
    if disturbed := sum(row.disturbed for row in report.rows):
        console.print(
            f"{disturbed} rows of convkit got less CPU time than their threads could use: the machine was busy with "
            "something else, and these figures are worth little",
            style="yellow",
        )
    _save(report, json, csv, plot)


def _layers(
    network: str, shapes: Path | None, only: str, batch: int, layout: str, op: str
) -> list[tuple[str, str, int, Problem]]:
    """(network, layer, count, problem) of everything to be timed."""
    orders = arguments.words(layout.upper(), LAYOUTS)
    name = arguments.words(op, (*OPS, "training"))[0]
    found = []
    for net in arguments.network_list(network) if network else ():
        for order in orders:
            for layer in net.unique():
                if only not in layer.name:
                    continue
                problem = layer.problem(batch, layout=order)
                if name == "training":
                    if layer.transposed:
                        continue
                    problem = problem.replace(bias=True, packed=False)
                elif name != "forward":
                    problem = problem.replace(op=gradient(problem.op, name), packed=False)
                elif problem.op == "forward":
                    problem = problem.replace(bias=True, epilogue="clamp")
                found.append((f"{_title(net, batch, name)} {order}", layer.name, layer.count, problem))
    for number, problem in enumerate(arguments.shapes_file(shapes) if shapes else (), start=1):
        found.append((shapes.name if shapes else "", f"line {number}", 1, problem))
    return found


def _title(network: Network, batch: int, op: str) -> str:
    """A network as tables and pictures call it."""
    parts = [network.title, *(["CIFAR-10"] if network.name.endswith("_cifar") else [])]
    if batch != 1:
        parts.append(f"batch {batch}")
    return " ".join([*parts, *([op] if op != "forward" else [])])


def _peers(against: str) -> tuple[str, ...]:
    if against == "none":
        return ()
    if against == "installed":
        return tuple(name for name in PEERS if installed(name))
    names = arguments.words(against, tuple(PEERS))
    for name in names:
        if not installed(name):
            console.print(f"{name} is not installed: {install_line('peers')}", style="yellow", markup=False)
    return tuple(name for name in names if installed(name))


def _enter(
    problem: Problem, op: str, threads: int, kernels: str, peers: tuple[str, ...], accuracy: str, settle: bool
) -> tuple[list[Contestant], Array]:
    """Everybody who can do a layer, the selection first, and the exact result."""
    import convkit
    from convkit.tuner.choosing.selector import selector

    families: Sequence[str] = ()
    if kernels != "selected":
        families = selector().inventory.families if kernels == "all" else arguments.words(kernels)
    training = op == "training"
    work = Pass(problem) if training else None
    operands = work.operands if work else Operands(problem)
    found = [training_contestant(work, threads, settle=settle) if work else
             convkit_contestant(operands, threads, accuracy=accuracy or None)]  # fmt: skip
    for family in families:
        try:
            found.append(training_contestant(work, threads, family) if work else
                         convkit_contestant(operands, threads, algorithm=family))  # fmt: skip
        except convkit.UnsupportedAlgorithmError:
            continue
    if work:
        others = [torch_pass(work, threads) if name == "torch" else None for name in peers]
    else:
        others = [peer(name, operands, threads) for name in peers]
    found += [contestant for contestant in others if contestant is not None]
    return found, (work or operands).exact()


def _limited(threads: int) -> Any:
    """Hold the BLAS behind NumPy to the same number of threads, where threadpoolctl is installed."""
    import contextlib

    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return contextlib.nullcontext()
    return threadpool_limits(threads, user_api="blas")


def _layer_table(report: Report, network: str, threads: int, rows: list[Row]) -> Table:
    peak = 2 * report.fma_peak[threads]
    table = Table(
        title=f"{network}, {threads_text(threads)}, {report.machine['cpu']}",
        caption=f"FMA peak {peak / 1e9:.0f} GFLOP/s, measured; operations as direct summation counts them. "
        "% of limit: of what this kernel could reach. ! error above 1e-3.",
    )
    for column in (
        "layer",
        "contestant",
        "kernel",
        "ms",
        "GFLOP/s",
        "% of peak",
        "% of limit",
        "to best",
        "CPUs",
        "error",
    ):
        table.add_column(
            column, justify="left" if column in ("layer", "contestant", "kernel") else "right", no_wrap=True
        )
    for layer, own in by_layer(rows):
        best = min((row.median for row in own if row.error < _TOO_WRONG), default=own[0].median)
        for place, row in enumerate(sorted(own, key=lambda row: row.median)):
            table.add_row(
                f"{layer} x{row.count}" if place == 0 else "",
                row.contestant,
                row.kernel,
                f"{1e3 * row.median:.3f}",
                f"{row.rate / 1e9:.1f}",
                f"{100 * row.rate / peak:.0f}",
                f"{100 * row.limit / row.median:.0f}" if row.limit else "",
                f"{row.median / best:.2f}",
                f"{row.cpu_per_wall:.1f}",
                f"{row.error:.0e}{' !' if row.error >= _TOO_WRONG else ''}",
                end_section=place == len(own) - 1,
            )
    totals = [(total, name) for name in report.contestants() if (total := report.total(rows, name)) is not None]
    for place, (total, name) in enumerate(sorted(totals)):
        table.add_row(
            "[bold]total[/bold]" if place == 0 else "",
            name,
            "",
            f"{1e3 * total:.2f}",
            "",
            "",
            "",
            f"{total / min(totals)[0]:.2f}",
        )
    return table


def _best_of_table(report: Report, network: str, threads: int, rows: list[Row]) -> Table:
    """Milliseconds of every algorithm and of the selection, and what each static choice costs over it."""
    names = [name for name in report.contestants() if any(row.contestant == name for row in rows)]
    table = Table(
        title=f"{network}, {threads_text(threads)}, ms of each algorithm and of the selection",
        caption="Bold: the fastest of the line. Where an algorithm cannot do a layer, the selection's time counts.",
    )
    table.add_column("layer", no_wrap=True)
    table.add_column("selected", justify="right")
    for name in names[1:]:
        table.add_column(name.removeprefix("convkit ").removesuffix(" NCHW").removesuffix(" NHWC"), justify="right")
    totals = dict.fromkeys(names, 0.0)
    for layer, own in by_layer(rows):
        times = {row.contestant: row.median for row in own}
        selected, fastest = times[names[0]], min(times.values())
        cells = []
        for name in names:
            totals[name] += own[0].count * times.get(name, selected)
            text = f"{1e3 * times[name]:.3f}" if name in times else "-"
            cells.append(f"[bold]{text}[/bold]" if times.get(name) == fastest else text)
        table.add_row(f"{layer} x{own[0].count}", *cells)
    table.add_section()
    table.add_row("total", *(f"{1e3 * totals[name]:.2f}" for name in names))
    table.add_row("against the selection", *(f"{totals[name] / totals[names[0]]:.2f}x" for name in names))
    return table


def _command(context: typer.Context) -> str:
    """The command that was given, without its output files."""
    words = ["convkit", "bench"]
    for option in context.command.params:
        value = context.params[str(option.name)]
        if value == option.default or option.name in ("json", "csv", "plot"):
            continue
        words.append(option.opts[0] if value is not False else option.secondary_opts[0])
        if not isinstance(value, bool):
            words.append(value.name if isinstance(value, Path) else str(value))
    return shlex.join(words)


def _save(report: Report, json: Path | None, csv: Path | None, plot: Path | None) -> None:
    if json:
        report.save(json)
        console.print(f"Rows -> {json}", highlight=False)
    if csv:
        report.save_csv(csv)
        console.print(f"Table -> {csv}", highlight=False)
    if plot:
        try:
            from convkit.pictures import speed
        except ModuleNotFoundError as error:
            console.print(f"the plots need {error.name}: {install_line('plot')}", style="red", markup=False)
            raise typer.Exit(1) from None
        for path in speed.save_all(report, plot):
            console.print(f"Picture -> {path}", highlight=False)

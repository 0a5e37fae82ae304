"""``convkit bench``: convkit beside its single kernels and other libraries, on your layers, on your machine."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from convkit.commands import arguments
from convkit.commands.failing import CommandError
from convkit.commands.outputs import STDOUT, Outputs
from convkit.commands.terminal import console, error_console
from convkit.contest.contestants import PEERS, installed
from convkit.distribution import install_line
from convkit.problem import LAYOUTS, OPS, Problem
from convkit.tables import threads_text, time_text

if TYPE_CHECKING:
    from convkit.contest.layers import TimedLayer
    from convkit.contest.results import Report, Row
    from convkit.typing import Accuracy

__all__ = ["bench"]

_TOO_WRONG = 1e-3
# What a program would use for every layer if it could not choose.
_STATIC = "direct,im2col,conv_gemm,winograd2,winograd4"


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
    against: Annotated[
        str, typer.Option(help=f"Peers: {', '.join(PEERS)}; installed: those that are; or none.")
    ] = "numpy",
    accuracy: Annotated[str, typer.Option(help="strict, standard, fast, or an RMS error; empty: the default.")] = "",
    seconds: Annotated[str, typer.Option(help="Time for each contestant and layer, at least five samples.")] = "0.3",
    tuning: Annotated[bool, typer.Option("--tune/--no-tune", help="Measure layers that the database lacks.")] = True,
    json: Annotated[
        Path | None, typer.Option(help="Save the rows as JSON; -: standard output.", readable=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Save the rows as a table; -: standard output.", readable=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Save the pictures; their names begin with this one.", readable=False)
    ] = None,
    table: Annotated[
        str, typer.Option(help='"layers", or "bestof": every algorithm against the selection.')
    ] = "layers",
) -> None:
    """Time layers with convkit and with other libraries, in turns, in one process, and check every result."""
    from convkit.commands.tune import Job, tune_all
    from convkit.contest.layers import CALLS
    from convkit.contest.results import Report

    if table not in _TABLES:
        raise typer.BadParameter(f"{table!r} is not one of {', '.join(_TABLES)}", param_hint="'--table'")
    if not network:
        arguments.refuse_idle(context, ("layer", "batch", "layout"), "they vary the layers of a --network")
    call = arguments.words(op, CALLS, "--op")[0]
    teams = arguments.teams(threads)
    wanted = _wanted(kernels, call, table)
    bound, limit = arguments.accuracy(accuracy), arguments.duration(seconds, "--seconds")
    layers = _layers(network, shapes, layer, batch, layout, call)
    if not layers:
        raise typer.BadParameter("name a --network or a file of --shapes with at least one layer")
    # Whoever reads rows from standard output wants nothing else there.
    told = error_console if STDOUT in (json, csv) else console
    peers = _peers(against)
    with Outputs() as outputs:
        save = _savers(outputs, json, csv, plot)
        if tuning:
            jobs = [
                Job(f"{timed.network} {timed.name}", problem, team)
                for timed in layers
                for problem in timed.problems
                for team in teams
            ]
            if tune_all(jobs, any_answer=True, shown=told).pending:
                raise typer.Exit(130)
        report = Report.here()
        report.machine["command"] = _command(context)
        work = [(timed, team) for team in teams for timed in layers]
        trouble, status = _measure(report, work, wanted, peers, bound, limit, tuning, told)
        for title in report.networks():
            for team in report.teams():
                if rows := report.select(title, team):
                    told.print(_TABLES[table](report, title, team, rows))
        if doubtful := sum(row.doubtful for row in report.rows):
            told.print(
                f"{doubtful} of convkit's rows were measured while the machine was busy with something else: their "
                "figures are worth little",
                style="yellow",
                highlight=False,
            )
        saved = [line for write in save for line in write(report)] if report.rows else []
    for line in saved:
        told.print(line, highlight=False, markup=False, soft_wrap=True)
    if trouble:
        raise CommandError("; ".join(trouble))
    if status:
        raise typer.Exit(status)


def _measure(
    report: Report,
    work: list[tuple[TimedLayer, int]],
    wanted: tuple[str | None, ...],
    peers: tuple[str, ...],
    accuracy: Accuracy | None,
    seconds: float,
    settle: bool,
    told: Console,
) -> tuple[list[str], int]:
    """Fill the report; what went wrong with single layers, and the exit status of an interrupt."""
    from convkit.commands.watching import Watch
    from convkit.contest.layers import Heat, limited
    from convkit.contest.turns import in_turns

    trouble: list[str] = []
    with Watch("layers", len(work), told) as watch:
        try:
            for timed, team in work:
                report.measure_limits(team)
                try:
                    heat = Heat(timed)
                    with limited(team):
                        entered = heat.contestants(team, wanted, peers, accuracy=accuracy, settle=settle)
                        timings = in_turns(entered, heat.exact, seconds, threads=team)
                except MemoryError:
                    trouble.append(f"{timed.network} {timed.name}: not enough memory")
                    watch.done(trouble[-1])
                    continue
                rows = [report.add(timed, team, *one) for one in zip(entered, timings, strict=True)]
                times = ", ".join(f"{row.contestant} {time_text(row.median)}" for row in rows)
                watch.done(f"{timed.network} {timed.name}, {threads_text(team)}: {times}")
        except KeyboardInterrupt:
            watch.tell("stopped; what was measured is shown")
            return trouble, 130
    return trouble, 0


def _wanted(kernels: str, call: str, table: str) -> tuple[str | None, ...]:
    """The selection, and the algorithms beside it."""
    from convkit.contest.layers import algorithms

    if table == "bestof" and kernels == "selected":
        kernels = f"columns,{_STATIC}" if call == "training" else _STATIC
    try:
        return tuple(dict.fromkeys((None, *algorithms(kernels, [call]))))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--kernels'") from None


def _layers(network: str, shapes: Path | None, only: str, batch: int, layout: str, call: str) -> list[TimedLayer]:
    """Everything to be timed."""
    from convkit.contest.layers import TimedLayer, timed_layers

    found = [
        timed
        for net in (arguments.network_list(network) if network else ())
        for order in arguments.words(layout.upper(), LAYOUTS, "--layout")
        for timed in timed_layers(net, batch=batch, layout=order, call=call, only=only)
    ]
    for number, problem in enumerate(arguments.shapes_file(shapes) if shapes else (), start=1):
        found.append(TimedLayer(shapes.name if shapes else "", f"line {number}", 1, *_called(problem, call)))
    return found


def _called(problem: Problem, call: str) -> tuple[Problem, str]:
    """A problem of a file and what is timed of it: itself, or what --op makes of a forward call."""
    from convkit.contest.layers import CALLS

    if problem.op != "forward":
        if call != "forward":
            raise typer.BadParameter(f"{problem} is a gradient itself", param_hint="'--op'")
        return problem, CALLS[OPS.index(problem.op)]
    if call == "training":
        return problem.replace(epilogue="none", residual=False, packed=False), call
    return (problem if call == "forward" else problem.of_op(call).replace(packed=False)), call


def _peers(against: str) -> tuple[str, ...]:
    if against == "none":
        return ()
    if against == "installed":
        return tuple(name for name in PEERS if installed(name))
    names = arguments.words(against, tuple(PEERS), "--against")
    if absent := [name for name in names if not installed(name)]:
        verb = "is" if len(absent) == 1 else "are"
        raise CommandError(
            f"--against: {', '.join(absent)} {verb} not installed: {install_line('peers')}, or say --against installed"
        )
    return names


def _layer_table(report: Report, network: str, threads: int, rows: list[Row]) -> Table:
    from convkit.contest.results import by_layer

    peak = report.peak(threads)
    table = Table(
        title=f"{network}, {threads_text(threads)}, {report.machine['cpu']}",
        caption=f"FMA peak {peak / 1e9:.0f} GFLOP/s, measured; operations as direct summation counts them. "
        "% of limit: of what this kernel could reach. ! error above 1e-3.",
    )
    table.add_column("layer", no_wrap=True)
    # In a narrow terminal names are folded before figures are cut.
    for column in ("contestant", "kernel"):
        table.add_column(column, overflow="fold")
    for column in ("ms", "GFLOP/s", "% of peak", "% of limit", "to best", "CPUs", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer, own in by_layer(rows):
        best = min((row.median for row in own if row.error < _TOO_WRONG), default=own[0].median)
        for place, row in enumerate(sorted(own, key=lambda row: row.median)):
            table.add_row(
                f"{layer} x{row.count}" if place == 0 else "",
                row.contestant,
                row.kernel,
                f"{1e3 * row.median:.3f}",
                f"{row.rate / 1e9:.1f}",
                f"{100 * row.rate / report.peak(threads, Problem.parse(row.problem).dtype):.0f}",
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
    from convkit.contest.results import by_layer

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


_TABLES: dict[str, Callable[[Report, str, int, list[Row]], Table]] = {
    "layers": _layer_table,
    "bestof": _best_of_table,
}


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


def _savers(
    outputs: Outputs, json: Path | None, csv: Path | None, plot: Path | None
) -> list[Callable[[Report], list[str]]]:
    """What writes the files that were asked for and says so; raises if that would fail at the end."""
    from convkit.contest.results import Report

    found: list[Callable[[Report], list[str]]] = []

    def saver(path: Path, save: Callable[[Report, Path], None], what: str) -> None:
        staged = outputs.file(path)

        def write(report: Report) -> list[str]:
            save(report, staged)
            return [] if path == STDOUT else [f"{what} -> {path}"]

        found.append(write)

    if json:
        saver(json, Report.save, "Rows")
    if csv:
        saver(csv, Report.save_csv, "Table")
    if plot:
        found.append(_plotter(outputs, plot))
    return found


def _plotter(outputs: Outputs, plot: Path) -> Callable[[Report], list[str]]:
    try:
        from convkit.pictures import speed
    except ModuleNotFoundError as error:
        raise CommandError(f"the plots need {error.name}: {install_line('plot')}") from None
    known = speed.file_types()
    if plot.suffix and plot.suffix[1:].lower() not in known:
        raise typer.BadParameter(f"{plot.name} does not end in one of {', '.join(known)}", param_hint="'--plot'")
    staged = outputs.folder(plot.parent)

    def write(report: Report) -> list[str]:
        return [f"Picture -> {plot.with_name(path.name)}" for path in speed.save_all(report, staged / plot.name)]

    return write

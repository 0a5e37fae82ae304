"""``convkit demo``: a photograph through a filter bank, and through VGG-19's sixteen convolutions."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import typer
from rich.table import Table

from convkit import networks
from convkit.commands import arguments
from convkit.commands.failing import CommandError
from convkit.commands.outputs import Outputs
from convkit.commands.terminal import console, error_console
from convkit.commands.watching import Watch
from convkit.distribution import install_line
from convkit.problem import Problem
from convkit.tables import threads_text, time_text

if TYPE_CHECKING:
    from convkit.contest.contestants import Array
    from convkit.contest.results import Report

__all__ = ["demo"]

# Time for each contestant on each layer.
_SECONDS = 0.1


def demo(
    image: Annotated[
        Path | None, typer.Option(help="A photograph; none: matplotlib's sample.", exists=True, dir_okay=False)
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the pictures.", readable=False)] = Path("convkit-demo"),
    threads: Annotated[int, typer.Option(help="Team size; 0: what a call would use.", min=0)] = 0,
    layout: Annotated[Literal["NCHW", "NHWC"], typer.Option(help="Order of the tensors.")] = "NCHW",
    budget: Annotated[str, typer.Option(help="Time for the tuning, such as 30s; empty: until all is settled.")] = "",
    torch: Annotated[bool, typer.Option("--torch", help="A U-Net in PyTorch instead, before and after.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the layers as JSON.")] = False,
) -> None:
    """Send a photograph through a filter bank and through VGG-19, tuning each layer on the way.

    A layer is not measured again if the database knows it. In the end every layer is timed, convkit's choice and NumPy
    in turns. With --torch, a U-Net in PyTorch is timed on the photograph before and after convkit.torch.optimize, and
    nothing is drawn.
    """
    try:
        from convkit.pictures import demo as pictures
    except ModuleNotFoundError as error:
        raise CommandError(f"the demo draws with {error.name}: {install_line('cli', 'plot')}") from None
    from convkit.commands.filter_bank import FILTERS, apply
    from convkit.commands.tune import Job, tune_all

    (team,) = arguments.teams(str(threads) if threads else "")
    limit = arguments.duration(budget, "--budget") if budget else None
    if torch:
        if (output, layout) != (Path("convkit-demo"), "NCHW"):
            raise CommandError(
                "--torch draws nothing and takes the model's own layout: leave out --output and --layout"
            )
        from convkit.commands.torch_demo import unet_demo

        unet_demo(image, team, limit, json)
        return
    told = error_console if json else console
    output.mkdir(parents=True, exist_ok=True)
    sheet, chart = output / "filter-bank.png", output / "vgg19.png"
    photo = pictures.load_photo(image)
    with Outputs() as outputs:
        pictures.contact_sheet(photo, apply(photo), tuple(FILTERS), outputs.file(sheet))
    told.print(
        f"One conv2d: {photo.shape[1]} x {photo.shape[0]} photograph, 3 colours, {len(FILTERS)} filters -> {sheet}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    with Outputs() as outputs:
        drawn = outputs.file(chart)
        layers = _vgg19(layout)
        jobs = [Job(f"VGG-19 {name}", problem, team) for problem, name in layers.items()]
        tally = tune_all(jobs, limit, any_answer=True, json=json, shown=told)
        if tally.pending:
            told.print("Run the demo again and it goes on where it stopped.")
            raise typer.Exit(130)
        if tally.failed:
            raise CommandError(f"{tally.failed} of VGG-19's layers could not be measured")
        report = _timed(pictures.square(photo, 224).transpose(0, 3, 1, 2), layout, team, Watch("layers", 16, told))
        pictures.layer_chart(report, team, drawn)
    if json:
        print(dumps({"layers": report.dicts(), "machine": report.machine, "fma_peak": report.fma_peak[team]}))
        return
    console.print(_table(report, team))
    console.print(f"Chart -> {chart}", highlight=False, markup=False, soft_wrap=True)
    if tally.measured:
        console.print(f"Tuning: {tally.text()}. Run it again: nothing will be tuned.", highlight=False)
    else:
        console.print("Every choice came from the database; nothing was tuned.", highlight=False)
    if doubtful := [row for row in report.rows if row.doubtful]:
        why = next((row.busy for row in doubtful if row.busy), "convkit's threads did not get the CPUs")
        console.print(
            f"The machine was busy with something else while {len(doubtful)} of {len(report.rows) // 2} layers were "
            f"timed ({why}): their figures are worth little.",
            style="yellow",
            highlight=False,
        )


def _vgg19(layout: str) -> dict[Problem, str]:
    """The problems of VGG-19's layers, and the first layer that each belongs to."""
    found: dict[Problem, str] = {}
    for layer in networks.get("vgg19").layers:
        found.setdefault(_problem(layer, layout), layer.name)
    return found


def _problem(layer: networks.Layer, layout: str) -> Problem:
    return layer.problem(1, layout=layout, epilogue="clamp", bias=True)


def _timed(x: Array, layout: str, team: int, watch: Watch) -> Report:
    """The photograph's way through the network; on each layer convkit and NumPy are timed in turns and checked."""
    import convkit
    from convkit.contest.contestants import Operands
    from convkit.contest.layers import Heat, TimedLayer, limited
    from convkit.contest.results import Report
    from convkit.contest.turns import in_turns

    convkit.reload()
    convkit.clear_workspaces()
    rng = np.random.default_rng(19)
    report = Report.here()
    with watch:
        for layer in networks.get("vgg19").layers:
            if x.shape[2] != layer.h:
                x = _pooled(x)
            w = (rng.standard_normal((layer.o, layer.c, 3, 3)) * np.sqrt(2 / (layer.c * 9))).astype(np.float32)
            bias = (rng.standard_normal(layer.o) * 0.01).astype(np.float32)
            timed = TimedLayer("VGG-19", layer.name, 1, _problem(layer, layout))
            heat = Heat(timed, Operands(timed.problem, x=np.ascontiguousarray(x), w=w, bias=bias))
            report.measure_limits(team)
            with limited(team):
                entered = heat.contestants(team, (None,), ("numpy",))
                timings = in_turns(entered, heat.exact, _SECONDS, threads=team)
            ours, theirs = (report.add(timed, team, *one) for one in zip(entered, timings, strict=True))
            watch.done(f"{layer.name}: convkit {time_text(ours.median)}, NumPy {time_text(theirs.median)}")
            x = entered[0].result(entered[0].call())
    return report


def _pooled(x: Array) -> Array:
    """Largest of each 2x2 square."""
    n, c, h, w = x.shape
    return np.asarray(x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5)))


def _table(report: Report, team: int) -> Table:
    from convkit.contest.results import by_layer

    peak = report.peak(team)
    pairs = [(layer, rows[0], rows[1]) for layer, rows in by_layer(report.rows)]
    total, numpy_total = sum(ours.median for _, ours, _ in pairs), sum(theirs.median for _, _, theirs in pairs)
    flops = sum(ours.flops for _, ours, _ in pairs)
    layout = Problem.parse(report.rows[0].problem).layout
    table = Table(
        title=f"VGG-19, one 224x224 photograph, float32, {layout}, {threads_text(team)}",
        caption=f"% of the measured FMA peak, {peak / 1e9:.0f} GFLOP/s; operations are those of direct summation. "
        "NumPy: im2col and a matrix product, timed in turns with convkit. Error: largest, relative to the largest "
        "output. ~ the machine was busy.",
        show_footer=True,
    )
    table.add_column("layer", "total")
    table.add_column("kernel", overflow="fold")
    table.add_column("ms", f"{1e3 * total:.2f}", justify="right")
    table.add_column("GFLOP/s", f"{flops / total / 1e9:.0f}", justify="right")
    table.add_column("% of peak", f"{100 * flops / total / peak:.0f}", justify="right")
    table.add_column("NumPy, ms", f"{1e3 * numpy_total:.2f}", justify="right")
    table.add_column("vs NumPy", f"{numpy_total / total:.1f}x", justify="right")
    table.add_column("max error", f"{max(ours.error for _, ours, _ in pairs):.1e}", justify="right")
    for layer, ours, theirs in pairs:
        table.add_row(
            layer,
            ours.kernel,
            f"{'~ ' if ours.doubtful else ''}{1e3 * ours.median:.2f}",
            f"{ours.rate / 1e9:.0f}",
            f"{100 * ours.rate / peak:.0f}",
            f"{1e3 * theirs.median:.2f}",
            f"{theirs.median / ours.median:.1f}x",
            f"{ours.error:.1e}",
        )
    return table

"""Pictures of a benchmark report: layers with their limits, totals, roofline, scaling, error and speed, kernel map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from convkit.contest.results import Report, Row, by_layer
from convkit.pictures.style import INK, LIMIT, OURS, QUIET, THEIRS, family_marks, frame
from convkit.problem import Problem
from convkit.tables import threads_text

__all__ = [
    "error_and_speed",
    "file_types",
    "kernel_map",
    "layer_bars",
    "roofline",
    "save_all",
    "thread_scaling",
    "totals",
]


def file_types() -> tuple[str, ...]:
    """Endings of file names that a picture can be saved under."""
    return tuple(sorted(Figure().canvas.get_supported_filetypes()))


def save_all(report: Report, path: Path) -> list[Path]:
    """Draw every picture that the report has data for, in files whose names begin like `path`."""
    drawn: list[tuple[str, Figure]] = []
    for place, network in enumerate(report.networks()):
        mark = f"-{place + 1}" if len(report.networks()) > 1 else ""
        for team in report.teams():
            if rows := report.select(network, team):
                size = f"-{team}t" if len(report.teams()) > 1 else ""
                drawn.append((f"layers{mark}{size}", layer_bars(report, network, team)))
                if len({row.kernel for row in rows if row.kernel}) > 1 and _kernels_compared(rows):
                    drawn.append((f"error{mark}{size}", error_and_speed(report, network, team)))
    drawn.append(("totals", totals(report)))
    # The three calls of a training pass are three points under the roof, and three kernels.
    single = replace(report, rows=[row for row in report.rows if row.op != "training"])
    if single.rows:
        drawn.append(("roofline", roofline(single, single.teams()[0])))
        drawn.append(("kernels", kernel_map(single)))
    if len(report.teams()) > 1:
        drawn.append(("scaling", thread_scaling(report)))
    paths = []
    for name, figure in drawn:
        target = path.with_name(f"{path.stem}-{name}{path.suffix or '.png'}")
        figure.savefig(target, dpi=120)
        paths.append(target)
    return paths


def _kernels_compared(rows: Sequence[Row]) -> bool:
    return any(sum(1 for row in own if row.kernel and row.op != "training") > 2 for _, own in by_layer(rows))


def _colours(names: Iterable[str]) -> dict[str, str]:
    ours = iter(OURS * 3)
    return {
        name: next((colour for peer, colour in THEIRS.items() if name.startswith(peer)), None) or next(ours)
        for name in names
    }


def _subtitle(report: Report, *parts: str) -> str:
    return ", ".join((*parts, "float32", report.machine["cpu"]))


def layer_bars(report: Report, network: str, threads: int) -> Figure:
    """Speed of every contestant on every layer, with the FMA peak and the chosen kernel's own limit."""
    rows = report.select(network, threads)
    layers = list(by_layer(rows))
    names = sorted(dict.fromkeys(row.contestant for row in rows), key=lambda name: not name.startswith("convkit"))
    lines = -(-len(layers) // 8)
    along = -(-len(layers) // lines)
    figure = Figure(figsize=(13.0, 1.6 + 3.4 * lines), layout="constrained")
    shared = figure.subplots(lines, 1, sharey=True, squeeze=False).flat
    for line, axes in enumerate(shared):
        _bars(axes, layers[line * along : (line + 1) * along], along, names, 2 * report.fma_peak[threads] / 1e9)
    frame(shared[0], f"{network}: speed of each layer", _subtitle(report, threads_text(threads)))
    for axes in shared[1:]:
        frame(axes, "", "")
    handles, labels = shared[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.supylabel("GFLOP/s, as direct summation counts", color=INK, fontsize=10)
    return figure


def _bars(axes: Axes, layers: list[tuple[str, list[Row]]], along: int, names: list[str], peak: float) -> None:
    colours = _colours(names)
    width = 0.86 / len(names)
    place = np.arange(len(layers)) - 0.43
    for number, name in enumerate(names):
        heights = [next((row.rate / 1e9 for row in own if row.contestant == name), 0.0) for _, own in layers]
        axes.bar(place + (number + 0.5) * width, heights, width, color=colours[name], label=name)
    limits = [next((row.flops / row.limit / 1e9 for row in own if row.limit), np.nan) for _, own in layers]
    axes.hlines(limits, place, place + width, color=INK, linewidth=2.0, label="limit of convkit's kernel")
    axes.axhline(peak, color=LIMIT, linewidth=1.4, label=f"FMA peak, {peak:.0f} GFLOP/s")
    axes.set_xticks(np.arange(len(layers)), [_layer_label(name, own[0]) for name, own in layers], fontsize=8.5)
    axes.set_xlim(-0.6, along - 0.4)


def _layer_label(name: str, row: Row) -> str:
    p = Problem.parse(row.problem)
    return f"{name}\n{p.c}→{p.o} {p.kh}x{p.kw} @{p.h}"


def totals(report: Report) -> Figure:
    """Time of all layers of a network together."""
    bars: list[tuple[str, list[tuple[str, float]]]] = []
    for network in report.networks():
        for team in report.teams():
            rows = report.select(network, team)
            found = [(name, report.total(rows, name)) for name in report.contestants()]
            ranked = sorted(((name, total) for name, total in found if total is not None), key=lambda pair: pair[1])
            if ranked:
                bars.append((f"{network}, {threads_text(team)}", ranked))
    colours = _colours(report.contestants())
    columns = 1 if len(bars) < 4 else 2
    lines = max(1, -(-len(bars) // columns))
    height = lines * (1.4 + 0.32 * max((len(ranked) for _, ranked in bars), default=1))
    figure = Figure(figsize=(2.0 + 7.0 * columns, height), layout="constrained")
    panels = np.atleast_1d(figure.subplots(lines, columns)).flat
    for axes in panels[len(bars) :]:
        axes.set_visible(False)
    for axes, (title, ranked) in zip(panels, bars, strict=False):
        place = np.arange(len(ranked))
        values = [1e3 * total for _, total in ranked]
        axes.barh(place, values, 0.72, color=[colours[name] for name, _ in ranked])
        for y, value in zip(place, values, strict=True):
            axes.annotate(f"{value:.1f} ms   {value / values[0]:.2f}x", (value, y), xytext=(5, 0),
                          textcoords="offset points", va="center", fontsize=9, color=INK)  # fmt: skip
        axes.set_yticks(place, [name for name, _ in ranked], fontsize=9.5)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.3 * max(values))
        axes.set_xlabel("ms for all convolutions", color=INK)
        axes.tick_params(axis="y", length=0)
        frame(axes, title, _subtitle(report), grid="x")
    return figure


def roofline(report: Report, threads: int) -> Figure:
    """Speed over arithmetic intensity: under which of the two limits each layer lies."""
    bandwidth = report.bandwidth[threads]
    figure = Figure(figsize=(9.5, 6.2), layout="constrained")
    axes = figure.subplots()
    colours = _colours(report.contestants())
    for name in report.contestants():
        rows = [row for row in report.select(threads=threads) if row.contestant == name]
        intensity = [row.flops / _compulsory_bytes(Problem.parse(row.problem)) for row in rows]
        axes.scatter(intensity, [row.rate / 1e9 for row in rows], s=34, color=colours[name], label=name, alpha=0.85)
    peak = 2 * report.fma_peak[threads] / 1e9
    found = [row.flops / _compulsory_bytes(Problem.parse(row.problem)) for row in report.select(threads=threads)]
    ridge = 1e9 * peak / bandwidth
    x = np.geomspace(0.5 * min(*found, ridge), 1.5 * max(*found, ridge), 200)
    limit = f"FMA peak {peak:.0f} GFLOP/s, memory {bandwidth / 1e9:.0f} GB/s ({report.machine['bandwidth']})"
    axes.plot(x, np.minimum(peak, x * bandwidth / 1e9), color=LIMIT, linewidth=1.6, label=limit)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("operations per byte that must be moved (input, weights, output once)", color=INK)
    axes.set_ylabel("GFLOP/s, as direct summation counts", color=INK)
    frame(axes, "Roofline", _subtitle(report, threads_text(threads)), grid="both")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _compulsory_bytes(p: Problem) -> float:
    elements = p.n * p.c * p.h * p.w + p.o * (p.c // p.groups) * p.kh * p.kw + p.n * p.o * p.oh * p.ow
    return float(elements * p.itemsize)


def thread_scaling(report: Report) -> Figure:
    """Speed-up of a network's total over one's own smallest team."""
    teams = report.teams()
    networks = [name for name in report.networks() if {row.threads for row in report.select(name)} == {*teams}]
    figure = Figure(figsize=(max(8.5, 1.5 + 4.6 * len(networks)), 5.6), layout="constrained")
    colours = _colours(report.contestants())
    for axes, network in zip(np.atleast_1d(figure.subplots(1, max(1, len(networks)))), networks, strict=False):
        for name in report.contestants():
            times = [report.total(report.select(network, team), name) for team in teams]
            if all(times):
                axes.plot(teams, [times[0] / time for time in times], marker="o", color=colours[name], label=name)  # type: ignore[operator]
        axes.plot(teams, [team / teams[0] for team in teams], color=QUIET, linestyle="--", linewidth=1, label="linear")
        axes.set_xticks(teams)
        axes.set_xlabel("threads", color=INK)
        axes.set_ylabel(f"speed-up over {threads_text(teams[0])}", color=INK)
        frame(axes, network, _subtitle(report))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def error_and_speed(report: Report, network: str, threads: int) -> Figure:
    """Each kernel's RMS error against its speed relative to the fastest direct kernel of the layer."""
    from convkit.tuner.choosing.selector import selector

    kernels = selector().inventory.by_name
    rows = [row for row in report.select(network, threads) if row.kernel in kernels]
    families = tuple(dict.fromkeys(kernels[row.kernel].family for row in rows))
    figure = Figure(figsize=(9.5, 6.2), layout="constrained")
    axes = figure.subplots()
    points: dict[str, list[tuple[float, float]]] = {family: [] for family in families}
    for _, own in by_layer(rows):
        direct = min((row.median for row in own if kernels[row.kernel].direct), default=None)
        for row in own:
            if direct:
                points[kernels[row.kernel].family].append((row.rms_error, direct / row.median))
    for family, mark in family_marks(families).items():
        if points[family]:
            errors, speeds = zip(*points[family], strict=True)
            axes.scatter(errors, speeds, s=40, color=mark.colour, marker=mark.marker, label=family, alpha=0.85)
    axes.axhline(1.0, color=QUIET, linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel("RMS error relative to the RMS of the result", color=INK)
    axes.set_ylabel("speed relative to the fastest direct kernel", color=INK)
    frame(axes, f"{network}: error against speed", _subtitle(report, threads_text(threads)), grid="both")
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def kernel_map(report: Report) -> Figure:
    """Which family was chosen for which layer."""
    from convkit.tuner.choosing.selector import selector

    kernels = selector().inventory.by_name
    chosen = [row for row in report.rows if row.contestant.startswith("convkit N") and row.kernel in kernels]
    columns = list(dict.fromkeys((row.network, row.threads) for row in chosen))
    layers = list(dict.fromkeys(row.layer for row in chosen))
    families = list(dict.fromkeys(kernels[row.kernel].family for row in chosen))
    marks = family_marks(families)
    figure = Figure(figsize=(3.0 + 2.1 * len(columns), 1.8 + 0.34 * len(layers)), layout="constrained")
    axes = figure.subplots()
    for row in chosen:
        x, y, family = columns.index((row.network, row.threads)), layers.index(row.layer), kernels[row.kernel].family
        axes.add_patch(_cell(x, y, marks[family].colour))
        text = f"{family}  {1e3 * row.median:.3g} ms"
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=marks[family].ink)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xticks(
        range(len(columns)), [f"{network}\n{threads_text(team)}" for network, team in columns], fontsize=8.5
    )
    axes.set_yticks(range(len(layers)), layers, fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("The kernel that was chosen", fontsize=14, color=INK, loc="left")
    return figure


def _cell(x: float, y: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour)

"""The pictures of the report, drawn with matplotlib as SVG whose colours follow the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from convkit.pictures.style import GRID, INK, QUIET, Mark
from convkit.report.layers import geometry, layer_name
from convkit.report.standing import Standing
from convkit.report.summary import Summary
from convkit.tables import threads_text
from convkit.tuner.measuring.online import online

__all__ = ["Picture", "pictures"]

Marks = Mapping[str, Mark]
# The width that a narrow screen shows without scaling, so that letters stay as large as the page's.
_WIDTH = 4.6
# Layers with a line of their own in the picture of the scaling.
_MOST_LAYERS = 30
# Times the fastest: what is slower is not shown beside its error.
_SLOWEST = 5.0
# What the page replaces by colours of its own, light or dark.
_VARIABLES = {INK: "var(--ink)", QUIET: "var(--quiet)", GRID: "var(--line)"}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


class Picture(NamedTuple):
    """A picture with its title, an explanation, and what it shows in one sentence for those who do not see it."""

    title: str
    explanation: str
    svg: str


def pictures(summary: Summary, marks: Marks) -> Iterator[Picture]:
    """Each picture that there are data for."""
    yield from _each(
        "Scaling by layer",
        "How many times as fast the largest team is as one thread. The dashed line is what the team could reach. The "
        f"{_MOST_LAYERS} layers that take longest.",
        lambda axes: _scaling(axes, summary, marks),
    )
    yield from _each(
        "Regret without measuring",
        "Share of problems for which a choice without measuring is at most so much slower than the best. Each problem "
        "is left out when its own choice is predicted.",
        lambda axes: _regret(axes, summary),
    )
    yield from _each(
        "Error against speed",
        "The best candidate of each family for each float32 problem: its time, up to "
        f"{_SLOWEST:g} times the fastest, and its measured error.",
        lambda axes: _error_against_speed(axes, summary, marks),
    )
    yield from _each(
        "Convergence of the online mode",
        "Time of each call relative to the best candidate of its problem, in this process.",
        _convergence,
    )


def _each(title: str, explanation: str, draw: Callable[[Axes], bool]) -> Iterator[Picture]:
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": title}):
        # A Figure without pyplot needs no display and leaves the user's backend alone.
        figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
        axes = figure.add_subplot()
        if not draw(axes):
            return
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    yield Picture(title, explanation, _inline(stream.getvalue(), title))


def _inline(svg: str, title: str) -> str:
    """An SVG file as part of a page: its colours are the page's, its letters too, and it is named for who hears it."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{title}"', svg, count=1)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


def _scaling(axes: Axes, summary: Summary, marks: Marks) -> bool:
    teams = sorted({one.setting.threads for one in summary.standings})
    if len(teams) < 2:
        return False
    least, most = teams[0], teams[-1]
    found: dict[object, dict[int, Standing]] = {}
    for one in summary.standings:
        key = geometry(one.case.task.problem), one.setting._replace(threads=0)
        found.setdefault(key, {})[one.setting.threads] = one
    pairs = [(by_team[least], by_team[most]) for by_team in found.values() if least in by_team and most in by_team]
    slowest = sorted(pairs, key=lambda pair: -pair[0].seconds)[:_MOST_LAYERS]
    if not slowest:
        return False
    preferred = [worth.network for worth in summary.worths]
    axes.figure.set_size_inches(_WIDTH, 1.0 + 0.2 * len(slowest))  # type: ignore[union-attr]
    place = range(len(slowest))
    speeds = [one.seconds / many.seconds for one, many in slowest]
    for y, speed, (_, many) in zip(place, speeds, slowest, strict=True):
        mark = marks[many.chosen.kernel.family]
        axes.plot([1.0, speed], [y, y], color=QUIET, linewidth=1, zorder=1)
        axes.scatter([speed], [y], s=34, color=mark.colour, marker=mark.marker, edgecolors=QUIET, linewidths=0.4)
    names = [
        f"{layer_name(one.case.task.problem, preferred)}, {one.setting.layout}{'' if one.setting.packed else ', cold'}"
        for one, _ in slowest
    ]
    axes.set_yticks(place, names)
    axes.invert_yaxis()
    axes.axvline(most / least, color=QUIET, linestyle="--", linewidth=1)
    axes.set_xlim(left=min(0.9, *speeds), right=1.05 * max(most / least, *speeds))
    axes.set_xlabel(f"speed-up of {threads_text(most)} over {threads_text(least)}")
    return True


def _regret(axes: Axes, summary: Summary) -> bool:
    drawn = 0.0
    for name, label, style in (("model", "cost model", "-"), ("neighbour", "neighbours", "--")):
        values = sorted(100 * value for row in summary.regrets if (value := getattr(row, name)) is not None)
        if len(values) > 1:
            shares = [100 * (i + 1) / len(values) for i in range(len(values))]
            axes.step([0.0, *values], [0.0, *shares], where="post", color=INK, linestyle=style, label=label)
            drawn = max(drawn, values[-1], 1.0)
    if drawn:
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(0, 1.3 * drawn)
        axes.set_ylim(0, 102)
        ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= 1.3 * drawn]
        axes.set_xticks(ticks, [f"{tick}%" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("slower than the best by at most")
        axes.set_ylabel("% of problems")
        axes.figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return bool(drawn)


def _error_against_speed(axes: Axes, summary: Summary, marks: Marks) -> bool:
    points: dict[str, list[tuple[float, float]]] = {}
    for case in summary.measured:
        seen: dict[str, tuple[float, float]] = {}
        rows = case.measured.ranking.ranked if case.measured else ()
        for row in rows if case.task.problem.dtype == "float32" else ():
            if row.error and row.ratio <= _SLOWEST * rows[0].ratio:
                seen.setdefault(row.candidate.kernel.family, (row.ratio / rows[0].ratio, row.error))
        for family, point in seen.items():
            points.setdefault(family, []).append(point)
    for family, pairs in points.items():
        ratios, errors = zip(*pairs, strict=True)
        mark = marks[family]
        axes.scatter(
            ratios, errors, s=16, color=mark.colour, marker=mark.marker, edgecolors=QUIET, linewidths=0.3, alpha=0.8
        )
    if points:
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = (1, 1.5, 2, 3, 4, 5)
        axes.set_xlim(0.95, 1.05 * _SLOWEST)
        axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
        axes.set_xlabel("time, relative to the fastest")
        axes.set_ylabel("RMS error relative to the RMS of the result")
    return bool(points)


def _convergence(axes: Axes) -> bool:
    reports = [report for report in online().reports() if len(report.history) > 1]
    for report in reports:
        best = min(seconds for _, seconds in report.history)
        axes.plot([seconds / best for _, seconds in report.history], color=INK, alpha=0.5)
    if reports:
        axes.set_xlabel("call")
        axes.set_ylabel("time, relative to the best")
        axes.set_yscale("log")
    return bool(reports)

"""The pictures of the report, drawn with matplotlib and returned as base64 PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from convkit.pictures.style import FAMILIES
from convkit.problem import Problem
from convkit.report.regret import Regret
from convkit.tuner.choosing.selector import Case
from convkit.tuner.measuring.online import online

__all__ = ["figures"]

Measured = Sequence[Case]
Picture = tuple[str, str, str]


def figures(measured: Measured, found: Sequence[Regret]) -> Iterator[Picture]:
    """Title, explanation and PNG of each plot that there are data for."""
    yield from _each(
        "Which kernel wins where",
        "3x3, stride 1: the family that answers, over channels and image height.",
        lambda axes: _map_of_winners(axes, measured),
    )
    yield from _each(
        "Times by threads",
        "Time of the chosen kernel relative to one thread, for problems measured with several team sizes.",
        lambda axes: _by_threads(axes, measured),
    )
    yield from _each(
        "Regret",
        "Share of problems whose choice without measuring is at most this much slower than the best.",
        lambda axes: _regret(axes, found),
    )
    yield from _each(
        "Error against speed",
        "Each candidate: its measured RMS error over its time relative to the fastest candidate of its problem.",
        lambda axes: _error_against_speed(axes, measured),
    )
    yield from _each(
        "Convergence of the online mode",
        "Time of each call relative to the best candidate of its problem, in this process.",
        _convergence,
    )


def _each(title: str, explanation: str, draw: Callable[[Axes], bool]) -> Iterator[Picture]:
    # A Figure without pyplot needs no display and leaves the user's backend alone.
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    if not draw(figure.add_subplot()):
        return
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    yield title, explanation, base64.b64encode(stream.getvalue()).decode()


def _map_of_winners(axes: Axes, measured: Measured) -> bool:
    least = min((case.task.threads for case in measured), default=0)
    chosen = [
        (p.c, p.h, case.choose().family)
        for case, p in ((case, case.task.problem) for case in measured if case.task.threads == least)
        if (p.kh, p.kw, p.stride_h, p.stride_w, p.groups) == (3, 3, 1, 1, 1)
    ]
    if not chosen:
        return False
    heights, channels = sorted({h for _, h, _ in chosen}), sorted({c for c, _, _ in chosen})
    families = sorted({family for _, _, family in chosen})
    grid = [[float("nan")] * len(heights) for _ in channels]
    for c, h, family in chosen:
        grid[channels.index(c)][heights.index(h)] = families.index(family)
    axes.imshow(
        grid, aspect="auto", origin="lower", vmin=-0.5, vmax=len(families) - 0.5,
        cmap=ListedColormap([FAMILIES[i % len(FAMILIES)] for i in range(len(families))]),
    )  # fmt: skip
    axes.set_xticks(range(len(heights)), [str(h) for h in heights])
    axes.set_yticks(range(len(channels)), [str(c) for c in channels])
    axes.set_xlabel("H")
    axes.set_ylabel("C")
    axes.legend(
        handles=[Patch(color=FAMILIES[i % len(FAMILIES)], label=family) for i, family in enumerate(families)],
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return True


def _by_threads(axes: Axes, measured: Measured) -> bool:
    times: dict[Problem, dict[int, float]] = {}
    for case in measured:
        times.setdefault(case.task.problem.bare(), {})[case.task.threads] = case.choose().seconds
    drawn = False
    for by_threads in times.values():
        if 1 in by_threads and len(by_threads) > 1 and by_threads[1]:
            counts = sorted(by_threads)
            axes.plot(counts, [by_threads[count] / by_threads[1] for count in counts], color="tab:blue", alpha=0.4)
            drawn = True
    axes.set_xlabel("threads")
    axes.set_ylabel("time / time with one")
    return drawn


def _regret(axes: Axes, found: Sequence[Regret]) -> bool:
    drawn = False
    for name, label in (("model", "cost model"), ("neighbour", "neighbours")):
        values = sorted(100 * value for row in found if (value := getattr(row, name)) is not None)
        if values:
            axes.step(values, [(i + 1) / len(values) for i in range(len(values))], where="post", label=label)
            drawn = True
    if drawn:
        axes.set_xlabel("regret in %")
        axes.set_ylabel("share of problems")
        axes.set_xscale("symlog", linthresh=1)
        axes.legend()
    return drawn


def _error_against_speed(axes: Axes, measured: Measured) -> bool:
    points: dict[str, list[tuple[float, float]]] = {}
    for case in measured:
        rows = [row for answer in case.answers for row in answer.ranking.ranked]
        for row in rows if case.task.problem.dtype == "float32" else ():
            if row.error:
                points.setdefault(row.candidate.kernel.family, []).append((row.ratio, row.error))
    for family, pairs in sorted(points.items()):
        ratios, errors = zip(*pairs, strict=True)
        axes.scatter(ratios, errors, s=8, alpha=0.5, label=family)
    if points:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("time / fastest")
        axes.set_ylabel("RMS error / RMS(y)")
        axes.legend()
    return bool(points)


def _convergence(axes: Axes) -> bool:
    reports = [report for report in online().reports() if len(report.history) > 1]
    for report in reports:
        best = min(seconds for _, seconds in report.history)
        axes.plot([seconds / best for _, seconds in report.history], alpha=0.5)
    if reports:
        axes.set_xlabel("call")
        axes.set_ylabel("time / best")
        axes.set_yscale("log")
    return bool(reports)

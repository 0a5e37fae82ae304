"""The tuning report as one self-contained page: what tuning is worth, every layer's choice, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from convkit import _core
from convkit.pictures.style import Mark, family_marks
from convkit.pictures.tuning import pictures
from convkit.report.comparison import behind_text
from convkit.report.layers import Layer, Setting, layer_name, layer_of, setting
from convkit.report.standing import Standing, Worth
from convkit.report.summary import Summary, summarise
from convkit.tables import milliseconds
from convkit.tuner.choosing.selector import Selector, selector

__all__ = ["write"]

# Heads of the table of layers, and whether the column holds numbers.
_COLUMNS = (
    ("layer", False),
    ("kernel", False),
    ("ms", True),
    ("of its limit", True),
    ("runner-up", False),
    ("behind by", True),
    ("tuning saves", True),
    ("measured with", False),
    ("full name", False),
)
# The outlines of matplotlib's markers.
_SHAPES = {
    "o": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
    "s": "M-5-5h10v10h-10z",
    "D": "M0-6 6 0 0 6-6 0z",
    "^": "M0-6 6 5H-6z",
}
# A smaller gain is within what measurements of equal speed differ by.
_NOTHING = 0.005


def write(path: Path | str, choosing: Selector | None = None, summary: Summary | None = None) -> None:
    """Write one self-contained page.

    Parameters
    ----------
    path : Path or str
        The file; it is replaced.
    """
    choosing = choosing or selector()
    found = summary or summarise(choosing)
    known = {
        row.candidate.kernel.family
        for case in found.measured
        for answer in case.answers
        for row in answer.ranking.ranked
    }
    # The families that win most often get a colour of their own.
    marks = family_marks([name for name, _ in found.winners.most_common()] + sorted(known))
    preferred = [worth.network for worth in found.worths]
    headline, explanation = _headline(found)
    environment = Environment(
        loader=PackageLoader("convkit", "pictures"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        headline=headline,
        explanation=explanation,
        facts=_facts(found),
        networks=[_network(worth) for worth in found.worths],
        marks=marks,
        shapes=_SHAPES,
        map=_map(found.standings, preferred, marks),
        columns=_COLUMNS,
        layers=[_layer(one, preferred) for one in sorted(found.standings, key=lambda one: -one.seconds)],
        calibrated=choosing.constants.calibrated,
        pictures=list(pictures(found, marks)),
        stale=[
            f"{layer_name(case.task.problem, preferred)}, {setting(case.task.problem, case.task.threads)}"
            for case in found.stale
        ],
        text=str(found),
    )
    Path(path).write_text(page, encoding="utf-8")


def _headline(found: Summary) -> tuple[str, str]:
    """What tuning is worth on this machine in one sentence, and what that sentence means."""
    if not found.measured:
        return "Nothing was measured on this class of machine yet.", "Run convkit tune --network resnet50 first."
    if found.worths:
        worth = max(found.worths, key=lambda worth: (worth.complete, worth.untuned - worth.tuned, worth.tuned))
        tuned, untuned, whose = worth.tuned, worth.untuned, f"{worth.network}'s convolutions"
        where = f"{worth.setting}{'' if worth.complete else f', {len(worth.layers)} of {worth.of} layers'}"
    else:
        tuned = sum(one.seconds for one in found.standings)
        untuned = sum(one.untuned or one.seconds for one in found.standings)
        whose, where = f"the {len(found.standings)} problems that were measured", "each of them once"
    if 1.0 - tuned / untuned < _NOTHING:
        return (
            f"On this machine tuning changes little: {1e3 * tuned:.1f} ms for {whose}.",
            f"What would run without measuring is as fast ({where}).",
        )
    return (
        f"Tuning saves {1e3 * (untuned - tuned):.1f} of {1e3 * untuned:.1f} ms for {whose}.",
        f"They take {1e3 * tuned:.1f} ms with the kernels that were measured to be the fastest, and "
        f"{1e3 * untuned:.1f} ms with those that would run if nothing had been measured here ({where}).",
    )


def _facts(found: Summary) -> list[tuple[str, str]]:
    cpu = str(_core.cpu().get("brand", "")).strip()
    return [
        ("CPU", cpu),
        ("machine class", found.machine),
        ("measured", f"{len(found.measured)} problems, {found.doubts()}"),
        ("cost model", found.cost_model),
    ]


def _network(worth: Worth) -> dict[str, str]:
    family, single = worth.families()[0]
    return {
        "name": worth.network,
        "setting": str(worth.setting),
        "layers": str(worth.of) if worth.complete else f"{len(worth.layers)} of {worth.of}",
        "tuned": milliseconds(worth.tuned),
        "untuned": milliseconds(worth.untuned),
        "saves": f"{100 * (1 - worth.tuned / worth.untuned):.1f}%",
        "single": milliseconds(single),
        "family": family,
    }


def _map(standings: Iterable[Standing], preferred: Sequence[str], marks: Mapping[str, Mark]) -> dict[str, Any]:
    """Layers as rows, settings as columns, the chosen family in each cell."""
    rows: dict[Layer, dict[Setting, Standing]] = {}
    for one in standings:
        rows.setdefault(layer_of(one.case.task.problem, preferred), {})[one.setting] = one
    columns = sorted({column for cells in rows.values() for column in cells})

    def cell(one: Standing | None) -> dict[str, Any] | None:
        family = one.chosen.kernel.family if one else ""
        return {"family": family, "mark": marks[family], "ms": f"{1e3 * one.seconds:.3g}"} if one else None

    groups: dict[str, list[dict[str, Any]]] = {}
    for layer in sorted(rows, key=lambda layer: layer.place):
        cells = [cell(rows[layer].get(column)) for column in columns]
        groups.setdefault(layer.network or "others", []).append({"name": layer.name, "cells": cells})
    return {"columns": [str(column) for column in columns], "groups": groups}


def _layer(one: Standing, preferred: Sequence[str]) -> dict[str, Any]:
    gain = 0.0 if one.untuned is None else 1.0 - one.seconds / one.untuned
    return {
        "name": layer_name(one.case.task.problem, preferred),
        "setting": str(one.setting),
        "family": one.chosen.kernel.family,
        "kernel": str(one.chosen),
        "seconds": f"{one.seconds:.6g}",
        "ms": f"{1e3 * one.seconds:.3f}",
        "share": f"{one.of_limit or 0.0:.4f}",
        "of_limit": "-" if one.of_limit is None else f"{100 * one.of_limit:.0f}%",
        "runner_up": one.runner_up.kernel.family if one.runner_up else "-",
        "distance": f"{one.behind:.4f}",
        "behind": behind_text(one),
        "gain": f"{gain:.4f}",
        "saves": "?" if one.untuned is None else f"{100 * gain:.1f}%",
    }

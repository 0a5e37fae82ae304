"""What commands accept as text: lists, durations, shapes, files of shapes. All raise typer's error for a bad value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from convkit import networks
from convkit.problem import Problem, of_call

__all__ = ["counts", "duration", "network_list", "shape", "shapes_file", "words"]


def words(text: str, allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Words separated by commas, each one of `allowed` where that is given."""
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in found:
        if allowed and word not in allowed:
            raise typer.BadParameter(f"{word!r} is not one of {', '.join(allowed)}")
    if not found:
        raise typer.BadParameter("an empty list")
    return found


def counts(text: str) -> tuple[int, ...]:
    """Positive integers separated by commas."""
    found = []
    for word in words(text):
        if not word.isdecimal() or int(word) < 1:
            raise typer.BadParameter(f"{word!r} is not a positive integer")
        found.append(int(word))
    return tuple(found)


def duration(text: str) -> float:
    """Seconds of "30s", "10m", "1.5h", "250ms" or plain "30"."""
    from convkit.tuner.modes import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def shape(text: str) -> tuple[int, int, int, int]:
    """Four sizes as in "1x64x56x56"."""
    parts = re.split(r"[x,]", text.strip().lower())
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"{text!r} is not a shape of four sizes such as 1x64x56x56")
    a, b, c, d = map(int, parts)
    return a, b, c, d


def network_list(text: str) -> tuple[networks.Network, ...]:
    """Layer tables named by a list."""
    return tuple(networks.get(name) for name in words(text, networks.names()))


def shapes_file(path: Path) -> list[Problem]:
    """Problems of a text file, one a line; empty lines and what follows "#" do not count.

    A line is a problem as `convkit explain` prints it, or the shapes of an input and its filters with keywords of
    `conv2d`: ``8x64x56x56 128x64x3x3 padding=1 stride=2 layout=NHWC dtype=float32 packed=1``.
    """
    problems = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            problems.append(_problem_of_line(text))
        except (ValueError, TypeError, typer.BadParameter) as error:
            raise typer.BadParameter(f"{path}, line {number}: {error}") from None
    return problems


def _problem_of_line(text: str) -> Problem:
    first, *rest = text.split()
    if not rest:
        return Problem.parse(first)
    keywords: dict[str, Any] = {"packed": True}
    for word in rest[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is not of the form keyword=value")
        keywords[key] = int(value) if value.isdecimal() else value
    for key in ("packed", "bias", "residual"):
        if key in keywords:
            keywords[key] = bool(keywords[key])
    return of_call(shape(first), shape(rest[0]), **keywords)[0]

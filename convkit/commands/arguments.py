"""What commands accept as text: lists, durations, shapes, files of shapes. All raise typer's error for a bad value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from convkit import networks
from convkit.problem import DTYPES, LAYOUTS, Problem, of_call
from convkit.typing import Accuracy

__all__ = [
    "accuracy",
    "counts",
    "duration",
    "network_list",
    "problem",
    "refuse_idle",
    "shape",
    "shapes_file",
    "sizes",
    "teams",
    "words",
]

_LARGEST = 2**31 - 1
_SWITCH = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}
_PADDINGS = ("valid", "same", "same_upper", "same_lower")


def refuse_idle(context: typer.Context, options: Iterable[str], why: str) -> None:
    """Refuse options that were given and would change nothing.

    Parameters
    ----------
    options : iterable of str
        Names of parameters.
    why : str
        What makes them idle: the beginning of the sentence.
    """
    given = []
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in options and source is not None and source.name == "COMMANDLINE":
            given.append(max(parameter.opts, key=len))
    if given:
        raise typer.BadParameter(f"{why}: leave {', '.join(given)} out")


def _quoted(option: str | None) -> str | None:
    return None if option is None else f"'{option}'"


def words(text: str, allowed: tuple[str, ...] = (), option: str | None = None) -> tuple[str, ...]:
    """Words separated by commas, each one of `allowed` if that is given."""
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in found:
        if allowed and word not in allowed:
            raise typer.BadParameter(f"{word!r} is not one of {', '.join(allowed)}", param_hint=_quoted(option))
    if not found:
        raise typer.BadParameter("an empty list", param_hint=_quoted(option))
    return found


def counts(text: str, option: str | None = None) -> tuple[int, ...]:
    """Positive integers separated by commas."""
    found = []
    for word in words(text, option=option):
        if not (word.isascii() and word.isdecimal() and len(word) < 11 and 1 <= int(word) <= _LARGEST):
            raise typer.BadParameter(f"{word!r} is not a positive integer below 2**31", param_hint=_quoted(option))
        found.append(int(word))
    return tuple(found)


def teams(text: str, *, elsewhere: bool = False) -> tuple[int, ...]:
    """Team sizes of --threads, what a call would use for an empty text.

    Parameters
    ----------
    elsewhere : bool
        Other machines use them, so that this one need not have so many threads.
    """
    from convkit import _core

    if not text:
        return (_core.default_threads(),)
    found = counts(text, "--threads")
    if not elsewhere:
        for asked in found:
            _, granted = of_call((1, 1, 1, 1), (1, 1, 1, 1), num_threads=asked)
            if granted < asked:
                raise typer.BadParameter(
                    f"a call that asks for {asked} threads gets {granted} on this machine", param_hint="'--threads'"
                )
    return found


def duration(text: str, option: str | None = None, least: float = 0.0, why: str = "") -> float:
    """Seconds of "30s", "10m", "1.5h", "250ms" or plain "30"."""
    from convkit.tuner.modes import parse_budget

    try:
        seconds = parse_budget(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=_quoted(option)) from None
    if not least <= seconds <= 1e9:
        limits = f"at least {least:g} s{why}" if seconds < least else "less than 30 years"
        raise typer.BadParameter(f"{text!r}: it must be {limits}", param_hint=_quoted(option))
    return seconds


def accuracy(text: str) -> Accuracy | None:
    """A level's name or an RMS error; None for an empty text."""
    from convkit.tuner.inventory import parse_accuracy

    try:
        return parse_accuracy(text) if text else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--accuracy'") from None


def shape(text: str) -> tuple[int, int, int, int]:
    """Four sizes as in "1x64x56x56"."""
    wanted = "a shape of four sizes such as 1x64x56x56"
    found = sizes(text, wanted)
    if len(found) != 4:
        raise typer.BadParameter(f"{text!r} is not {wanted}")
    a, b, c, d = found
    return a, b, c, d


def sizes(text: str, wanted: str = "a shape such as 1x3x224x224 or 4x16") -> tuple[int, ...]:
    """Any number of sizes."""
    parts = re.split(r"[x,]", text.strip().lower())
    if not all(part.isascii() and part.isdecimal() and len(part) < 11 for part in parts):
        raise typer.BadParameter(f"{text!r} is not {wanted}")
    found = tuple(map(int, parts))
    if not all(1 <= size <= _LARGEST for size in found):
        raise typer.BadParameter(f"{text!r}: every size must be at least 1 and below 2**31")
    return found


def network_list(text: str) -> tuple[networks.Network, ...]:
    """Layer tables named by a list."""
    return tuple(networks.get(name) for name in words(text, networks.names(), "--network"))


def problem(text: str) -> Problem:
    """A problem as ``convkit explain`` prints it."""
    found = Problem.parse(text)
    if found.n < 1:
        raise ValueError(f"{text}: a batch of {found.n} computes nothing")
    return found


def pair(text: str) -> tuple[int, int]:
    """One number for both directions, or two."""
    parts = text.split(",")
    if len(parts) not in (1, 2) or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"{text!r} is neither a number nor two")
    return int(parts[0]), int(parts[-1])


def padding(text: str) -> Any:
    """A name, a number, two (vertical, horizontal) or four (top, bottom, left, right)."""
    if text in _PADDINGS:
        return text
    parts = text.split(",")
    if len(parts) not in (1, 2, 4) or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"{text!r} is neither one number, two, four, nor one of {', '.join(_PADDINGS)}")
    found = [int(part) for part in parts]
    return found[0] if len(found) == 1 else tuple(found) if len(found) == 2 else (tuple(found[:2]), tuple(found[2:]))


def switch(text: str) -> bool:
    """True or false, as people write it."""
    if text.lower() not in _SWITCH:
        raise ValueError(f"{text!r} is not one of {', '.join(_SWITCH)}")
    return _SWITCH[text.lower()]


def _groups(text: str) -> int:
    return counts(text)[0]


_KEYWORDS = {
    "stride": pair,
    "padding": padding,
    "dilation": pair,
    "groups": _groups,
    "layout": lambda text: words(text.upper(), LAYOUTS)[0],
    "dtype": lambda text: words(text, DTYPES)[0],
    "activation": lambda text: None if text == "none" else text,
    "bias": switch,
    "residual": switch,
    "packed": switch,
}


def shapes_file(path: Path) -> list[Problem]:
    """Problems of a text file, one a line; empty lines and what follows "#" do not count.

    A line is a problem as `convkit explain` prints it, or the shapes of an input and its filters with keywords of
    `conv2d`: ``8x64x56x56 128x64x3x3 padding=1,1 stride=2 layout=NHWC dtype=float32 bias=yes packed=no``.
    """
    problems = []
    # Comments may be in any encoding; a byte-order mark is no part of the first line.
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            try:
                problems.append(_problem_of_line(text))
            except (ValueError, TypeError, typer.BadParameter) as error:
                raise typer.BadParameter(f"{path}, line {number}: {error}", param_hint="'--shapes'") from None
    if not problems:
        raise typer.BadParameter(f"{path} has no shapes", param_hint="'--shapes'")
    return problems


def _problem_of_line(text: str) -> Problem:
    first, *rest = text.split()
    if not rest:
        return problem(first)
    keywords: dict[str, Any] = {}
    for word in rest[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in _KEYWORDS:
            raise ValueError(f"{word!r} is not of the form keyword=value with one of {', '.join(_KEYWORDS)}")
        if key in keywords:
            raise ValueError(f"{key} is given twice")
        try:
            keywords[key] = _KEYWORDS[key](value)
        except (ValueError, typer.BadParameter) as error:
            raise ValueError(f"{key}: {error}") from None
    return of_call(shape(first), shape(rest[0]), **{"packed": True, **keywords})[0]

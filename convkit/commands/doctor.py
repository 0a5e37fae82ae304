"""``convkit doctor``: why is it slow, and what to do."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from json import dumps
from textwrap import fill
from typing import Annotated

import typer

from convkit.commands import arguments
from convkit.commands.failing import CommandError
from convkit.commands.terminal import console, error_console
from convkit.commands.watching import Watch

__all__ = ["doctor"]

# The shortest measurement that says anything.
_LEAST = 0.05
_SIGNS = {"ok": "ok", "hint": "hint", "slow": "SLOW"}


def doctor(
    seconds: Annotated[str, typer.Option("--measure", help="Time to measure; 0s measures nothing.")] = "5s",
    beside: Annotated[
        str, typer.Option("--with", help="Modules to import first, as your program does: torch,sklearn.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what makes convkit slow on this machine, and what to do about it.

    Exit status: 0 if nothing does, 1 if something does, 2 if it could not look.
    """
    from convkit.doctor.findings import findings
    from convkit.doctor.situation import gather

    duration = arguments.duration(seconds, "--measure")
    if 0 < duration < _LEAST:
        raise typer.BadParameter(f"{seconds!r}: it must be 0s or at least {_LEAST:g} s", param_hint="'--measure'")
    for module in arguments.words(beside) if beside else ():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise CommandError(f"--with {module}: {error}") from None
    with Watch("measuring", duration or None, error_console, timed=True):
        facts = gather(duration)
    found = findings(facts)
    slow = any(finding.level == "slow" for finding in found)
    if json:
        print(dumps({"slow": slow, "findings": [one._asdict() for one in found], "facts": asdict(facts)}))
        raise typer.Exit(slow)
    lines = [f"{facts.cpu} ({facts.machine})", ""]
    column = max(len(one.about) for one in found) + 8
    width = max(min(console.width, 80), 40)
    for one in found:
        head = f"{_SIGNS[one.level]:5} {one.about}"
        lines.append(fill(f"{head:{column}}{one.what}", width, subsequent_indent=" " * min(column, width // 2)))
    todo = [one.todo for one in sorted(found, key=lambda one: one.level != "slow") if one.todo]
    lines += ["", "Nothing to do." if not todo else "What to do, what costs most first:"]
    for number, text in enumerate(todo, 1):
        lines.append(fill(f"{number}. {text}", width, initial_indent="  ", subsequent_indent="     "))
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(slow)

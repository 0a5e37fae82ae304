"""One way of failing: a sentence on the error output, exit status 2, and nothing half written."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from convkit.commands.terminal import error_console, speak_any_encoding

__all__ = ["CommandError", "Commands"]


class CommandError(Exception):
    """Why a command cannot do what it was asked, in one sentence."""


class Commands(TyperGroup):
    """The group of all commands: what may happen to anybody ends in one sentence, a bug in a traceback."""

    def main(self, *args: Any, **keywords: Any) -> Any:
        """Run the command line."""
        speak_any_encoding()
        return super().main(*args, **keywords)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run one command."""
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()
        except Exception as error:
            sentence = _sentence(error)
            if sentence is None:
                raise
            _give_up_stdout()
            error_console.print(Text.assemble(("Error: ", "bold red"), sentence), soft_wrap=True)
            raise typer.Exit(2) from error
        return value


def _sentence(error: Exception) -> str | None:
    """The reason in one sentence if the world is to blame; None for typer's own exceptions and for bugs."""
    if isinstance(error, BrokenPipeError):  # whoever read the output has seen enough: typer ends quietly
        return None
    if isinstance(error, CommandError):
        return str(error)
    if isinstance(error, OSError):
        why = error.strerror or str(error)
        return f"{os.fspath(error.filename)}: {why}" if isinstance(error.filename, str | os.PathLike) else why
    database = sys.modules.get("convkit.tuner.evidence.database")  # if it is not loaded, nothing has raised its error
    if database is not None and isinstance(error, database.DatabaseError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}" if str(error) else "not enough memory"
    if isinstance(error, ValueError):
        return _wrong_variable()
    return None


def _wrong_variable() -> str | None:
    """What is wrong with a CONVKIT_* variable."""
    from convkit import _core
    from convkit.tuner.inventory import default_accuracy
    from convkit.tuner.modes import default_mode
    from convkit.tuner.process import verbosity

    for read in (_core.active_isa, _core.default_threads, default_mode, lambda: default_accuracy("float32"), verbosity):
        try:
            read()
        except ValueError as error:
            return str(error)
    return None


def _give_up_stdout() -> None:
    """What a full disk has not taken is dropped, or the interpreter would fail over it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

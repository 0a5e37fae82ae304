"""The commands of the `convkit` script; needs the extra `cli`.

A command's module is imported when the command runs or is asked for help: the list of commands imports none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from convkit.commands.failing import Commands

__all__ = ["app"]

# What the list says of each: the first line of the command's own help.
SUMMARIES = {
    "info": "Show machine, build and configuration: one paste for a bug report.",
    "doctor": "Say what makes convkit slow on this machine, and what to do about it.",
    "demo": "Send a photograph through a filter bank and through VGG-19, tuning each layer on the way.",
    "tune": "Measure the kernels for a network's layers or a file of shapes, and remember the outcome.",
    "explain": "Explain the choice of a kernel: tiers asked, candidates, times, errors.",
    "bench": "Time layers with convkit and with other libraries, in turns, in one process, and check every result.",
    "calibrate": (
        "Measure FMA peak, bandwidths, the cost of a team and each kernel's distance from its declared cost; keep them."
    ),
    "report": "Say what tuning is worth on this machine, and how good choices without measuring would be.",
    "run": "Run an ONNX model once and again: shapes of its outputs, time of its nodes.",
    "db": "The database of measurements: show, check, merge, export.",
}
_LISTING = "convkit.commands.listing"


class LazyCommands(Commands):
    """The group of all commands, imported one by one."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of the list."""
        return list(SUMMARIES)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list with what is known without the commands."""
        ctx.meta[_LISTING] = True
        super().format_help(ctx, formatter)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One command; for the list, its name and summary."""
        if cmd_name not in SUMMARIES:
            return None
        if ctx.meta.get(_LISTING):
            return TyperCommand(cmd_name, help=SUMMARIES[cmd_name])
        module = import_module(f"convkit.commands.{cmd_name}")
        home: typer.Typer | None = getattr(module, "app", None)
        if home is None:
            home = typer.Typer(add_completion=False, rich_markup_mode="rich")
            home.command(cmd_name)(getattr(module, cmd_name))
        command = typer.main.get_command(home)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from convkit import __version__

        print(f"convkit {__version__}")
        raise typer.Exit


@app.callback()
def convkit(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Fast 2-D convolution for NumPy: look at this machine, tune shapes for it, see why a kernel was chosen."""

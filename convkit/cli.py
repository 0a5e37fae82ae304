"""The door of the `convkit` script: the commands, or the line that installs what they need."""

from __future__ import annotations

import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line; exit status 2 with the install line if typer or rich is missing."""
    try:
        from convkit.commands import app
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        from convkit.distribution import install_line

        print(f"convkit's commands need {' and '.join(_NEEDED)}: {install_line('cli')}", file=sys.stderr)
        sys.exit(2)
    app(prog_name="convkit")

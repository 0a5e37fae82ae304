"""The console that all commands print to."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console"]

# A pipe has no width of its own; kernel names must not be cut short in a log.
console = Console()
if not console.is_terminal:
    console = Console(width=160)

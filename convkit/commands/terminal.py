"""The console that all commands print to, and how times and sizes are written."""

from __future__ import annotations

from rich.console import Console

__all__ = ["bytes_text", "console", "threads_text", "time_text"]

# A pipe has no width of its own; kernel names must not be cut short in a log.
console = Console()
if not console.is_terminal:
    console = Console(width=160)


def time_text(seconds: float | None) -> str:
    """A time with three digits and its unit."""
    if seconds is None:
        return "-"
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1.0 or unit == "µs":
            return f"{seconds * factor:#.3g} {unit}".replace(". ", " ")
    raise AssertionError


def bytes_text(size: float) -> str:
    """A size in bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def threads_text(count: int) -> str:
    """A team size with its noun."""
    return "1 thread" if count == 1 else f"{count} threads"

"""The consoles that all commands print to, in whatever encoding they have."""

from __future__ import annotations

import codecs
import io
import sys

from rich.console import Console

__all__ = ["console", "error_console", "speak_any_encoding"]


def _console(*, stderr: bool) -> Console:
    found = Console(stderr=stderr)
    # A pipe has no width of its own; kernel names must not be cut short in a log.
    return found if found.is_terminal else Console(stderr=stderr, width=160)


console, error_console = _console(stderr=False), _console(stderr=True)

# One letter each, so that columns stay columns.
_SPELLED = str.maketrans({"µ": "u", "σ": "s", "×": "x", "→": ">", "—": "-", "…": "."})


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_SPELLED)
    return "".join(letter if letter.isascii() else "?" for letter in text), error.end


def speak_any_encoding() -> None:
    """Let standard output and error spell what their encoding lacks, instead of raising."""
    codecs.register_error("convkit-spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="convkit-spelled")

"""The calls users make: `conv2d`, `conv_transpose2d`, and what belongs to the process that it runs in."""

from __future__ import annotations

from typing import Any

from convkit import _core
from convkit._core import conv2d, conv_transpose2d

__all__ = ["clear_workspaces", "conv2d", "conv_transpose2d"]


def clear_workspaces() -> None:
    """Return the memory that convkit keeps for later calls to the operating system.

    Workspaces of kernels and the memory of large results (32 MiB and more) are kept and used again, because touching a
    fresh page costs more than most of what is done with it. Arrays that are in use are not affected.
    """
    _core.clear_workspaces()


def _choose(
    problem: tuple[int, ...], threads: int, algorithm: Any, accuracy: Any, workspace_limit: Any
) -> _core.Chosen:
    """Stand in for the tuner's chooser until the first call needs it."""
    from convkit.tuner.modes import chooser

    _core.set_chooser(chooser)
    return chooser(problem, threads, algorithm, accuracy, workspace_limit)


_core.set_chooser(_choose)

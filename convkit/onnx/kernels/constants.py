"""What a node makes of its constants: once, whichever of a session's threads comes first."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any

from convkit.tuner.process import ForkSafeLock

__all__ = ["Made"]


class Made:
    """What was made last, with the operands and the options that it was made of.

    A thread that needs what another one is making waits for it. After a fork in the meantime the child makes its own.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._last: tuple[tuple[Any, ...], tuple[Any, ...], Any] | None = None

    def __call__(self, operands: tuple[Any, ...], options: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What is made of these operands, the very same ones, and of options that are equal.

        Parameters
        ----------
        operands : tuple
            As many at every call; arrays or None.
        options : tuple
        make : callable
            Makes it.
        """
        last = self._last
        if last is None or not (all(map(is_, operands, last[0])) and options == last[1]):
            with self._lock:
                last = self._last
                if last is None or not (all(map(is_, operands, last[0])) and options == last[1]):
                    self._last = last = operands, options, make()
        return last[2]

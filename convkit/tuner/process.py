"""What this process has made and learnt: one object that `reload` replaces whole. Upper layers register their slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from convkit.tuner.locks import planning

T = TypeVar("T")


class Slot(Generic[T]):
    """Something of which a process has one: made when it is first asked for, and anew after `reload`.

        @Slot
        def selector() -> Selector: ...

    Nothing that calls in flight still hold is changed by a `reload`. What must outlive it, such as the numbers that are
    part of a plan's key, is kept elsewhere.

    Parameters
    ----------
    make : callable
        Runs under the planning lock; it may ask for what is in other slots.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __call__(self) -> T:
        """What is in the slot."""
        state = _state
        if self not in state:
            with planning:
                if self not in state:
                    state[self] = self._make()
        found: T = state[self]
        return found


_state: dict[Slot[Any], Any] = {}


def reload() -> None:
    """Read the databases, the environment and the calibration anew; plans are chosen again."""
    from convkit import _core

    global _state
    with planning:
        _state = {}
    _core.clear_plans()

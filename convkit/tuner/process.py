"""What a process has one of: the lock of its planning, what it has made and learnt, and what it has told the log."""

from __future__ import annotations

import os
import weakref
from _thread import RLock, get_ident
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from convkit import _core

T = TypeVar("T")

# A fork goes ahead without the lock after this long: whoever holds it may be waiting for the forking thread.
_LONGEST_FORK_WAIT = 10.0

_CLock: Any = RLock


class _Lock(_CLock):  # type: ignore[misc] # `with` takes and releases it in C: Ctrl-C never comes in between
    @property
    def held(self) -> bool:
        """True in the thread that holds it."""
        return bool(self._is_owned())

    def renew(self) -> None:
        """Make it free, unless this thread holds it: in a child after fork no other one exists."""
        if not self.held:
            self._at_fork_reinit()


class AwaitedLock(_Lock):
    """A lock, kept as long as the process, for which a fork waits: no child finds half of what happens under it."""

    def __init__(self) -> None:
        self._forking: dict[int, bool] = {}
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._after_fork_in_child
        )

    def _before_fork(self) -> None:
        self._forking[get_ident()] = self.acquire(timeout=_LONGEST_FORK_WAIT)

    def _after_fork(self) -> None:
        if self._forking.pop(get_ident(), False):
            self.release()

    def _after_fork_in_child(self) -> None:
        self._after_fork()
        self.renew()
        self._forking.clear()


class PlanningLock(AwaitedLock):
    """Held while the package imports a module or opens a file within somebody's call: a fork waits for it.

    A child has only the thread that forked, and nobody frees in it what another thread held: the lock of a module that
    was being imported, a mutex inside SQLite. So all of that happens under this lock, one thread at a time, and
    `os.fork` takes it first. Two rules keep that free of deadlocks. Nothing that takes long, that waits for another
    lock of the package or that runs code of the user's (a log handler, a candidate) happens under it. And nobody waits
    for it while holding a lock that is also taken under it.
    """

    def __init__(self) -> None:
        self._tasks: deque[Callable[[], None]] = deque()
        super().__init__()

    __exit__ = _core.leave  # compiled, as the others' is: releases, and then runs the tasks

    def later(self, task: Callable[[], None]) -> None:
        """Run a task as soon as this thread does not hold the lock: now, or at the end of its block."""
        self._tasks.append(task)
        self._run()

    def _run(self) -> None:
        while self._tasks and not self.held:
            try:
                task = self._tasks.popleft()
            except IndexError:
                return
            task()


class ForkSafeLock(_Lock):
    """A re-entrant lock; in a child after fork it is free, unless the forking thread itself held it.

    What it guards may then be half changed: every holder must leave its data usable at any moment.
    """

    def __init__(self) -> None:
        _all.add(self)


_all: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()
planning = PlanningLock()


def _renew_all() -> None:
    for lock in list(_all):
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)


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
    global _state
    with planning:
        _state = {}
    _core.clear_plans()


@Slot
def _told() -> set[str]:
    """The causes that were told."""
    return set()


def notice_once(cause: str, text: str) -> None:
    """Log `text` as a warning of the "convkit" logger, unless `cause` was told before in this process."""
    with planning:
        if cause in _told():
            return
        _told().add(cause)
        import logging
    # Handlers are the user's code.
    planning.later(lambda: logging.getLogger("convkit").warning("%s", text))


def verbosity() -> int:
    """CONVKIT_VERBOSE: 0 tells trouble only, 1 each choice, 2 how it was made as well."""
    text = os.environ.get("CONVKIT_VERBOSE") or "0"
    if text not in ("0", "1", "2"):
        raise ValueError(f"CONVKIT_VERBOSE must be one of 0, 1, 2, got {text!r}")
    return int(text)


def narrate(level: int, text: Callable[[], str]) -> None:
    """Log a text as information if CONVKIT_VERBOSE asks for this level; to stderr if nobody listens."""
    if verbosity() < level:
        return
    with planning:
        import logging

        told = text()

    def tell() -> None:
        logger = logging.getLogger("convkit")
        if not logger.hasHandlers():
            logger.addHandler(logging.StreamHandler())
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.info("%s", told)

    planning.later(tell)

"""How much a call may learn: replay, online, tune, require or off, for the process or for a block of code."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from convkit import _core
from convkit.problem import Problem
from convkit.tuner.choosing.selector import Case, Choice, selector
from convkit.tuner.inventory import Constraints, parse_accuracy
from convkit.tuner.measuring.nested import discount
from convkit.tuner.process import Slot, narrate, planning, reload
from convkit.typing import Accuracy, Mode

if TYPE_CHECKING:
    from convkit.tuner.measuring.online import Turn

__all__ = ["MODES", "NotMeasuredError", "Settings", "chooser", "measuring", "reload", "settings", "tuning"]

MODES: tuple[Mode, ...] = get_args(Mode)

Chosen = tuple[int, tuple[int, ...], Callable[[float], None] | None, bool]


class NotMeasuredError(LookupError):
    """Mode "require" met a problem that no database knows."""


class Settings(NamedTuple):
    """What `tuning` set; None leaves the default.

    Attributes
    ----------
    mode : str
    budget : float or None
        Seconds that measuring may take within the block.
    accuracy : str, float or None
    """

    mode: Mode
    budget: float | None = None
    accuracy: Accuracy | None = None


class Budget:
    """Seconds that measuring may take within a block, and within the blocks in it that say nothing of a budget."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.spent = 0.0

    @property
    def left(self) -> float:
        """Seconds that are not spent."""
        return max(self.seconds - self.spent, 0.0)


class _Block(NamedTuple):
    """A `tuning` block that is open in a context."""

    settings: Settings
    budget: Budget | None
    token: int
    outer: _Block | None


_block: ContextVar[_Block | None] = ContextVar("convkit_tuning_block", default=None)
# Tokens are part of a plan's key: never given out twice, whatever is forgotten.
_numbers = itertools.count(1)
_tokens: dict[Settings, int] = {}
_MOST_TOKENS = 256


@Slot
def _tried() -> set[tuple[Problem, int]]:
    """What was measured at first sight, or could have been."""
    return set()


def default_mode() -> Mode:
    """CONVKIT_MODE, or replay."""
    return parse_mode(os.environ.get("CONVKIT_MODE") or "replay", "CONVKIT_MODE")


def parse_mode(value: object, name: str = "mode") -> Mode:
    """A mode's name; ValueError names those there are."""
    for mode in MODES:
        if value == mode:
            return mode
    raise ValueError(f"{name} must be one of {', '.join(MODES)}, got {value!r}")


def parse_budget(value: Any) -> float:
    """Seconds from a number or from a text like "500ms", "30s", "10m", "1h"."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(ms|s|m|h)?\s*", value)
        if match is None:
            raise ValueError(f'budget must be seconds or a text like "30s", "10m" or "1h", got {value!r}')
        return float(match[1]) * {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}[match[2]]
    seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"budget must be a finite number of seconds, got {value!r}")
    return seconds


def settings() -> Settings:
    """The settings in force here: those of the innermost `tuning` block, or the environment's."""
    block = _block.get()
    return Settings(default_mode()) if block is None else block.settings


@contextlib.contextmanager
def measuring() -> Iterator[float | None]:
    """Charge what a block of code takes to the budget; it gets the seconds that are left, None for no limit."""
    block = _block.get()
    budget = None if block is None else block.budget
    begin = time.perf_counter()
    try:
        yield None if budget is None else budget.left
    finally:
        if budget is not None:
            budget.spent += time.perf_counter() - begin


class tuning:  # noqa: N801 - used as ``with convkit.tuning(...)``
    """Context manager: another mode, budget or accuracy for the calls in a block.

    Parameters
    ----------
    mode : {"replay", "online", "tune", "require", "off"}, optional
    budget : float or str, optional
        Time that measuring may take in the block: seconds, or a text like "30s" or "10m". Then the block replays.
    accuracy : {"strict", "standard", "fast"} or float, optional
        Default accuracy of the calls in the block.

    Notes
    -----
    What is left out stays as it was around the block. The setting follows a `contextvars` context, so that threads and
    tasks do not disturb each other. A thread that is started in the block has its setting only if this Python hands
    contexts to threads (`sys.flags.thread_inherit_context`).
    """

    def __init__(
        self, mode: Mode | None = None, budget: float | str | None = None, accuracy: Accuracy | None = None
    ) -> None:
        self._mode = None if mode is None else parse_mode(mode)
        self._budget = None if budget is None else parse_budget(budget)
        self._accuracy = None if accuracy is None else parse_accuracy(accuracy)

    def __enter__(self) -> tuning:
        outer, before = _block.get(), settings()
        inner = Settings(
            self._mode or before.mode,
            before.budget if self._budget is None else self._budget,
            before.accuracy if self._accuracy is None else self._accuracy,
        )
        given = None if self._budget is None else Budget(self._budget)
        with planning:
            if len(_tokens) >= _MOST_TOKENS:  # no more than a miss for each of the plans
                _tokens.clear()
            if inner not in _tokens:
                _tokens[inner] = next(_numbers)
            block = _Block(inner, given or (outer.budget if outer else None), _tokens[inner], outer)
            _core.context_entered()
        _core.set_context(block.token)
        _block.set(block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = _block.get()
        outer = block.outer if block else None
        _block.set(outer)
        _core.set_context(outer.token if outer else 0)
        _core.context_left()


def chooser(
    problem_tuple: tuple[int, ...], threads: int, algorithm: object, accuracy: object, workspace_limit: object
) -> Chosen:
    """Answer a miss of the plan cache.

    Returns
    -------
    tuple
        Kernel index, parameters, what to tell the seconds of the run (or None), whether accuracy is "strict".
    """
    # Whatever is being timed around this call also pays for the miss.
    discount()
    problem = Problem.from_core(problem_tuple)
    mode, _, usual_accuracy = settings()
    free = algorithm is None and problem.multiply_adds > 0
    # In a signal handler that interrupted a choice, measuring could wait for threads that wait for that choice to end.
    may_measure = free and not planning.held
    if mode == "tune" and may_measure:
        _tune_unless_known(problem, threads)
    with planning:
        case = selector().on(problem, threads)
        constraints = case.task.constraints(usual_accuracy if accuracy is None else accuracy, workspace_limit)
        choice = case.model_choice(constraints) if mode == "off" and free else case.choose(constraints, algorithm)
    strict = constraints.accuracy == "strict"
    if mode == "online" and may_measure and choice.tier != "user":
        turn = _explore(case, constraints)
        if turn is not None:
            candidate, settle = turn
            return candidate.kernel.index, candidate.parameters, settle, strict
    if mode == "require" and free and not any(answer.ranking.ties(constraints) for answer in case.answers):
        raise NotMeasuredError(f"mode is require and no database knows {case.task}; run convkit tune")
    narrate(1, lambda: f"{case.task}: {choice} ({mode})")
    narrate(2, lambda: _explained(choice))
    return choice.candidate.kernel.index, choice.parameters, None, strict


def _explained(choice: Choice) -> str:
    from convkit.tuner.choosing.explanation import explain_problem

    return str(explain_problem(choice.problem, choice.threads))


def _explore(case: Case, constraints: Constraints) -> Turn | None:
    """The next candidate of the online mode; None if the budget is spent or none is right."""
    block = _block.get()
    budget = None if block is None else block.budget
    if budget is not None and not budget.left:
        return None
    with planning:
        from convkit.tuner.measuring.online import online
    turn = online().next(selector(), case, constraints)
    if turn is None:
        return None
    candidate, settle = turn
    if settle is None or budget is None:
        return turn

    def settle_and_count(seconds: float) -> None:
        budget.spent += seconds
        settle(seconds)

    return candidate, settle_and_count


def _tune_unless_known(problem: Problem, threads: int) -> None:
    """Measure at first sight, once a process: what a short budget left out is not tried again at each call."""
    with measuring() as left:
        if left == 0:
            return
        with planning:
            if (problem, threads) in _tried():
                return
            _tried().add((problem, threads))
            # What a busy machine has measured is measured again by `convkit tune`, not in somebody's call.
            if selector().on(problem, threads).tried:
                return
            from convkit.tuner.evidence.tiers import CALL_WAIT
            from convkit.tuner.measuring.tune import tune_problem
        tune_problem(problem, threads, at_most=math.inf if left is None else left, lock_wait=CALL_WAIT)

"""How much a call may learn: replay, online, tune, require or off, for the process or for a block of code."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, get_args

from convkit.problem import Problem
from convkit.tuner.accuracy import default_accuracy, parse_accuracy
from convkit.tuner.choosing.selector import Choice, Constraints, reset, selector
from convkit.tuner.locks import planning
from convkit.tuner.measuring.nested import discount
from convkit.tuner.notices import narrate
from convkit.typing import Accuracy, Mode

MODES: tuple[Mode, ...] = get_args(Mode)
_MEASURED_TIERS = ("user", "site", "shipped")

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


class _State:
    __slots__ = ("entered", "settings", "spent")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.entered = 0
        self.spent = 0.0


_tokens: dict[Settings, int] = {}
_states: dict[int, _State] = {}
_tried: set[tuple[Problem, int]] = set()


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
    state = _state()
    return Settings(default_mode()) if state is None else state.settings


def _state() -> _State | None:
    from convkit import _core

    return _states.get(_core.context())


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
    tasks do not disturb each other.
    """

    def __init__(
        self, mode: Mode | None = None, budget: float | str | None = None, accuracy: Accuracy | None = None
    ) -> None:
        self._mode = None if mode is None else parse_mode(mode)
        self._budget = None if budget is None else parse_budget(budget)
        self._accuracy = None if accuracy is None else parse_accuracy(accuracy)
        self._outer: list[tuple[int, int]] = []

    def __enter__(self) -> tuning:
        from convkit import _core

        outer = settings()
        inner = Settings(
            self._mode or outer.mode,
            outer.budget if self._budget is None else self._budget,
            outer.accuracy if self._accuracy is None else self._accuracy,
        )
        with planning:
            token = _tokens.setdefault(inner, len(_tokens) + 1)
            state = _states.setdefault(token, _State(inner))
            if not state.entered:
                state.spent = 0.0
            state.entered += 1
            previous = _core.context()
            _core.context_entered()
        _core.set_context(token)
        self._outer.append((previous, token))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        from convkit import _core

        previous, token = self._outer.pop()
        _core.set_context(previous)
        with planning:
            _states[token].entered -= 1
            _core.context_left()


def chooser(
    problem_tuple: tuple[int, ...], threads: int, algorithm: Any, accuracy: Any, workspace_limit: Any
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
    now = settings()
    mode = now.mode
    accuracy = now.accuracy if accuracy is None else accuracy
    strict = (default_accuracy(problem.dtype) if accuracy is None else accuracy) == "strict"
    free = algorithm is None and problem.multiply_adds > 0
    # In a signal handler that interrupted a choice, measuring could wait for threads that wait for that choice to end.
    may_measure = free and not planning.held
    if mode == "tune" and may_measure:
        _tune_unless_known(problem, threads)
    with planning:
        choosing = selector()
        if mode == "off" and free:
            choice = choosing.model_choice(problem, threads, accuracy=accuracy, workspace_limit=workspace_limit)
        else:
            choice = choosing.choose(
                problem, threads, algorithm=algorithm, accuracy=accuracy, workspace_limit=workspace_limit
            )
    if mode == "online" and may_measure and choice.tier != "user":
        turn = _explore(problem, threads, accuracy, workspace_limit)
        if turn is not None:
            return *turn, strict
    if mode == "require" and free and choice.tier not in _MEASURED_TIERS:
        raise NotMeasuredError(
            f"mode is require and no database knows {problem} with {threads} threads; run convkit tune"
        )
    narrate(1, lambda: f"{choice.problem} with {choice.threads} threads: {choice} ({mode})")
    narrate(2, lambda: _explained(choice))
    return selector().inventory.by_name[choice.kernel].index, choice.parameters, None, strict


def _explained(choice: Choice) -> str:
    from convkit.tuner.choosing.explanation import explain_problem

    return str(explain_problem(choice.problem, choice.threads))


def _explore(
    problem: Problem, threads: int, accuracy: Any, workspace_limit: Any
) -> tuple[int, tuple[int, ...], Callable[[float], None] | None] | None:
    """The next candidate of the online mode; None where the budget is spent or none is right."""
    state = _state()
    if _budget_left(state) == 0:
        return None
    with planning:
        from convkit.tuner.measuring.online import online

        constraints = Constraints.of_call(selector().inventory, problem, accuracy, workspace_limit)
    turn = online.next(selector(), problem, threads, constraints)
    if turn is None:
        return None
    candidate, settle = turn
    if settle is None or state is None:
        return candidate.kernel.index, candidate.parameters, settle

    def settle_and_count(seconds: float) -> None:
        state.spent += seconds
        settle(seconds)

    return candidate.kernel.index, candidate.parameters, settle_and_count


def _budget_left(state: _State | None) -> float | None:
    """Seconds that measuring may still take in this block; None where nothing limits them."""
    if state is None or state.settings.budget is None:
        return None
    return max(state.settings.budget - state.spent, 0.0)


def _tune_unless_known(problem: Problem, threads: int) -> None:
    """Measure at first sight, once a process: what a short budget left out is not tried again at each call."""
    state = _state()
    left = _budget_left(state)
    if left == 0:
        return
    with planning:
        if (problem, threads) in _tried:
            return
        _tried.add((problem, threads))
        # What a busy machine has measured is measured again by `convkit tune`, not in somebody's call.
        if selector().tried(problem, threads):
            return
        from convkit.tuner.evidence.tiers import CALL_WAIT
        from convkit.tuner.measuring.tune import tune_problem
    begin = time.perf_counter()
    try:
        tune_problem(problem, threads, at_most=left, lock_wait=CALL_WAIT)
    finally:
        if state is not None:
            state.spent += time.perf_counter() - begin


def reload() -> None:
    """Read the databases, the environment and the calibration anew; plans are chosen again."""
    from convkit import _core
    from convkit.tuner.notices import forget_notices

    with planning:
        reset()
        forget_notices()
        _tried.clear()
    if "convkit.tuner.measuring.online" in sys.modules:
        from convkit.tuner.measuring.online import online

        online.clear()
    _core.clear_plans()

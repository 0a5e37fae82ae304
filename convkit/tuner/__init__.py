"""Which kernel? Measures, remembers and chooses. The names here load their modules on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convkit.tuner.choosing.explanation import Explanation, explain, explain_problem
    from convkit.tuner.choosing.selector import Choice, UnsupportedAlgorithmError, choose, is_complete
    from convkit.tuner.measuring.tune import tune_problem
    from convkit.tuner.modes import NotMeasuredError, reload, tuning

_HOMES = {
    "Choice": "convkit.tuner.choosing.selector",
    "Explanation": "convkit.tuner.choosing.explanation",
    "NotMeasuredError": "convkit.tuner.modes",
    "UnsupportedAlgorithmError": "convkit.tuner.choosing.selector",
    "choose": "convkit.tuner.choosing.selector",
    "explain": "convkit.tuner.choosing.explanation",
    "explain_problem": "convkit.tuner.choosing.explanation",
    "is_complete": "convkit.tuner.choosing.selector",
    "reload": "convkit.tuner.modes",
    "tune_problem": "convkit.tuner.measuring.tune",
    "tuning": "convkit.tuner.modes",
}

__all__ = [
    "Choice",
    "Explanation",
    "NotMeasuredError",
    "UnsupportedAlgorithmError",
    "choose",
    "explain",
    "explain_problem",
    "is_complete",
    "reload",
    "tune_problem",
    "tuning",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from convkit.tuner.locks import planning

    with planning:
        from importlib import import_module

        return getattr(import_module(home), name)

"""Which kernel? Measures, remembers and chooses. The names here load their modules on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convkit.tuner.best_of import BestOf
    from convkit.tuner.explanation import Explanation, explain, explain_problem
    from convkit.tuner.modes import NotMeasuredError, reload, tuning
    from convkit.tuner.selector import Choice, UnsupportedAlgorithmError, choose, is_complete
    from convkit.tuner.show import config_text, show_config
    from convkit.tuner.tune import tune_problem

_HOMES = {
    "BestOf": "best_of",
    "Choice": "selector",
    "Explanation": "explanation",
    "NotMeasuredError": "modes",
    "UnsupportedAlgorithmError": "selector",
    "choose": "selector",
    "config_text": "show",
    "explain": "explanation",
    "explain_problem": "explanation",
    "is_complete": "selector",
    "reload": "modes",
    "show_config": "show",
    "tune_problem": "tune",
    "tuning": "modes",
}

__all__ = [
    "BestOf",
    "Choice",
    "Explanation",
    "NotMeasuredError",
    "UnsupportedAlgorithmError",
    "choose",
    "config_text",
    "explain",
    "explain_problem",
    "is_complete",
    "reload",
    "show_config",
    "tune_problem",
    "tuning",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)

"""Which kernel? Measures, remembers and chooses. The names here load their modules on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convkit.tuner.choosing.explanation import Explanation, explain_problem
    from convkit.tuner.choosing.selector import Choice, UnsupportedAlgorithmError, choose, is_complete
    from convkit.tuner.measuring.tune import tune_problem
    from convkit.tuner.modes import NotMeasuredError, tuning
    from convkit.tuner.process import reload

__all__ = [
    "Choice", "Explanation", "NotMeasuredError", "UnsupportedAlgorithmError", "choose", "explain_problem",
    "is_complete", "reload", "tune_problem", "tuning",
]  # fmt: skip

# Where each name's module is; the others are the selector's.
_HOMES = {
    "Explanation": "choosing.explanation", "explain_problem": "choosing.explanation",
    "NotMeasuredError": "modes", "tuning": "modes", "reload": "process", "tune_problem": "measuring.tune",
}  # fmt: skip

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from convkit.tuner.process import planning

        with planning:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'choosing.selector')}"), name)

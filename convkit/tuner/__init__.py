"""Which kernel? Measures, remembers and chooses. The names here load their modules on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.lazy import attributes

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

if not TYPE_CHECKING:
    _HOMES = {
        "Explanation": "choosing.explanation", "explain_problem": "choosing.explanation",
        "NotMeasuredError": "modes", "tuning": "modes", "reload": "process", "tune_problem": "measuring.tune",
    }  # fmt: skip
    __getattr__ = attributes(__name__, dict.fromkeys(__all__, "choosing.selector") | _HOMES)

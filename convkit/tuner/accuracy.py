"""Accuracy as a constraint on kernels: what "strict", "standard", "fast" and a bound allow."""

from __future__ import annotations

import math
import os
from typing import Any, Literal

from convkit.problem import Problem
from convkit.tuner.inventory import Kernel
from convkit.typing import Accuracy

LEVELS: tuple[Literal["strict", "standard", "fast"], ...] = ("strict", "standard", "fast")
STANDARD_RATIO = 4.0
# The measured error of a kernel is a sample; it overrules the declared class only where it is clearly larger.
_SAMPLING_SLACK = 1.25


def parse_accuracy(value: Any, name: str = "accuracy") -> Accuracy:
    """A level's name or a positive bound; ValueError names what is allowed."""
    for level in LEVELS:
        if isinstance(value, str) and value == level:
            return level
    try:
        bound = float(value)
    except (TypeError, ValueError):
        bound = math.nan
    if not bound > 0 or math.isinf(bound):
        raise ValueError(f"{name} must be one of {', '.join(LEVELS)} or a positive number, got {value!r}")
    return bound


def default_accuracy(dtype: str) -> Accuracy:
    """CONVKIT_ACCURACY, or else standard for float32 and strict for float64."""
    text = os.environ.get("CONVKIT_ACCURACY")
    if text:
        return parse_accuracy(text, "CONVKIT_ACCURACY")
    return "standard" if dtype == "float32" else "strict"


def direct_error(problem: Problem) -> float:
    """Expected RMS error of direct summation relative to RMS(y), on normal data.

    Rounding errors of a running sum of K terms grow like sqrt(K); the blocked sums of a GEMM stay below it.
    """
    unit = 2.0**-24 if problem.dtype == "float32" else 2.0**-53
    return unit * (0.5 + 0.25 * math.sqrt(problem.reduction))


def expected_error(kernel: Kernel, problem: Problem, measured: float | None) -> float:
    """The larger of the inventory's error class and what was measured."""
    declared = direct_error(problem) * (1.0 if kernel.direct else max(kernel.rms_ratio, 1.0))
    return max(declared, measured or 0.0)


def class_of(kernel: Kernel) -> int:
    """The strictest level that allows the kernel, as an index of `LEVELS`."""
    if kernel.direct:
        return 0
    return 1 if kernel.rms_ratio <= STANDARD_RATIO else 2


def refusal(kernel: Kernel, problem: Problem, accuracy: Accuracy, measured: float | None = None) -> str | None:
    """Why `accuracy` forbids the kernel here, or None where it is allowed."""
    if accuracy == "fast" or (kernel.direct and isinstance(accuracy, str)):
        return None
    if accuracy == "strict":
        return "not direct summation"
    if accuracy == "standard":
        ratio = max(kernel.rms_ratio, (measured or 0.0) / (_SAMPLING_SLACK * direct_error(problem)))
        return None if ratio <= STANDARD_RATIO else f"RMS error {ratio:.1f} times direct summation's"
    error = expected_error(kernel, problem, measured)
    return None if error <= float(accuracy) else f"expected RMS error {error:.1e}"

"""What a kernel could reach at most on this machine: the line that is drawn beside every speed."""

from __future__ import annotations

from convkit.tuner.inventory import Candidate, Task

__all__ = ["lanes", "limit"]

_BYTES = {"portable": 16, "avx2": 32, "avx512": 64}


def lanes(isa: str, dtype: str) -> int:
    """Elements in a vector register."""
    return _BYTES[isa] // (4 if dtype == "float32" else 8)


def limit(task: Task, candidate: Candidate, fma_peak: float) -> float:
    """Seconds below which a candidate cannot get, however well its kernel is written.

    The multiply-adds that the kernel declares, and for transforms every vector instruction beside them, at one
    instruction for each that the FMA units could start.

    Parameters
    ----------
    fma_peak : float
        Multiply-adds a second of the whole team.
    """
    cost, kernel = task.cost(candidate), candidate.kernel
    transforms = 0.0 if kernel.direct else cost["vector_ops"] * lanes(kernel.isa, task.problem.dtype)
    useful = task.problem.multiply_adds if kernel.direct else cost["fmas"]
    return float((useful + transforms) / fma_peak)

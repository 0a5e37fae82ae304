"""What a kernel could reach at most on this machine: the line that is drawn beside every speed."""

from __future__ import annotations

from convkit.problem import Problem

__all__ = ["kernel_limit", "lanes"]

_BYTES = {"portable": 16, "avx2": 32, "avx512": 64}


def lanes(isa: str, dtype: str) -> int:
    """Elements in a vector register."""
    return _BYTES[isa] // (4 if dtype == "float32" else 8)


def kernel_limit(problem: Problem, kernel: str, parameters: tuple[int, ...], threads: int, fma_peak: float) -> float:
    """Seconds below which a kernel cannot get, however well it is written.

    The multiply-adds that it declares, and for transforms every vector instruction beside them, at one instruction for
    each that the FMA units could start.

    Parameters
    ----------
    fma_peak : float
        Measured multiply-adds a second of the whole team.
    """
    from convkit import _core
    from convkit.tuner.choosing.selector import selector

    entry = selector().inventory.by_name[kernel]
    cost = _core.cost(entry.index, problem.to_core(), parameters, threads)
    transforms = 0.0 if entry.direct else cost["vector_ops"] * lanes(entry.isa, problem.dtype)
    useful = problem.multiply_adds if entry.direct else cost["fmas"]
    return float((useful + transforms) / fma_peak)

"""A kernel's declared cost over this machine's constants: the predicted time of a candidate.

A roofline with additive terms: the inner loop at its share of the FMA peak, the vector instructions beside it, the
bytes that each level of memory has to move, and what it costs to wake and to synchronise a team.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from convkit.problem import Problem

# Vector registers of the instruction set in bytes, and vector FMAs a core starts in a cycle: of AVX-512's, as many as
# the CPU's model has units for. CPUID does not tell the clock; this is what server cores have had for years.
_ISA_BYTES = {"portable": 16, "avx2": 32, "avx512": 64}
_ISA_FMAS = {"portable": 0.5, "avx2": 2.0}
_CLOCK = 3.0e9


class Constants(NamedTuple):
    """What the cost model must know of a machine, for one core where nothing else is said.

    Attributes
    ----------
    fmas : mapping of str to float
        float32 multiply-adds a second for each instruction set; float64 runs at half of it.
    vector_ops : float
        Whole-vector instructions a second.
    l2, l3, dram : float
        Bytes a second to and from each level.
    dram_total : float
        Bytes a second that all cores together get from memory.
    wake : float
        Seconds to start a team of more than one.
    barrier : float
        Seconds for one barrier.
    call : float
        Seconds of a call that computes nothing.
    corrections : mapping of str to float
        For some kernels, by name, how many times longer they take than the terms above add up to.
    source : str
        "CPUID defaults" or "calibrated <when>".
    """

    fmas: Mapping[str, float]
    vector_ops: float = 2 * _CLOCK
    l2: float = 48 * _CLOCK
    l3: float = 12 * _CLOCK
    dram: float = 14e9
    dram_total: float = 60e9
    wake: float = 5e-6
    barrier: float = 1.5e-6
    call: float = 3e-7
    corrections: Mapping[str, float] = MappingProxyType({})
    source: str = "CPUID defaults"


def default_constants() -> Constants:
    """Constants of a typical server core, for machines that were never calibrated."""
    from convkit import _core

    starts = {**_ISA_FMAS, "avx512": _core.cpu()["wide_units"]}
    return Constants({isa: _CLOCK * starts[isa] * _ISA_BYTES[isa] / 4 for isa in _ISA_BYTES})


def terms(cost: Mapping[str, float], problem: Problem, isa: str, threads: int, constants: Constants) -> float:
    """Seconds that the declared cost adds up to, without the correction of the kernel.

    Parameters
    ----------
    cost : mapping
        The fields of Cost in src/cpp/inventory.hpp: totals over all threads.
    threads : int
        Team size.

    Returns
    -------
    float
    """
    width = 4 / problem.itemsize
    peak = constants.fmas.get(isa, min(constants.fmas.values())) * width
    share = max(cost["imbalance"], 1.0) / threads
    compute = cost["fmas"] / (peak * max(cost["efficiency"], 0.01)) + cost["vector_ops"] / constants.vector_ops
    near = cost["bytes_l2"] / constants.l2 + cost["bytes_l3"] / constants.l3
    memory = cost["bytes_dram"] / min(constants.dram * threads, constants.dram_total)
    team = constants.wake + cost["barriers"] * constants.barrier if threads > 1 else 0.0
    return (compute + near) * share + memory + team + constants.call


def predict(
    cost: Mapping[str, float], problem: Problem, kernel: str, isa: str, threads: int, constants: Constants
) -> float:
    """Seconds that a kernel of this name and declared cost should take."""
    return terms(cost, problem, isa, threads, constants) * constants.corrections.get(kernel, 1.0)

"""A kernel's declared cost over this machine's constants: the predicted time of a candidate.

A roofline with additive terms: the inner loop at its share of the FMA peak, the vector instructions beside it, the
bytes that each level of memory has to move, and what it costs to wake and to synchronise a team. The constants are
CPUID's defaults until they are measured; what was measured is kept in a file beside the user's database.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from convkit import _core
from convkit.tuner.evidence.paths import paths
from convkit.tuner.inventory import Candidate, Task
from convkit.tuner.process import notice_once

# Vector registers of the instruction set in bytes, and vector FMAs a core starts in a cycle: of AVX-512's, as many as
# the CPU's model has units for. CPUID does not tell the clock; this is what server cores have had for years.
_ISA_BYTES = {"portable": 16, "avx2": 32, "avx512": 64}
_ISA_FMAS = {"portable": 0.5, "avx2": 2.0}
_CLOCK = 3.0e9

_LONGEST = 1_000_000
_NUMBERS = ("vector_ops", "l2", "l3", "dram", "dram_total", "wake", "barrier", "call")
_DEFAULTS = "CPUID defaults"


class Constants(NamedTuple):
    """What the cost model must know of a machine, for one core if nothing else is said.

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
    source: str = _DEFAULTS

    @property
    def calibrated(self) -> bool:
        """They were measured."""
        return self.source != _DEFAULTS

    def terms(self, task: Task, candidate: Candidate) -> float:
        """Seconds that the candidate's declared cost adds up to, without the correction of its kernel."""
        cost, threads = task.cost(candidate), task.threads
        width = 4 / task.problem.itemsize
        peak = self.fmas.get(candidate.kernel.isa, min(self.fmas.values())) * width
        share = max(cost["imbalance"], 1.0) / threads
        compute = cost["fmas"] / (peak * max(cost["efficiency"], 0.01)) + cost["vector_ops"] / self.vector_ops
        near = cost["bytes_l2"] / self.l2 + cost["bytes_l3"] / self.l3
        memory = cost["bytes_dram"] / min(self.dram * threads, self.dram_total)
        team = self.wake + cost["barriers"] * self.barrier if threads > 1 else 0.0
        return (compute + near) * share + memory + team + self.call

    def predict(self, task: Task, candidate: Candidate) -> float:
        """Seconds that the candidate should take."""
        return self.terms(task, candidate) * self.corrections.get(candidate.kernel.name, 1.0)


def default_constants() -> Constants:
    """Constants of a typical server core, for machines that were never calibrated."""
    starts = {**_ISA_FMAS, "avx512": _core.cpu()["wide_units"]}
    return Constants({isa: _CLOCK * starts[isa] * _ISA_BYTES[isa] / 4 for isa in _ISA_BYTES})


def constants_path() -> str | None:
    """The file beside the user's tuning database; None if only memory is used."""
    user = paths().user
    return None if user is None else os.path.splitext(user)[0] + ".calibration.json"


def save(machine: str, record: Mapping[str, Any], constants: Constants) -> None:
    """Write the constants of a machine class, with what else the calibration knows.

    Trouble is logged once and costs only the memory of them.
    """
    import json

    path = constants_path()
    if path is None:
        notice_once("no calibration file", f"the calibration is not kept: {paths().reason}")
        return
    value = {**record, "machine": machine, "constants": constants._asdict()}
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        scratch = f"{path}.{os.getpid()}"
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            json.dump(value, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except OSError as error:
        notice_once(f"write {path}", f"the calibration is not kept: {path}: {error.strerror}")


def load(machine: str) -> Constants | None:
    """The stored constants of a machine class; None if there are none. Never raises."""
    path = constants_path()
    # Without the file, what reads it need not be imported.
    if path is None or not os.path.exists(path):
        return None
    import json

    try:
        status = os.stat(path)
        if status.st_uid != os.geteuid() or status.st_mode & 0o002 or status.st_size > _LONGEST:
            raise ValueError("it must belong to this user, not be writable by everyone, and be small")
        with open(path) as stream:
            value = json.load(stream)
        return constants_from(value) if value["machine"] == machine else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        notice_once(f"read {path}", f"the calibration {path} is ignored: {error}")
        return None


def constants_from(value: Any) -> Constants:
    """The constants in what `save` wrote; ValueError, KeyError or TypeError for anything else."""
    inner = value["constants"]
    numbers = {name: _positive(inner[name]) for name in _NUMBERS}
    fmas = {str(isa)[:40]: _positive(peak) for isa, peak in inner["fmas"].items()}
    if not fmas:
        raise ValueError("no FMA peak")
    corrections = {str(kernel)[:120]: _positive(factor) for kernel, factor in inner["corrections"].items()}
    return Constants(fmas, **numbers, corrections=corrections, source=str(inner["source"])[:100])


def _positive(value: Any) -> float:
    number = float(value)
    if isinstance(value, str) or not 0 < number < 1e18:
        raise ValueError(f"impossible constant {value!r}")
    return number

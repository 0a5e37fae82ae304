"""What may make convkit slow, as facts: CPU, threads, OpenMP runtimes, databases, and a few seconds of measurement."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Facts", "Measurement", "TierFacts", "gather", "measure", "openmp_runtimes"]

_VARIABLES = (
    "CONVKIT_ISA", "CONVKIT_MODE", "CONVKIT_ACCURACY", "CONVKIT_NUM_THREADS", "CONVKIT_OPENMP", "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY",
)  # fmt: skip
_RUNTIME = re.compile(r"lib(?:gomp|i?omp5?)\b[^/]*\.so[^/]*$")


@dataclass(frozen=True, slots=True)
class TierFacts:
    """One source of measurements.

    Attributes
    ----------
    name : str
        "user", "site" or "shipped".
    path : str
        The file; empty if there is none.
    trials, problems : int
        What it holds for all machines.
    here : int
        Problems that it answers on machines like this one.
    stale : int
        Those of them that `convkit tune --stale` would measure again.
    trouble : str
        Why it cannot be used; empty if it can.
    """

    name: str
    path: str
    trials: int = 0
    problems: int = 0
    here: int = 0
    stale: int = 0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a few seconds of work reach.

    Attributes
    ----------
    peak, team_peak : float
        float32 operations a second of the FMA units: of one thread, and of the default team.
    layer, team_layer : float
        The same for a 3x3 convolution of 64 channels, counted as direct summation does.
    kernel : str
        What ran it.
    contended : str
        What showed that something else used the machine; empty if nothing did.
    """

    seconds: float
    peak: float
    team_peak: float
    layer: float
    team_layer: float
    kernel: str
    contended: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The situation of this process.

    Attributes
    ----------
    isa, usable : str and sequence of str
        The instruction set in force, and those that the CPU has, best first.
    cpus, bound : int
        CPUs of the machine, and those that this process may run on.
    quota : float or None
        CPUs that the control groups grant; None if they set no limit.
    threads, available : int
        The team of a call that names none, and the threads that can work at once.
    runtime, runtimes : str and sequence of str
        The OpenMP library that convkit uses (empty: its own threads), and all that are loaded.
    calibrated : float or None
        Operations a second of one thread that `convkit calibrate` measured; None before.
    cost_model : str
        Where its constants come from.
    variables : mapping of str to str
        Environment variables that matter, as far as they are set.
    """

    cpu: str
    machine: str
    isa: str
    usable: Sequence[str]
    cpus: int
    bound: int
    quota: float | None
    threads: int
    available: int
    runtime: str
    runtimes: Sequence[str]
    tiers: Sequence[TierFacts]
    cost_model: str
    calibrated: float | None
    virtual: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    measurement: Measurement | None = None


def gather(seconds: float = 5.0) -> Facts:
    """Look at this process and its machine, and measure for some seconds; 0 measures nothing."""
    from convkit import _core
    from convkit.tuner import machine
    from convkit.tuner.choosing.selector import selector

    constants, isa = selector().constants, _core.active_isa()
    quota = float(_core.group_limits()["cpus"])
    # What a convolution loads comes first, so that the list of runtimes is what a program has.
    measurement = measure(seconds) if seconds else None
    return Facts(
        cpu=str(_core.cpu().get("brand", "")).strip(),
        machine=str(machine.machine_class()),
        isa=isa,
        usable=list(_core.usable_isas()),
        cpus=os.cpu_count() or 1,
        bound=len(os.sched_getaffinity(0)),
        quota=quota if quota != float("inf") else None,
        threads=_core.default_threads(),
        available=_core.available_cpus(),
        runtime=_core.thread_runtime(),
        runtimes=openmp_runtimes(),
        tiers=_tiers(),
        cost_model=constants.source,
        calibrated=2 * constants.fmas[isa] if constants.calibrated else None,
        virtual=bool(machine.facts()["hypervisor"]),
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        measurement=measurement,
    )


def openmp_runtimes(maps: str = "/proc/self/maps") -> list[str]:
    """Files of the OpenMP libraries that this process has loaded."""
    try:
        with open(maps, encoding="utf-8", errors="replace") as stream:
            paths = {line.split(maxsplit=5)[5].strip() for line in stream if "/" in line}
    except OSError:
        return []
    return sorted({os.path.realpath(path) for path in paths if _RUNTIME.search(os.path.basename(path))})


def _tiers() -> list[TierFacts]:
    """The databases in the order of asking."""
    from convkit.report.summary import measured_cases, stale_cases
    from convkit.tuner.choosing.selector import selector
    from convkit.tuner.evidence.paths import paths

    where = paths()
    here = selector().context_of(1)
    stale: dict[str, int] = {}
    for case in stale_cases(measured_cases()):
        answered = next(answer.tier for answer in case.answers if answer.ranking.ranked or answer.ranking.failed)
        stale[answered] = stale.get(answered, 0) + 1
    found = []
    if where.user is None:
        found.append(TierFacts("user", "", trouble=where.reason))
    else:
        found.append(_file("user", where.user, stale.get("user", 0)))
    found += [_file("site", path, stale.get("site", 0)) for path in where.sites if os.path.exists(path)]
    shipped = next((tier for tier in selector().tiers if tier.name == "shipped"), None)
    if shipped is not None:
        known = shipped.problems(here)
        found.append(TierFacts("shipped", shipped.outcome() if known else "", problems=len(known), here=len(known)))
    return found


def _file(name: str, path: str, stale: int) -> TierFacts:
    from pathlib import Path

    from convkit.tuner.choosing.selector import selector
    from convkit.tuner.evidence.database import Database, DatabaseError
    from convkit.tuner.evidence.tiers import FileTier

    if not os.path.lexists(path):
        return TierFacts(name, path)
    try:
        counts = Database(Path(path), owned=name == "user").counts()
    except DatabaseError as error:
        return TierFacts(name, path, trouble=str(error))
    here = FileTier(name, path, exact=name == "user").problems(selector().context_of(1))
    return TierFacts(name, path, counts["trials"], counts["problems"], len(here), stale)


def measure(seconds: float) -> Measurement:
    """Run the FMA units and one layer, alone and as a team, for about so many seconds."""
    import numpy as np

    from convkit import _core
    from convkit.functional import Conv2d
    from convkit.problem import of_call
    from convkit.tuner import tuning
    from convkit.tuner.choosing.selector import choose
    from convkit.tuner.measuring.contention import ContentionGuard

    begin = time.perf_counter()
    share = seconds / 5.0
    guard = ContentionGuard()
    team = _core.default_threads()
    peak, team_peak = (2 * _core.fma_peak("float32", threads, 0.8 * share) for threads in (1, team))
    x = np.ones((1, 64, 56, 56), np.float32)
    layer = Conv2d(np.ones((64, 64, 3, 3), np.float32), padding=1)
    problem, _ = of_call(x, layer.weight, padding=1, packed=True)

    def rate(threads: int) -> float:
        times: list[float] = []
        end = time.perf_counter() + 1.5 * share
        conv = Conv2d(layer.weight, padding=1, num_threads=threads)

        def once() -> float:
            start = time.perf_counter()
            conv(x)
            return time.perf_counter() - start

        once()
        while not times or time.perf_counter() < end:
            times.append(guard.undisturbed(once, 2, threads=threads)[0])
            if len(times) % 16 == 0:
                guard.end_round()
        return problem.flops / statistics.median(times)

    # Nothing but a look-up: the user's mode may measure, or refuse what nobody has measured.
    with tuning(mode="replay"):
        alone, together = rate(1), rate(team)
        kernel = choose(problem, team).kernel
    spent = time.perf_counter() - begin
    return Measurement(spent, peak, team_peak, alone, together, kernel, guard.reason() or "")

"""Calibration: the cost model's constants measured on this machine, kept beside the tuning database.

Every constant is measured by itself: the FMA peak by a loop of FMAs, bandwidths by copies that fit one level of memory,
the cost of a team by a convolution that has nothing to share. Then every kernel runs a few problems with its default
parameters, which tells how far its declared cost is off.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from convkit.problem import Problem
from convkit.tuner.choosing.cost_model import Constants, default_constants, terms
from convkit.tuner.choosing.intervals import median
from convkit.tuner.evidence.paths import paths
from convkit.tuner.measuring.contention import ContentionGuard
from convkit.tuner.notices import notice_once

Progress = Callable[[int, int, str], None]

_LONGEST = 1_000_000
_NUMBERS = ("vector_ops", "l2", "l3", "dram", "dram_total", "wake", "barrier", "call")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Constants of one machine class.

    Attributes
    ----------
    machine : str
        Key of the `MachineClass`.
    contended : str or None
        What showed that the machine was not ours meanwhile.
    wake_cold : float
        Seconds to start a team whose workers have gone to sleep.
    """

    machine: str
    started: str
    constants: Constants
    wake_cold: float
    contended: str | None

    def __str__(self) -> str:
        c = self.constants
        lines = [f"{'machine class':22} {self.machine}"]
        lines += [f"{'FMA peak ' + isa:22} {2e-9 * fmas:.1f} GFLOP/s float32, one core" for isa, fmas in c.fmas.items()]
        lines += [
            f"{'L2':22} {1e-9 * c.l2:.1f} GB/s, one core",
            f"{'L3':22} {1e-9 * c.l3:.1f} GB/s, one core",
            f"{'memory':22} {1e-9 * c.dram:.1f} GB/s, one core; {1e-9 * c.dram_total:.1f} GB/s, all cores",
            f"{'team':22} {1e6 * c.wake:.2f} us awake, {1e6 * self.wake_cold:.1f} us asleep, "
            f"{1e6 * c.barrier:.2f} us a barrier",
        ]
        lines += [
            f"{kernel:40} {factor:.2f} times its declared cost" for kernel, factor in sorted(c.corrections.items())
        ]
        if self.contended:
            lines.append(
                f"The machine was busy with something else: {self.contended}. Calibrate again when it is idle."
            )
        return "\n".join(lines)


def calibration_path() -> Path | None:
    """The file beside the user's tuning database; None where only memory is used."""
    user = paths().user
    return None if user is None else Path(user).with_suffix(".calibration.json")


def calibrate(
    budget: float = 20.0,
    progress: Progress | None = None,
    *,
    store: bool = True,
    problems: Sequence[Problem] | None = None,
) -> Calibration:
    """Measure the constants and keep them.

    Parameters
    ----------
    budget : float
        Seconds, about.
    progress : callable, optional
        Called as ``progress(done, total, text)``.
    store : bool
        Write them beside the user's database. Otherwise they are only returned.
    problems : sequence of Problem, optional
        What the kernels run; by default a few layers of usual sizes.

    Returns
    -------
    Calibration
    """
    from convkit import _core
    from convkit.tuner.machine import machine_class

    tell = progress or (lambda done, total, text: None)
    guard = ContentionGuard()
    cpus = _core.available_cpus()
    isa = _core.active_isa()
    share = budget / 20.0
    steps = 6
    tell(0, steps, "FMA peak")
    constants = default_constants()
    peak = _core.fma_peak("float32", 1, 0.5 * share)
    known = constants.fmas[isa]
    fmas = {name: value * peak / known for name, value in constants.fmas.items()}
    lanes = {"portable": 4, "avx2": 8, "avx512": 16}[isa]
    constants = constants._replace(fmas=fmas, vector_ops=peak / lanes)
    cpu = _core.cpu()
    bandwidth: dict[str, float] = {}
    for step, (level, size) in enumerate(_levels(cpu), 1):
        tell(step, steps, f"bandwidth of {level}")
        bandwidth[level] = _copy_bandwidth(size, 0.4 * share, guard)
    constants = constants._replace(l2=bandwidth["l2"], l3=bandwidth["l3"], dram=bandwidth["dram"])
    tell(4, steps, "bandwidth of all cores")
    total = max(constants.dram, _team_bandwidth(_memory_size(cpu), cpus, 0.6 * share))
    constants = constants._replace(dram_total=total)
    tell(5, steps, "team")
    wake, wake_cold, call = _team_costs(cpus, 0.5 * share)
    constants = constants._replace(wake=wake, barrier=max(0.3 * wake, 1e-7), call=call)
    corrections = _corrections(
        constants, problems or reference_problems(), 10.0 * share, guard,
        lambda done, total, text: tell(steps + done, steps + total, text),
    )  # fmt: skip
    started = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    constants = constants._replace(corrections=corrections, source=f"calibrated {started}")
    found = Calibration(str(machine_class()), started, constants, wake_cold, guard.reason())
    if store:
        save(found)
    return found


def reference_problems() -> list[Problem]:
    """Layers of usual sizes, which together let every kernel of the inventory show itself."""
    found = []
    for layout in ("NCHW", "NHWC"):
        for c, size, o, k, stride in (
            (64, 56, 64, 3, 1), (128, 28, 128, 3, 1), (256, 14, 256, 3, 1), (512, 7, 512, 3, 1), (64, 56, 64, 3, 2),
            (256, 56, 64, 1, 1), (64, 56, 256, 1, 1), (512, 7, 2048, 1, 1), (3, 112, 64, 7, 2), (48, 28, 64, 5, 1),
        ):  # fmt: skip
            pad = k // 2
            pads = {f"pad_{side}": pad for side in ("top", "bottom", "left", "right")}
            shape = {
                "n": 1,
                "c": c,
                "h": size,
                "w": size,
                "o": o,
                "kh": k,
                "kw": k,
                "stride_h": stride,
                "stride_w": stride,
            }
            found.append(Problem(**shape, **pads, layout=layout, epilogue="clamp", bias=True))
        for c, size, stride in ((32, 112, 1), (144, 56, 2), (384, 14, 1)):
            pads = {f"pad_{side}": 1 for side in ("top", "bottom", "left", "right")}
            shape = {
                "n": 1,
                "c": c,
                "h": size,
                "w": size,
                "o": c,
                "kh": 3,
                "kw": 3,
                "stride_h": stride,
                "stride_w": stride,
            }
            found.append(Problem(**shape, **pads, groups=c, layout=layout, epilogue="clamp", bias=True))
    return found


def save(calibration: Calibration) -> None:
    """Write the constants; trouble is logged once and costs only the memory of them."""
    path = calibration_path()
    if path is None:
        notice_once("no calibration file", f"the calibration is not kept: {paths().reason}")
        return
    value = {**asdict(calibration), "constants": calibration.constants._asdict()}
    try:
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            json.dump(value, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except OSError as error:
        notice_once(f"write {path}", f"the calibration is not kept: {path}: {error.strerror}")


def load(machine: str) -> Constants | None:
    """The stored constants of a machine class; None where there are none. Never raises."""
    path = calibration_path()
    if path is None or not os.path.exists(path):
        return None
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


def _levels(cpu: dict[str, Any]) -> list[tuple[str, int]]:
    """Bytes of an array whose copy works in each level: source and target together fit it, but not the one below."""
    l2 = cpu["l2"] or 2**20
    l3 = cpu["l3"] or 8 * l2
    return [("l2", l2 // 4), ("l3", max(2 * l2, l3 // 8)), ("dram", _memory_size(cpu))]


def _memory_size(cpu: dict[str, Any]) -> int:
    return int(min(max(2 * (cpu["l3"] or cpu["l2"]), 2**25), 2**28))


def _copy_bandwidth(size: int, seconds: float, guard: ContentionGuard) -> float:
    """Bytes a second, read and written, of one core copying `size` bytes."""
    source, target = np.ones(size // 8), np.empty(size // 8)
    np.copyto(target, source)
    repeats = max(1, int(2**22 // size))
    best = math.inf
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:

        def once() -> float:
            begin = time.perf_counter()
            for _ in range(repeats):
                np.copyto(target, source)
            return time.perf_counter() - begin

        best = min(best, guard.undisturbed(once, 2, threads=1)[0])
        guard.end_round()
    return 2 * size * repeats / best


def _team_bandwidth(size: int, cpus: int, seconds: float) -> float:
    """Bytes a second, read and written, of all cores copying at once."""
    counts = [0] * cpus
    times = [0.0] * cpus
    gate = threading.Barrier(cpus)

    def work(number: int) -> None:
        source, target = np.ones(size // 8), np.empty(size // 8)
        np.copyto(target, source)
        gate.wait()
        begin = time.perf_counter()
        while (spent := time.perf_counter() - begin) < seconds:
            np.copyto(target, source)
            counts[number] += 1
        times[number] = spent

    workers = [threading.Thread(target=work, args=(number,)) for number in range(cpus)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(2 * size * count / spent for count, spent in zip(counts, times, strict=True))


def _team_costs(cpus: int, seconds: float) -> tuple[float, float, float]:
    """Seconds to start a team whose workers spin, one whose workers sleep, and of a call that does nothing."""
    from convkit.tuner.choosing.selector import selector
    from convkit.tuner.measuring.workbench import Workbench

    problem = Problem(n=1, c=4, h=6, w=6, o=16, kh=3, kw=3)
    choosing = selector()
    kernel = next(k for k in choosing.inventory.competitors(problem) if k.direct)

    def times(team: int) -> tuple[float, float]:
        runner = Workbench(problem, team).runner(choosing.inventory.default(kernel, problem, team))
        runner.time(100)
        awake = min(runner.time(50) / 50 for _ in range(20))
        asleep = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            time.sleep(1e-3)
            asleep.append(runner.time(1))
        return awake, median(asleep)

    alone, _ = times(1)
    if cpus == 1:
        return 1e-6, 1e-6, alone
    awake, asleep = times(cpus)
    return max(awake - alone, 1e-7), max(asleep - alone, 1e-7), max(alone, 1e-8)


def _corrections(
    constants: Constants, problems: Sequence[Problem], seconds: float, guard: ContentionGuard, tell: Progress
) -> dict[str, float]:
    """For each kernel the median of measured over declared time, over problems on which it runs."""
    from convkit.tuner.choosing.selector import selector
    from convkit.tuner.measuring.workbench import Workbench

    inventory = selector().inventory
    found: dict[str, list[float]] = {}
    begin = time.perf_counter()
    for number, problem in enumerate(problems):
        if time.perf_counter() - begin > seconds * 1.5:
            break
        tell(number, len(problems), str(problem))
        bench = Workbench(problem, 1)
        for kernel in inventory.competitors(problem):
            candidate = inventory.default(kernel, problem, 1)
            declared = terms(inventory.cost(candidate, problem, 1), problem, kernel.isa, 1, constants)
            if declared > seconds / 20:
                continue
            runner = bench.runner(candidate)
            runner.run()
            measured = min(guard.undisturbed(lambda runner=runner: runner.time(1), 3, threads=1)[0] for _ in range(4))  # type: ignore[misc]
            found.setdefault(kernel.name, []).append(measured / declared)
        guard.end_round()
    return {name: median(ratios) for name, ratios in found.items()}

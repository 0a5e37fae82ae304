"""Calibration: the cost model's constants measured on this machine, kept beside the tuning database.

Every constant is measured by itself: the FMA peak by a loop of FMAs, bandwidths by copies that fit one level of memory,
the cost of a team by a convolution that has nothing to share. Then every kernel runs a few problems with its default
parameters, which tells how far its declared cost is off.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from convkit.problem import LAYOUTS, Problem
from convkit.tables import aligned
from convkit.tuner.choosing.cost_model import Constants, default_constants, save
from convkit.tuner.choosing.intervals import median
from convkit.tuner.choosing.selector import selector
from convkit.tuner.measuring.contention import ContentionGuard
from convkit.tuner.measuring.workbench import Workbench

Progress = Callable[[int, int, str], None]


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
        facts = [
            ("machine class", self.machine),
            *((f"FMA peak {isa}", f"{2e-9 * fmas:.1f} GFLOP/s float32, one core") for isa, fmas in c.fmas.items()),
            ("L2", f"{1e-9 * c.l2:.1f} GB/s, one core"),
            ("L3", f"{1e-9 * c.l3:.1f} GB/s, one core"),
            ("memory", f"{1e-9 * c.dram:.1f} GB/s, one core; {1e-9 * c.dram_total:.1f} GB/s, all cores"),
            ("team", f"{1e6 * c.wake:.2f} us awake, {1e6 * self.wake_cold:.1f} us asleep, {1e6 * c.barrier:.2f} us a "
                     "barrier"),
        ]  # fmt: skip
        kernels = [(name, f"{factor:.2f} times its declared cost") for name, factor in sorted(c.corrections.items())]
        lines = aligned(facts, left=(0, 1)) + aligned(kernels, left=(0, 1))
        if self.contended:
            lines.append(
                f"The machine was busy with something else: {self.contended}. Calibrate again when it is idle."
            )
        return "\n".join(lines)


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
    cpus, isa, cpu = _core.available_cpus(), _core.active_isa(), _core.cpu()
    share = budget / 20.0
    steps = 6
    tell(0, steps, "FMA peak")
    constants = default_constants()
    peak = _core.fma_peak("float32", 1, 0.5 * share)
    fmas = {name: value * peak / constants.fmas[isa] for name, value in constants.fmas.items()}
    bandwidth: dict[str, float] = {}
    for step, (level, size) in enumerate(_levels(cpu), 1):
        tell(step, steps, f"bandwidth of {level}")
        bandwidth[level] = _copy_bandwidth(size, 0.4 * share, guard)
    tell(4, steps, "bandwidth of all cores")
    total = max(bandwidth["dram"], _team_bandwidth(_memory_size(cpu), cpus, 0.6 * share))
    tell(5, steps, "team")
    wake, wake_cold, call = _team_costs(cpus, 0.5 * share)
    lanes = {"portable": 4, "avx2": 8, "avx512": 16}[isa]
    constants = constants._replace(
        fmas=fmas, vector_ops=peak / lanes, l2=bandwidth["l2"], l3=bandwidth["l3"], dram=bandwidth["dram"],
        dram_total=total, wake=wake, barrier=max(0.3 * wake, 1e-7), call=call,
    )  # fmt: skip
    corrections = _corrections(
        constants, problems or reference_problems(), 10.0 * share, guard,
        lambda done, total, text: tell(steps + done, steps + total, text),
    )  # fmt: skip
    started = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    constants = constants._replace(corrections=corrections, source=f"calibrated {started}")
    found = Calibration(str(machine_class()), started, constants, wake_cold, guard.reason())
    if store:
        save(found.machine, {"started": started, "wake_cold": wake_cold, "contended": found.contended}, constants)
    return found


def reference_problems() -> list[Problem]:
    """Layers of usual sizes, which together let every kernel of the inventory show itself."""
    dense = (
        (64, 56, 64, 3, 1), (128, 28, 128, 3, 1), (256, 14, 256, 3, 1), (512, 7, 512, 3, 1), (64, 56, 64, 3, 2),
        (256, 56, 64, 1, 1), (64, 56, 256, 1, 1), (512, 7, 2048, 1, 1), (3, 112, 64, 7, 2), (48, 28, 64, 5, 1),
    )  # fmt: skip
    depthwise = ((32, 112, 32, 3, 1), (144, 56, 144, 3, 2), (384, 14, 384, 3, 1))
    found = []
    for layout in LAYOUTS:
        for c, size, o, k, stride in (*dense, *depthwise):
            pads = dict.fromkeys(("pad_top", "pad_bottom", "pad_left", "pad_right"), k // 2)
            steps = dict.fromkeys(("stride_h", "stride_w"), stride)
            groups = c if (c, size, o, k, stride) in depthwise else 1
            shape = {"n": 1, "c": c, "h": size, "w": size, "o": o, "kh": k, "kw": k, "groups": groups}
            found.append(Problem(**shape, **pads, **steps, layout=layout, epilogue="clamp", bias=True))
    return found


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
    gate = threading.Barrier(cpus)

    def rate() -> float:
        source, target = np.ones(size // 8), np.empty(size // 8)
        np.copyto(target, source)
        gate.wait()
        copied, begin = 0, time.perf_counter()
        while (spent := time.perf_counter() - begin) < seconds:
            np.copyto(target, source)
            copied += 2 * size
        return copied / spent

    with ThreadPoolExecutor(cpus) as pool:
        return sum(future.result() for future in [pool.submit(rate) for _ in range(cpus)])


def _team_costs(cpus: int, seconds: float) -> tuple[float, float, float]:
    """Seconds to start a team whose workers spin, one whose workers sleep, and of a call that does nothing."""
    problem = Problem(n=1, c=4, h=6, w=6, o=16, kh=3, kw=3)

    def times(team: int) -> tuple[float, float]:
        task = selector().inventory.on(problem, team)
        kernel = next(kernel for kernel in task.competitors if kernel.direct)
        runner = Workbench(problem, team).runner(task.default(kernel))
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
    found: dict[str, list[float]] = {}
    begin = time.perf_counter()
    for number, problem in enumerate(problems):
        if time.perf_counter() - begin > seconds * 1.5:
            break
        tell(number, len(problems), str(problem))
        bench, task = Workbench(problem, 1), selector().inventory.on(problem, 1)
        for kernel in task.competitors:
            candidate = task.default(kernel)
            declared = constants.terms(task, candidate)
            if declared > seconds / 20:
                continue
            runner = bench.runner(candidate)
            runner.run()
            measured = min(guard.undisturbed(lambda runner=runner: runner.time(1), 3, threads=1)[0] for _ in range(4))  # type: ignore[misc]
            found.setdefault(kernel.name, []).append(measured / declared)
        guard.end_round()
    return {name: median(ratios) for name, ratios in found.items()}

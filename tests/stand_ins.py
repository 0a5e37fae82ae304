"""Stand-ins for `_core`, the clock and the machine, so that the tuner is tested without timing anything."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from convkit.problem import Problem
from convkit.tuner.choosing.selector import Choice, Selector
from convkit.tuner.evidence.tiers import UserTier
from convkit.tuner.inventory import Candidate, Inventory
from convkit.tuner.machine import Context, MachineClass
from convkit.tuner.measuring.sampling import Sampler
from convkit.tuner.measuring.tune import tune_problem

MACHINE = MachineClass("TestVendor", 6, 85, 4, "avx2", 32768, 1048576, 33554432)


class StandInCore:
    """An inventory of made-up kernels: family, seconds, direct, rms_ratio, and the parameter sets to offer."""

    def __init__(self, **kernels: dict[str, Any]) -> None:
        self.entries: list[dict[str, Any]] = []
        self.details: list[dict[str, Any]] = []
        for isa in ("avx2", "portable"):
            for family, details in kernels.items():
                for dtype in ("float32", "float64"):
                    self.entries.append(
                        {
                            "index": len(self.entries),
                            "family": family,
                            "name": f"f{dtype[5:]}_{family}__{isa}",
                            "isa": isa,
                            "op": "forward",
                            "dtypes": (dtype,) * 4,
                            "layouts": ("NCHW", "NHWC"),
                            "revision": details.get("revision", 1),
                            "direct": details.get("direct", True),
                            "rms_ratio": details.get("rms_ratio", 1.0),
                            "parameters": [("block", 1, 64)],
                        }
                    )
                    self.details.append(details)

    def kernels(self) -> list[dict[str, Any]]:
        return self.entries

    def applies(self, index: int, problem: tuple[int, ...]) -> bool:
        return bool(self.details[index].get("applies", lambda p: True)(Problem.from_core(problem)))

    def candidates(self, index: int, problem: tuple[int, ...], threads: int) -> list[tuple[int, ...]]:
        return [(block,) for block in self.details[index].get("blocks", (8,))]

    def cost(self, index: int, problem: tuple[int, ...], parameters: tuple[int, ...], threads: int) -> dict[str, float]:
        names = ("fmas", "vector_ops", "bytes_l2", "bytes_l3", "bytes_dram", "efficiency", "imbalance", "barriers")
        cost = dict.fromkeys(names, 0.0)
        seconds = self.details[index].get("predicted", self.details[index]["seconds"])
        return {**cost, "vector_ops": 6e9 * seconds, "efficiency": 1.0, "imbalance": 1.0 * threads}

    def workspace_limit(self) -> int:
        return 2**30

    def workspace_bytes(self, index: int, problem: tuple[int, ...], parameters: tuple[int, ...], threads: int) -> int:
        return int(self.details[index].get("workspace", 0))


class VirtualClock:
    """Time that passes only where a stand-in says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class StandInRunner:
    """A candidate whose runs take a made-up time, with noise, on the virtual clock."""

    def __init__(self, bench: StandInBench, details: dict[str, Any], parameters: tuple[int, ...]) -> None:
        self.y = np.zeros(4)
        self._bench = bench
        self._details = details
        slope = details.get("slope", 0.001)
        self._seconds = details["seconds"] * (1 + slope * abs(parameters[0] - details.get("optimum", 8)))
        # Where its memory lies.
        self._seconds *= bench.random.uniform(1.0, 1.0 + bench.luck)

    def slow_down(self, factor: float) -> None:
        self._seconds *= factor

    def run(self) -> np.ndarray[Any, Any]:
        self.time(1)
        if self._details.get("raises"):
            raise RuntimeError("made-up failure")
        self.y[:] = self._details.get("error", 0.0)
        return self.y

    def time(self, repeats: int) -> float:
        self._bench.samples += 1
        if self._bench.interrupt_after is not None and self._bench.samples > self._bench.interrupt_after:
            raise KeyboardInterrupt
        noise = self._bench.random.uniform(1.0, 1.0 + self._bench.noise)
        seconds = repeats * self._seconds * noise * self._bench.slowdown(self._bench.clock.now)
        self._bench.clock.now += seconds
        return seconds


class StandInBench:
    """Makes `StandInRunner`s; the error of a result is its value."""

    def __init__(self, core: StandInCore, noise: float = 0.01, seed: int = 0) -> None:
        self.core = core
        self.clock = VirtualClock()
        self.random = random.Random(seed)
        self.noise = noise
        self.luck = 0.0
        self.moves = 0
        self.samples = 0
        self.interrupt_after: int | None = None
        self.slowdown = lambda now: 1.0

    def move(self) -> None:
        self.moves += 1

    def runner(self, candidate: Candidate) -> StandInRunner:
        return StandInRunner(self, self.core.details[candidate.kernel.index], candidate.parameters)

    def error(self, y: np.ndarray[Any, Any]) -> float:
        return float("inf") if np.isnan(y).any() else float(y[0])

    def tolerance(self, candidate: Candidate) -> float:
        return 1e-3

    def footprint(self, candidate: Candidate) -> int:
        return int(self.core.details[candidate.kernel.index].get("footprint", 0))

    def workspace(self, candidate: Candidate) -> int:
        return self.core.workspace_bytes(candidate.kernel.index, (), candidate.parameters, 1)


class QuietGuard:
    """A machine that is ours alone, or that something else uses."""

    def __init__(self, trouble: str | None = None) -> None:
        self.trouble = trouble

    def undisturbed(self, sample: Callable[[], float], tries: int, *, threads: int) -> tuple[float, bool]:
        return sample(), True

    def end_round(self) -> None:
        pass

    def apart(self, threads: int) -> bool:
        return False

    def crowded(self, threads: int) -> bool:
        return False

    def reason(self) -> str | None:
        return self.trouble


def context_of(threads: int) -> Context:
    return Context(MACHINE, threads, "unpinned")


def selector_over(core: StandInCore, user: UserTier | None = None, *others: Any, **options: Any) -> Selector:
    options.setdefault("context_of", context_of)
    return Selector(Inventory(core), user or UserTier(), others, **options)


class Tuner:
    """`tune_problem` over a selector and a bench."""

    def __init__(self, selector: Selector, bench: StandInBench, trouble: str | None, store: bool) -> None:
        self._made = lambda threads: Sampler(bench, threads, QuietGuard(trouble), bench.clock)  # type: ignore[arg-type]
        self._fixed: dict[str, Any] = {"choosing": selector, "store": store}

    def tune(self, problem: Problem, threads: int, **options: Any) -> Choice:
        return tune_problem(problem, threads, sampler=self._made(threads), **self._fixed, **options)


def tuner_over(selector: Selector, bench: StandInBench, trouble: str | None = None, *, store: bool = False) -> Tuner:
    return Tuner(selector, bench, trouble, store)

"""What machine this is: the class that measurements are filed under, the facts beside them, and its constants."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any, NamedTuple

from convkit import _core

_TOPOLOGY = "/sys/devices/system/cpu"


class MachineClass(NamedTuple):
    """Machines whose measurements are interchangeable. ``str()`` is the stored key, `parse` reads it back.

    Host name, core count, clock and microcode are no part of it; they are facts of a session.
    """

    vendor: str
    family: int
    model: int
    stepping: int
    isa: str
    l1d: int
    l2: int
    l3: int

    def __str__(self) -> str:
        caches = f"l1d{self.l1d // 1024}k-l2{self.l2 // 1024}k-l3{self.l3 // 1024}k"
        return f"{self.vendor}-{self.family}-{self.model}-{self.stepping}-{self.isa}-{caches}"

    @classmethod
    def parse(cls, text: str) -> MachineClass:
        """Read what ``str()`` wrote; ValueError for anything else."""
        match = re.fullmatch(_KEY, text, re.ASCII) if len(text) <= 200 else None
        if match is None:
            raise ValueError(f"not a machine class: {text[:200]!r}")
        vendor, family, model, stepping, isa, *caches = match.groups()
        return cls(vendor, int(family), int(model), int(stepping), isa, *(1024 * int(size) for size in caches))

    def like(self, other: MachineClass) -> bool:
        """True if shipped and site trials of `other` count here: same vendor, family, model, ISA and L2."""
        return other._replace(stepping=self.stepping, l1d=self.l1d, l3=self.l3) == self


_KEY = r"(\w{1,40})-(\d{1,6})-(\d{1,6})-(\d{1,6})-(\w{1,40})-l1d(\d{1,12})k-l2(\d{1,12})k-l3(\d{1,12})k"


class Context(NamedTuple):
    """What a choice is made for beside the problem: machine class with its ISA, team size, affinity class."""

    machine: MachineClass
    threads: int
    affinity: str


@cache
def machine_class() -> MachineClass:
    """The class of this machine with the instruction set that is active in this process."""
    cpu = _core.cpu()
    vendor = re.sub(r"\W", "", cpu["vendor"])[:40] or "unknown"
    numbers = {name: cpu[name] for name in ("family", "model", "stepping", "l1d", "l2", "l3")}
    return MachineClass(vendor=vendor, isa=_core.active_isa(), **numbers)


def affinity_class(topology: str = _TOPOLOGY, allowed: set[int] | None = None) -> str:
    """How this process is bound: "unpinned", "cores" (one CPU of a core at most) or "siblings" (SMT siblings shared).

    Read at every call: the mask may change between calls, and reading it costs little.
    """
    cpus = os.sched_getaffinity(0) if allowed is None else allowed
    if len(cpus) >= _cpu_count():
        return "unpinned"
    for cpu in cpus:
        try:
            with open(f"{topology}/cpu{cpu}/topology/thread_siblings_list") as stream:
                siblings = _cpu_list(stream.read())
        except (OSError, ValueError):
            return "cores"
        if len(siblings & cpus) > 1:
            return "siblings"
    return "cores"


@cache
def _cpu_count() -> int:
    return os.cpu_count() or 1


def _cpu_list(text: str) -> set[int]:
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def context(threads: int) -> Context:
    """The context of a call with a team of this size."""
    return Context(machine_class(), threads, affinity_class())


def facts() -> dict[str, Any]:
    """What may differ within a machine class and is worth knowing when a number looks odd."""
    import platform

    found: dict[str, Any] = {
        "brand": _core.cpu().get("brand", ""), "cpus": os.cpu_count() or 0, "kernel": platform.release(),
        "hypervisor": False,
    }  # fmt: skip
    try:
        with open("/proc/cpuinfo") as stream:
            first, _, _ = stream.read().partition("\n\n")
    except OSError:
        return found
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    found["hypervisor"] = "hypervisor" in told.get("flags", "").split()
    found.update({key: told[name] for key, name in (("microcode", "microcode"), ("mhz", "cpu MHz")) if name in told})
    return found


def versions() -> dict[str, str]:
    """Versions of what a measurement depends on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from convkit.distribution import name

    try:
        own = version(name())
    except PackageNotFoundError:
        own = str(_core.build_info().get("version", "unknown"))
    compiler = str(_core.build_info().get("compiler", "unknown"))
    return {"convkit": own, "compiler": compiler, "python": platform.python_version()}

"""Binding a process to as many CPUs as it has threads, one core for each as long as there are cores."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["cpus_for", "pinned"]

_TOPOLOGY = "/sys/devices/system/cpu"


def cpus_for(threads: int, allowed: set[int], topology: str = _TOPOLOGY) -> set[int]:
    """As many of the allowed CPUs as there are threads: the first of each core, then its siblings."""
    seen: dict[str, int] = {}
    ranked = []
    for cpu in sorted(allowed):
        try:
            with open(f"{topology}/cpu{cpu}/topology/thread_siblings_list") as stream:
                core = stream.read().strip()
        except OSError:
            core = str(cpu)
        seen[core] = seen.get(core, 0) + 1
        ranked.append((seen[core], cpu))
    return {cpu for _, cpu in sorted(ranked)[:threads]}


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[set[int]]:
    """Bind every thread of this process, those of libraries too, to as many CPUs as `threads`; at the end, undo it.

    Where the process may use fewer CPUs than that, they are all used.
    """
    before = os.sched_getaffinity(0)
    cpus = cpus_for(threads, before)
    _bind(cpus)
    try:
        yield cpus
    finally:
        _bind(before)


def _bind(cpus: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        # A thread may end between the listing and now.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), cpus)

"""Binding a process to as many CPUs as it has threads, one core for each as long as there are cores."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from convkit import _core

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

    Where the process may use fewer CPUs than that, they are all used. Threads that OpenMP has bound (``OMP_PROC_BIND``)
    stay where they are.
    """
    available = _core.available_cpus()  # OpenMP binds this thread when it is loaded, at the latest now
    own = os.sched_getaffinity(0)
    if len(own) < available:
        yield own
        return
    before = {thread: mask for thread in _threads() if (mask := _mask(thread))}
    cpus = cpus_for(threads, own)
    _bind(dict.fromkeys(_threads(), cpus))
    try:
        yield cpus
    finally:
        _bind({thread: before.get(thread, own) for thread in _threads()})  # those that are new inherited ours


def _threads() -> list[int]:
    return [int(thread) for thread in os.listdir("/proc/self/task")]


def _mask(thread: int) -> set[int]:
    with contextlib.suppress(ProcessLookupError):  # it may have ended since it was listed
        return os.sched_getaffinity(thread)
    return set()


def _bind(masks: dict[int, set[int]]) -> None:
    for thread, cpus in masks.items():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cpus)

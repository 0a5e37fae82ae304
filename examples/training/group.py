"""Data-parallel training: processes that share each batch and add up their gradients, over mpi4py.

Every process holds the whole network and has the same weights, since all make the same steps from the same sums.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from examples.training.workers import Array

__all__ = ["Group", "join"]


class Group:
    """One process alone: it has every batch to itself."""

    rank, size = 0, 1

    def sum(self, array: Array) -> None:
        """Replace `array` by its sum over all processes; the order of the sum is MPI's, the same each time."""

    def share(self, count: int) -> slice:
        """Which images of a batch of `count` are this process's."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def same(self, value: Any) -> Any:
        """What the first process has."""
        return value

    def wait(self) -> None:
        """Until all are here."""


class _MpiGroup(Group):
    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()

    def sum(self, array: Array) -> None:
        from mpi4py import MPI

        self._comm.Allreduce(MPI.IN_PLACE, array)

    def same(self, value: Any) -> Any:
        return self._comm.bcast(value)

    def wait(self) -> None:
        self._comm.Barrier()


def join() -> Group:
    """The group of processes that this one was started with.

    ``mpiexec -n 2 python -m mpi4py -m examples.training ...`` starts two. Without ``-m mpi4py`` a process that fails
    would leave the others waiting, so that is refused.
    """
    if "mpi4py.run" in sys.modules:
        from mpi4py import MPI

        return _MpiGroup(MPI.COMM_WORLD) if MPI.COMM_WORLD.Get_size() > 1 else Group()
    if int(os.environ.get("PMI_SIZE", "1")) > 1:
        raise SystemExit(
            "under mpiexec, start with `python -m mpi4py -m examples.training ...`: "
            "otherwise a process that fails leaves the others waiting"
        )
    return Group()

"""The inventory filtered for a problem: which kernels, with which parameters, may answer it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from convkit.problem import Problem


class Kernel(NamedTuple):
    """One entry of the inventory, as Python sees it. `index` holds in this process only, `name` is what is stored."""

    index: int  # type: ignore[assignment] # nobody searches a kernel
    name: str
    family: str
    isa: str
    op: str
    dtype: str
    layouts: frozenset[str]
    revision: int
    direct: bool
    rms_ratio: float
    schema: tuple[tuple[str, int, int], ...]

    @property
    def rank_key(self) -> str:
        """The kernel's name without its instruction set: equal for the same kernel compiled for another one."""
        head, _, tail = self.name.partition("__")
        return head + tail.removeprefix(self.isa)

    def takes(self, parameters: Sequence[int]) -> bool:
        """True where `parameters` has the schema's length and lies within its bounds."""
        return len(parameters) == len(self.schema) and all(
            least <= value <= most for value, (_, least, most) in zip(parameters, self.schema, strict=True)
        )


class Candidate(NamedTuple):
    """A kernel with explicit parameters: what is measured, stored and chosen."""

    kernel: Kernel
    parameters: tuple[int, ...]

    def __str__(self) -> str:
        values = ",".join(f"{s[0]}={v}" for s, v in zip(self.kernel.schema, self.parameters, strict=True))
        return f"{self.kernel.name}({values})"


class Core(Protocol):
    """The part of `convkit._core` that choosing needs; tests inject their own."""

    def kernels(self) -> list[dict[str, Any]]: ...
    def applies(self, index: int, problem: tuple[int, ...]) -> bool: ...
    def candidates(self, index: int, problem: tuple[int, ...], threads: int) -> list[tuple[int, ...]]: ...
    def cost(
        self, index: int, problem: tuple[int, ...], parameters: tuple[int, ...], threads: int
    ) -> dict[str, float]: ...
    def workspace_limit(self) -> int: ...
    def workspace_bytes(
        self, index: int, problem: tuple[int, ...], parameters: tuple[int, ...], threads: int
    ) -> int: ...


class Inventory:
    """All kernels this process can run, and the questions the tuner asks about them.

    Parameters
    ----------
    core : Core
        `convkit._core`, or a stand-in in tests.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.kernels: tuple[Kernel, ...] = tuple(
            Kernel(
                index=entry["index"],
                name=entry["name"],
                family=entry["family"],
                isa=entry["isa"],
                op=entry["op"],
                dtype=entry["dtypes"][0],
                layouts=frozenset(entry["layouts"]),
                revision=entry["revision"],
                direct=bool(entry["direct"]),
                rms_ratio=float(entry["rms_ratio"]),
                schema=tuple((name, least, most) for name, least, most in entry["parameters"]),
            )
            for entry in core.kernels()
        )

    @property
    def workspace_limit(self) -> int:
        """Bytes of workspace that a call may use where it does not say."""
        return self._core.workspace_limit()

    @cached_property
    def by_name(self) -> dict[str, Kernel]:
        """Kernels by full name."""
        return {kernel.name: kernel for kernel in self.kernels}

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Family names in inventory order."""
        return tuple(dict.fromkeys(kernel.family for kernel in self.kernels))

    def applicable(self, problem: Problem) -> list[Kernel]:
        """Kernels of any instruction set that take the problem, in inventory order."""
        core_problem = problem.to_core()
        return [
            kernel
            for kernel in self.kernels
            if kernel.op == problem.op
            and kernel.dtype == problem.dtype
            and problem.layout in kernel.layouts
            and self._core.applies(kernel.index, core_problem)
        ]

    def competitors(self, problem: Problem) -> list[Kernel]:
        """The kernels that compete for the problem: of each the copy for the best instruction set only."""
        best: dict[str, Kernel] = {}
        for kernel in self.applicable(problem):
            best.setdefault(kernel.rank_key, kernel)
        return list(best.values())

    def default(self, kernel: Kernel, problem: Problem, threads: int) -> Candidate:
        """The kernel with its default parameters for this problem and team."""
        return Candidate(kernel, tuple(self._core.candidates(kernel.index, problem.to_core(), threads)[0]))

    def parameter_sets(self, kernel: Kernel, problem: Problem, threads: int) -> list[Candidate]:
        """Every parameter set worth measuring, the default first, without repetitions."""
        sets = dict.fromkeys(tuple(p) for p in self._core.candidates(kernel.index, problem.to_core(), threads))
        return [Candidate(kernel, parameters) for parameters in sets]

    def candidates(self, problem: Problem, threads: int) -> Iterator[Candidate]:
        """Every competitor with every parameter set worth measuring."""
        for kernel in self.competitors(problem):
            yield from self.parameter_sets(kernel, problem, threads)

    def cost(self, candidate: Candidate, problem: Problem, threads: int) -> dict[str, float]:
        """The candidate's declared cost."""
        return self._core.cost(candidate.kernel.index, problem.to_core(), candidate.parameters, threads)

    def workspace(self, candidate: Candidate, problem: Problem, threads: int) -> int:
        """Bytes of workspace that the candidate needs."""
        return self._core.workspace_bytes(candidate.kernel.index, problem.to_core(), candidate.parameters, threads)

    def resolve(self, name: str, parameters: Sequence[int], problem: Problem) -> Candidate | None:
        """The candidate behind a stored name and parameters; None where it does not exist or does not apply here.

        Parameters that the kernel did not have yet when it was measured are 0, which stands for what it did then.
        """
        kernel = self.by_name.get(name)
        if kernel is None:
            return None
        parameters = (*parameters, *[0] * (len(kernel.schema) - len(parameters)))
        if not kernel.takes(parameters):
            return None
        if kernel.op != problem.op or kernel.dtype != problem.dtype or problem.layout not in kernel.layouts:
            return None
        if not self._core.applies(kernel.index, problem.to_core()):
            return None
        return Candidate(kernel, parameters)


def core_inventory() -> Inventory:
    """The inventory of this process's `_core`."""
    from convkit import _core

    return Inventory(_core)

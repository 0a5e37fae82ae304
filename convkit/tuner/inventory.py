"""The inventory as the tuner asks it: which kernels may answer a call, with which parameters, how exact, how costly."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

from convkit import _core
from convkit.problem import Problem
from convkit.typing import Accuracy

LEVELS: tuple[Literal["strict", "standard", "fast"], ...] = ("strict", "standard", "fast")
Integers = tuple[int, ...]
_STANDARD_RATIO = 4.0
# The measured error of a kernel is a sample; it overrules the declared class only if it is clearly larger.
_SAMPLING_SLACK = 1.25


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

    def __hash__(self) -> int:
        return hash(self.index)

    @property
    def rank_key(self) -> str:
        """The kernel's name without its instruction set: equal for the same kernel compiled for another one."""
        head, _, tail = self.name.partition("__")
        return head + tail.removeprefix(self.isa)

    @property
    def error_class(self) -> float:
        """Declared RMS error in units of direct summation's."""
        return 1.0 if self.direct else max(self.rms_ratio, 1.0)

    @property
    def level(self) -> int:
        """The strictest accuracy that allows the kernel, as an index of `LEVELS`."""
        return 0 if self.direct else 1 if self.rms_ratio <= _STANDARD_RATIO else 2

    def takes(self, parameters: Sequence[int]) -> bool:
        """True if `parameters` has the schema's length and lies within its bounds."""
        return len(parameters) == len(self.schema) and all(
            least <= value <= most for value, (_, least, most) in zip(parameters, self.schema, strict=True)
        )


# Fields that the core gives as they are.
_SAME = ("index", "name", "family", "isa", "op", "revision", "direct", "rms_ratio")


class Candidate(NamedTuple):
    """A kernel with explicit parameters: what is measured, stored and chosen."""

    kernel: Kernel
    parameters: tuple[int, ...]

    @property
    def key(self) -> tuple[str, int, tuple[int, ...]]:
        """What a trial is filed under: the kernel's name and revision, and the parameters."""
        return self.kernel.name, self.kernel.revision, self.parameters

    @property
    def stored(self) -> str:
        """The text that stands for it in a session."""
        return f"{self.kernel.name}({','.join(map(str, self.parameters))})"

    def __str__(self) -> str:
        values = ",".join(f"{s[0]}={v}" for s, v in zip(self.kernel.schema, self.parameters, strict=True))
        return f"{self.kernel.name}({values})"


class Core(Protocol):
    """The part of `convkit._core` that choosing needs; tests inject their own."""

    def kernels(self) -> list[dict[str, Any]]: ...
    def applies(self, index: int, problem: Integers) -> bool: ...
    def candidates(self, index: int, problem: Integers, threads: int) -> list[Integers]: ...
    def cost(self, index: int, problem: Integers, parameters: Integers, threads: int) -> dict[str, float]: ...
    def workspace_limit(self) -> int: ...
    def workspace_bytes(self, index: int, problem: Integers, parameters: Integers, threads: int) -> int: ...


class Inventory:
    """All kernels that this process can run.

    Parameters
    ----------
    core : Core
        `convkit._core`, or a stand-in in tests.
    """

    def __init__(self, core: Core) -> None:
        self.core: Core = core
        self.kernels: tuple[Kernel, ...] = tuple(
            Kernel(
                **{name: entry[name] for name in _SAME},
                dtype=entry["dtypes"][0],
                layouts=frozenset(entry["layouts"]),
                schema=tuple(map(tuple, entry["parameters"])),
            )
            for entry in core.kernels()
        )
        self.by_name: dict[str, Kernel] = {kernel.name: kernel for kernel in self.kernels}
        self.families: tuple[str, ...] = tuple(dict.fromkeys(kernel.family for kernel in self.kernels))
        # Of each op, dtype and layout the kernels in inventory order, with their names but for the instruction set.
        self.of_kind: dict[tuple[str, str, str], list[tuple[str, Kernel]]] = {}
        for kernel in self.kernels:
            for layout in kernel.layouts:
                kind = kernel.op, kernel.dtype, layout
                self.of_kind.setdefault(kind, []).append((kernel.rank_key, kernel))

    def on(self, problem: Problem, threads: int) -> Task:
        """The questions that may be asked about a problem for a team."""
        return Task(self, problem, threads)


class Task:
    """A problem for a team, and what the inventory says of it. Answers are kept: make a new one for a new question.

    Parameters
    ----------
    inventory : Inventory
    problem : Problem
    threads : int
        Team size.
    """

    def __init__(self, inventory: Inventory, problem: Problem, threads: int) -> None:
        self.inventory: Inventory = inventory
        self.problem: Problem = problem
        self.threads: int = threads
        self._core = inventory.core
        self._fields = problem.to_core()
        self._sets: dict[Kernel, list[Candidate]] = {}

    def __str__(self) -> str:
        return f"{self.problem} with {self.threads} threads"

    @cached_property
    def _of_kind(self) -> list[tuple[str, Kernel]]:
        return self.inventory.of_kind.get((self.problem.op, self.problem.dtype, self.problem.layout), [])

    def applicable(self) -> list[Kernel]:
        """Kernels of any instruction set that take the problem, in inventory order."""
        return [kernel for _, kernel in self._of_kind if self._core.applies(kernel.index, self._fields)]

    @cached_property
    def competitors(self) -> list[Kernel]:
        """The kernels that compete for the problem: of each the copy for the best instruction set only."""
        best: dict[str, Kernel] = {}
        for key, kernel in self._of_kind:
            if key not in best and self._core.applies(kernel.index, self._fields):
                best[key] = kernel
        return list(best.values())

    def parameter_sets(self, kernel: Kernel) -> list[Candidate]:
        """Every parameter set of a kernel worth measuring, the default first, without repetitions.

        A set outside the kernel's own schema is left out; if all are, the schema's least values stand in: a kernel that
        proposes nonsense must not fail the choice among the others.
        """
        known = self._sets.get(kernel)
        if known is None:
            sets = dict.fromkeys(map(tuple, self._core.candidates(kernel.index, self._fields, self.threads)))
            taken = [parameters for parameters in sets if kernel.takes(parameters)]
            least = tuple(least for _, least, _ in kernel.schema)
            known = self._sets[kernel] = [Candidate(kernel, parameters) for parameters in taken or [least]]
        return known

    def default(self, kernel: Kernel) -> Candidate:
        """The kernel with its default parameters."""
        return self.parameter_sets(kernel)[0]

    def cost(self, candidate: Candidate) -> dict[str, float]:
        """The candidate's declared cost."""
        return self._core.cost(candidate.kernel.index, self._fields, candidate.parameters, self.threads)

    def workspace(self, candidate: Candidate) -> int:
        """Bytes of workspace that the candidate needs."""
        return self._core.workspace_bytes(candidate.kernel.index, self._fields, candidate.parameters, self.threads)

    def resolve(self, name: str, parameters: Sequence[int]) -> Candidate | None:
        """The candidate behind a stored name and parameters; None if it does not exist or does not apply here.

        Parameters that the kernel did not have yet when it was measured are 0, which stands for what it did then.
        """
        kernel = self.inventory.by_name.get(name)
        if kernel is None:
            return None
        parameters = (*parameters, *[0] * (len(kernel.schema) - len(parameters)))
        p = self.problem
        if (
            not kernel.takes(parameters)
            or (kernel.op, kernel.dtype) != (p.op, p.dtype)
            or p.layout not in kernel.layouts
        ):
            return None
        return Candidate(kernel, parameters) if self._core.applies(kernel.index, self._fields) else None

    def constraints(self, accuracy: object = None, workspace_limit: object = None) -> Constraints:
        """The constraints behind the arguments of a call, defaults filled in."""
        bound = default_accuracy(self.problem.dtype) if accuracy is None else parse_accuracy(accuracy)
        return Constraints(self.problem, bound, _parse_limit(self._core, workspace_limit))


class Constraints(NamedTuple):
    """What a call asks of a kernel beside being fast."""

    problem: Problem
    accuracy: Accuracy
    workspace_limit: int

    def refusal(self, candidate: Candidate, workspace: int, error: float | None) -> str | None:
        """Why the candidate may not answer the call; None if it may.

        Parameters
        ----------
        workspace : int
            Bytes that it needs.
        error : float or None
            Its measured RMS error relative to RMS(y).
        """
        if workspace > self.workspace_limit:
            return f"needs {workspace} bytes of workspace"
        kernel, accuracy = candidate.kernel, self.accuracy
        if accuracy == "fast" or (kernel.direct and isinstance(accuracy, str)):
            return None
        if accuracy == "strict":
            return "not direct summation"
        direct = direct_error(self.problem)
        if accuracy == "standard":
            ratio = max(kernel.rms_ratio, (error or 0.0) / (_SAMPLING_SLACK * direct))
            return None if ratio <= _STANDARD_RATIO else f"RMS error {ratio:.1f} times direct summation's"
        # The larger of the inventory's error class and what was measured.
        expected = max(direct * kernel.error_class, error or 0.0)
        return None if expected <= float(accuracy) else f"expected RMS error {expected:.1e}"


def parse_accuracy(value: object, name: str = "accuracy") -> Accuracy:
    """A level's name or a positive bound; ValueError names what is allowed."""
    for level in LEVELS:
        if isinstance(value, str) and value == level:
            return level
    try:
        bound = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        bound = math.nan
    if not 0 < bound < math.inf:
        raise ValueError(f"{name} must be one of {', '.join(LEVELS)} or a positive number, got {value!r}")
    return bound


def default_accuracy(dtype: str) -> Accuracy:
    """CONVKIT_ACCURACY, or else standard for float32 and strict for float64."""
    text = os.environ.get("CONVKIT_ACCURACY")
    if text:
        return parse_accuracy(text, "CONVKIT_ACCURACY")
    return "standard" if dtype == "float32" else "strict"


def _parse_limit(core: Core, value: Any) -> int:
    if value is None:
        return core.workspace_limit()
    limit = int(value)
    if limit < 0:
        raise ValueError(f"workspace_limit must be at least 0 bytes, got {value!r}")
    return limit


def direct_error(problem: Problem) -> float:
    """Expected RMS error of direct summation relative to RMS(y), on normal data.

    Rounding errors of a running sum of K terms grow like sqrt(K); the blocked sums of a GEMM stay below it.
    """
    unit = 2.0**-24 if problem.dtype == "float32" else 2.0**-53
    return unit * (0.5 + 0.25 * math.sqrt(problem.reduction))


def core_inventory() -> Inventory:
    """The inventory of this process's `_core`."""
    return Inventory(_core)

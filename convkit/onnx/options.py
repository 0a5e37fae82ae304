"""What programs ask of ONNX Runtime beside a session's calls: the same names, so that an import is all that changes."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

__all__ = [
    "ExecutionMode", "GraphOptimizationLevel", "ModelMetadata", "NodeArg", "RunOptions", "SessionOptions",
    "get_available_providers", "get_device",
]  # fmt: skip

PROVIDER = "CPUExecutionProvider"


class GraphOptimizationLevel(IntEnum):
    """How much a session changes the graph before it runs: nothing, or all rules."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_ALL = 99


class ExecutionMode(IntEnum):
    """Accepted for programs that set it: nodes always run one after another."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


@dataclass
class SessionOptions:
    """Settings of a session, under ONNX Runtime's names; what is not listed below may be set and decides nothing.

    Attributes
    ----------
    graph_optimization_level : GraphOptimizationLevel
        ``ORT_DISABLE_ALL`` runs every node as the file has it; all others run the rules.
    intra_op_num_threads : int
        Threads of each convolution; 0: convkit's default.
    """

    graph_optimization_level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL
    intra_op_num_threads: int = 0
    inter_op_num_threads: int = 0
    execution_mode: ExecutionMode = ExecutionMode.ORT_SEQUENTIAL
    enable_cpu_mem_arena: bool = True
    enable_mem_pattern: bool = True
    log_severity_level: int = 2
    _entries: dict[str, str] = field(default_factory=dict, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "intra_op_num_threads":
            try:
                value = operator.index(value)
            except TypeError:
                raise TypeError(f"{name} must be a whole number, 0 for convkit's default, not {value!r}") from None
        super().__setattr__(name, value)

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set what has no attribute; of all entries one decides something.

        Parameters
        ----------
        key, value : str
            ``"convkit.memory"``: ``"fast"`` keeps weights a second time as kernels want them, ``"low"`` does not.
            Others are kept.

        Raises
        ------
        ValueError
            If ``convkit.memory`` is neither of the two.
        """
        if key == "convkit.memory" and value not in ("fast", "low"):
            raise ValueError(f"convkit.memory must be 'fast' or 'low', not {value!r}")
        self._entries[key] = value

    def get_session_config_entry(self, key: str, default: str | None = None) -> str:
        """A setting that was added, or the default if there is one."""
        found = self._entries.get(key, default)
        if found is None:
            raise KeyError(f"no session config entry {key!r}")
        return found


class RunOptions:
    """Accepted for programs that pass one to `run`; nothing in it decides anything."""

    def __init__(self) -> None:
        self.log_severity_level = 2
        self.logid = ""


@dataclass(frozen=True)
class NodeArg:
    """An input or output: name, type as ONNX Runtime writes it, shape with names or None for what varies."""

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class ModelMetadata:
    """What the file says of itself."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    version: int = 0
    custom_metadata_map: dict[str, str] = field(default_factory=dict)


def get_available_providers() -> list[str]:
    """Where models run: on the CPU."""
    return [PROVIDER]


def get_device() -> str:
    """The device: CPU."""
    return "CPU"


def accepted_providers(providers: Any) -> None:
    """Refuse a list of providers that leaves out the CPU, as ONNX Runtime does without that device."""
    names = [entry if isinstance(entry, str) else entry[0] for entry in providers or [PROVIDER]]
    if PROVIDER not in names:
        raise ValueError(f"providers must name {PROVIDER}, the only one here, not {names}")

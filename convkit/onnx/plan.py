"""What a run does: steps in order, values by number, each freed after its last use; for a shape, less than at first."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convkit.onnx.call import OWN, Compute, implementation
from convkit.onnx.errors import ModelError
from convkit.onnx.rules.graph import constant
from convkit.tuner.process import ForkSafeLock

__all__ = ["Plan", "Plans", "Run", "Step", "root"]

_KEPT = 64  # shapes whose plans are kept

# Operands that decide a result's shape by their values. What is neither here nor known below may have any shape.
_DECIDING: dict[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Resize": (1, 2, 3), "Upsample": (1,), "Tile": (1,),
    "Pad": (1, 3), "Unsqueeze": (1,), "Squeeze": (1,), "Split": (1,), "TopK": (1,), "OneHot": (1,), "Range": (0, 1, 2),
    "ConstantOfShape": (0,), "ReduceMean": (1,), "ReduceSum": (1,), "ReduceMax": (1,), "ReduceMin": (1,),
    "ReduceProd": (1,), "ReduceL2": (1,), "ConvTranspose": (),
}  # fmt: skip
_KNOWN = (set(OWN) - {"Expand", "Tile", "ConstantOfShape", "Resize", "Upsample", "Reshape", "Pad"}) | {
    "Gather", "GatherElements", "GatherND", "ScatterND", "ScatterElements", "Where", "Cast", "CastLike", "Equal",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Min", "Max", "Sum", "Mean", "Mod",
    "ArgMax", "ArgMin", "PRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "LogSoftmax", "DepthToSpace",
    "SpaceToDepth", "Sin", "Cos", "Round", "Reciprocal", "Sign", "LSTM", "GRU", "RNN", "QuantizeLinear",
    "DequantizeLinear", "Size", "InstanceNormalization", "Trilu", "CumSum", "Einsum", "GridSample", "LRN",
}  # fmt: skip
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}


@dataclass(frozen=True)
class Step:
    """One node: what computes it, where its operands are, where its results go, which values it is the last to read."""

    name: str
    op: str
    compute: Compute
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...] = ()


@dataclass
class Run:
    """What a run of a plan did: for each step when it began, how long it took, and the shape of its first result."""

    plan: Plan
    times: list[float]
    starts: list[float]
    shapes: list[tuple[int, ...]]
    thread: int


class Plan:
    """Steps and the values that are there before they begin."""

    def __init__(self, steps: Sequence[Step], values: list[Any], kept: frozenset[int]) -> None:
        self.values = values
        self.steps = _freed(steps, kept, {i for i, value in enumerate(values) if value is not None})
        # The place of a step's only result, or 0 and those of all.
        self._loop = [
            (s, s.compute, s.inputs, s.outputs[0] if len(s.outputs) == 1 else 0, s.outputs, s.frees) for s in self.steps
        ]

    def run(self, feeds: Mapping[int, Any], watch: Mapping[int, Any] | None = None) -> tuple[list[Any], Run]:
        """All values after a run; those in `watch` are never freed."""
        values = self.values.copy()
        for i, value in feeds.items():
            values[i] = value
        record = Run(self, [], [], [], threading.get_ident())
        clock = time.perf_counter
        times, starts, shapes = record.times.append, record.starts.append, record.shapes.append
        with np.errstate(all="ignore"):
            for step, compute, inputs, output, outputs, frees in self._loop:
                operands = [values[i] for i in inputs]
                begin = clock()
                try:
                    results = compute(*operands)
                except Exception as error:  # a node may be wrong in as many ways as there are operators
                    raise ModelError(_why(step, operands, error)) from error
                times(clock() - begin)
                starts(begin)
                first = results[0]
                shapes(getattr(first, "shape", ()))
                if output:
                    values[output] = first
                else:
                    for i, value in zip(outputs, results, strict=False):
                        if i:  # place 0 stands for inputs that are left out
                            values[i] = value
                del operands, results, first  # or else they hold until the next step what is freed now
                for i in frees:
                    if watch is None or i not in watch:
                        values[i] = None
        return values, record


def _freed(steps: Sequence[Step], kept: frozenset[int], fixed: set[int]) -> list[Step]:
    seen: set[int] = set()
    found = []
    for step in reversed(steps):
        here = {*step.inputs, *step.outputs} - kept - fixed - seen - {0}
        seen |= here
        found.append(replace(step, frees=tuple(sorted(here))))
    return found[::-1]


def _why(step: Step, operands: Sequence[Any], error: Exception) -> str:
    shapes = ", ".join(
        str(list(a.shape)) if hasattr(a, "shape") else type(a).__name__ for a in operands if a is not None
    )
    return f"node {step.name or '?'} ({step.op}) of operands {shapes}: {type(error).__name__}: {error}"


class Plans:
    """The plan of a graph for any shapes, and those for the shapes that were seen.

    Much of an exported graph computes shapes from shapes. A first run tells their values, and the plan for its inputs'
    shapes has them as constants.
    """

    def __init__(self, model: Any, threads: int | None, memory: str = "fast") -> None:
        graph, versions = model.graph, dict(model.opset_imports)
        self._number: dict[str, int] = {"": 0}
        values: list[Any] = [None]
        for value in (*graph.inputs, *graph.initializers.values()):
            if value.name not in self._number:
                self._number[value.name] = len(values)
                tensor = value.const_value
                values.append(None if tensor is None else tensor.numpy())
        nodes = list(graph)
        for node in nodes:
            for value in node.outputs:
                if value.name:
                    self._number[value.name] = len(values)
                    values.append(None)
        steps = []
        for node in nodes:
            constants = {i: a for i, v in enumerate(node.inputs) if (a := constant(v)) is not None}
            compute, captured = implementation(node, versions, constants, threads, memory)
            names = [value.name if value is not None else "" for value in node.inputs] + captured
            outputs = tuple(self._number[value.name or ""] for value in node.outputs)
            steps.append(
                Step(
                    node.name or node.outputs[0].name,
                    node.op_type,
                    compute,
                    tuple(self._number[name] for name in names),
                    outputs,
                )
            )
        self.outputs = [self._number[value.name] for value in graph.outputs]
        self.inputs = {value.name: self._number[value.name] for value in graph.inputs}
        self.constants = {id(root(value)) for value in values if isinstance(value, np.ndarray)}
        self._settled = _settled(
            nodes,
            self._number,
            {i for i, v in enumerate(values) if v is not None} - set(self.inputs.values()),
            set(self.inputs.values()),
        )
        self.general = Plan(steps, values, frozenset(self.outputs))
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._lock = ForkSafeLock()

    def run(self, feed: Mapping[str, Any]) -> tuple[list[Any], Run]:
        """Outputs in the graph's order, as they lie in memory."""
        feeds = {self.inputs[name]: value for name, value in feed.items()}
        key = tuple((i, getattr(v, "shape", None), getattr(v, "dtype", None)) for i, v in sorted(feeds.items()))
        with self._lock:
            plan = self._plans.get(key)
            if plan is not None:
                self._plans.move_to_end(key)
        if plan is not None:
            values, record = plan.run(feeds)
        else:
            values, record = self.general.run(feeds, self._settled)
            plan = self._special(values)
            with self._lock:
                self._plans[key] = plan
                while len(self._plans) > _KEPT:
                    self._plans.popitem(last=False)
        return [values[i] for i in self.outputs], record

    def _special(self, values: list[Any]) -> Plan:
        known = self.general.values.copy()
        for i in self._settled:
            value = values[i]
            known[i] = np.array(value) if isinstance(value, np.ndarray | np.generic) else None
        steps = [s for s in self.general.steps if not all(known[i] is not None or i == 0 for i in s.outputs)]
        return Plan(steps, known, frozenset(self.outputs))


def _settled(nodes: Sequence[Any], number: Mapping[str, int], constants: set[int], inputs: set[int]) -> dict[int, None]:
    """Values that depend on nothing but the inputs' shapes, except those that a feed or the file has."""
    values, shapes = constants | {0}, constants | inputs | {0}
    found: dict[int, None] = {}
    for node in nodes:
        operands = [number[value.name] if value is not None else 0 for value in node.inputs]
        outputs = [number[value.name or ""] for value in node.outputs]
        op = node.op_type if node.domain in ("", "ai.onnx", "convkit") else ""
        if op not in _KNOWN and op not in _DECIDING:
            continue
        deciding = _DECIDING.get(op, ())
        if not all(i in shapes for i in operands) or any(
            operands[i] not in values for i in deciding if i < len(operands)
        ):
            continue
        shapes |= set(outputs)
        if op in ("Shape", "Size") or all(i in values for i in operands):
            values |= set(outputs)
            found.update(dict.fromkeys(i for i in outputs if i))
    return found


def root(array: Any) -> Any:
    """The array whose memory a view shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array

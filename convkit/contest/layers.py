"""Layers as they are timed side by side: which there are, who competes on each, and under which limits."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from convkit.contest.contestants import Array, Contestant, Operands, convkit_contestant, peer
from convkit.contest.training import Pass, pass_problems, torch_pass, training_contestant
from convkit.networks import Network
from convkit.problem import Problem
from convkit.training.pipeline import PIPELINES
from convkit.typing import Accuracy

__all__ = ["CALLS", "Heat", "TimedLayer", "algorithms", "limited", "timed_layers"]

CALLS = ("forward", "input", "weight", "training")


@dataclass(frozen=True)
class TimedLayer:
    """One layer of a network.

    Attributes
    ----------
    network : str
        As tables and pictures call it.
    count : int
        How often the network has the layer.
    call : {"forward", "input", "weight", "training"}
        What is timed: the call, a gradient of it, or all three in turn; then `problem` is the forward call's.
    """

    network: str
    name: str
    count: int
    problem: Problem
    call: str = "forward"

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What kernels are chosen for."""
        return pass_problems(self.problem) if self.call == "training" else (self.problem,)


def timed_layers(
    network: Network, *, batch: int = 1, layout: str = "NCHW", call: str = "forward", dtype: str = "float32",
    only: str = "",
) -> list[TimedLayer]:  # fmt: skip
    """Layers of a network that differ, as a program calls them that has made the network ready.

    A forward call has a bias and a ReLU fused into it and its weights packed; a gradient has none of that, and training
    no ReLU. Transposed layers have neither, and no training pass.

    Parameters
    ----------
    only : str
        Part of the names of the layers that are wanted.
    """
    found = []
    for layer in network.unique():
        if only not in layer.name or (call == "training" and layer.transposed):
            continue
        problem = layer.problem(batch, layout=layout, dtype=dtype)
        if call == "training":
            problem = problem.replace(bias=True, packed=False)
        elif call != "forward":
            problem = problem.of_op(call).replace(packed=False)
        elif not layer.transposed:
            problem = problem.replace(bias=True, epilogue="clamp")
        found.append(TimedLayer(f"{_title(network, batch, call)} {layout}", layer.name, layer.count, problem, call))
    return found


def _title(network: Network, batch: int, call: str) -> str:
    parts = [network.title, *(["CIFAR-10"] if network.name.endswith("_cifar") else [])]
    if batch != 1:
        parts.append(f"batch {batch}")
    return " ".join([*parts, *([call] if call != "forward" else [])])


def algorithms(text: str, calls: Collection[str]) -> tuple[str | None, ...]:
    """Algorithms from a list of families and kernels separated by commas; None for "selected", every family for "all".

    Training has pipelines beside them.

    Raises
    ------
    ValueError
        Names what there is.
    """
    from convkit.tuner.choosing.selector import selector

    inventory = selector().inventory
    known = (*inventory.families, *(PIPELINES if "training" in calls else ()))
    names = [name.strip() for name in text.split(",") if name.strip()]
    found: list[str | None] = []
    for name in names:
        if name not in ("selected", "all", *known) and name not in inventory.by_name:
            raise ValueError(f"{name!r} is not one of selected, all, {', '.join(known)}, nor the name of a kernel")
        found += inventory.families if name == "all" else [None if name == "selected" else name]
    if not found:
        raise ValueError("an empty list")
    return tuple(dict.fromkeys(found))


class Heat:
    """A layer with its operands, which all who compete on it are given.

    Parameters
    ----------
    operands : Operands, optional
        Random ones if they are left out.
    """

    def __init__(self, layer: TimedLayer, operands: Operands | None = None) -> None:
        self.layer = layer
        self._pass = Pass(layer.problem) if layer.call == "training" else None
        self._operands = operands or (self._pass.operands if self._pass else Operands(layer.problem))

    @cached_property
    def exact(self) -> Array:
        """What everybody should compute, in float64."""
        return (self._pass or self._operands).exact()

    def convkit(
        self, threads: int, algorithm: str | None = None, accuracy: Accuracy | None = None, *, settle: bool = False
    ) -> Contestant:
        """What convkit selects, or one algorithm, which overrides the accuracy.

        Parameters
        ----------
        settle : bool
            Let a training pass measure its pipelines first, if the database does not know them.

        Raises
        ------
        convkit.UnsupportedAlgorithmError
            If the algorithm does not apply.
        """
        if self._pass:
            return training_contestant(self._pass, threads, algorithm, accuracy, settle=settle)
        return convkit_contestant(self._operands, threads, algorithm, accuracy)

    def peer(self, name: str, threads: int) -> Contestant | None:
        """Another library; None if it cannot do this layer."""
        if self._pass:
            return torch_pass(self._pass, threads) if name == "torch" else None
        return peer(name, self._operands, threads)

    def contestants(
        self, threads: int, wanted: Sequence[str | None], peers: Sequence[str] = (), *,
        accuracy: Accuracy | None = None, settle: bool = False,
    ) -> list[Contestant]:  # fmt: skip
        """Everybody of `wanted` (None: what convkit selects) and of `peers` who can do the layer."""
        from convkit import UnsupportedAlgorithmError

        found: list[Contestant | None] = []
        for algorithm in wanted:
            # The selection answers every problem; an algorithm that cannot do this one is left out.
            with contextlib.suppress(*(() if algorithm is None else (UnsupportedAlgorithmError,))):
                found.append(self.convkit(threads, algorithm, accuracy, settle=settle))
        found += [self.peer(name, threads) for name in peers]
        return [contestant for contestant in found if contestant is not None]


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Hold the BLAS behind NumPy to the same number of threads, if threadpoolctl is installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        yield
        return
    with threadpool_limits(threads, user_api="blas"):
        yield

"""Layers by name: which layer of which published network a problem is, and in which setting it was measured."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import NamedTuple

from convkit import networks
from convkit.problem import Problem
from convkit.tables import threads_text

__all__ = ["Layer", "Setting", "geometry", "layer_name", "layer_of", "network_title", "setting"]

_OPS = {"forward": "", "input_grad": "input gradient", "weight_grad": "weight gradient"}


class Setting(NamedTuple):
    """What a network's layers have in common when they are measured: all of a problem that is not a layer's shape."""

    batch: int
    layout: str
    dtype: str
    packed: bool
    threads: int

    def __str__(self) -> str:
        parts = [
            "1 image" if self.batch == 1 else f"{self.batch} images",
            self.layout,
            "" if self.dtype == "float32" else self.dtype,
            "" if self.packed else "cold",
            threads_text(self.threads),
        ]
        return ", ".join(filter(None, parts))


def setting(problem: Problem, threads: int) -> Setting:
    """The setting of a problem for a team."""
    return Setting(problem.n, problem.layout, problem.dtype, problem.packed, threads)


def geometry(problem: Problem) -> Problem:
    """A problem without its setting and epilogue: equal for all measurements of one layer."""
    return problem.bare()._replace(n=1, layout="NCHW", dtype="float32", packed=True)


def network_title(network: networks.Network) -> str:
    """A network's title, with the size of its images if a network before it has the same title."""
    first = next(name for name in networks.names() if networks.get(name).title == network.title)
    return network.title if first == network.name else f"{network.title} @{network.image[1]}"


class Layer(NamedTuple):
    """A layer of a published network; `place` puts layers in the order of the networks and of their layers."""

    network: str
    name: str
    place: int

    def __str__(self) -> str:
        return f"{self.network} {self.name}" if self.network else self.name


def layer_of(problem: Problem, preferred: Collection[str] = ()) -> Layer:
    """The layer that a problem is: `network` is empty if no network has it, and `name` then gives its sizes.

    Parameters
    ----------
    preferred : collection of str
        Titles of networks whose names come first if several networks have such a layer.
    """
    same = geometry(problem)
    for op in dict.fromkeys((problem.op, "forward")):
        found = _layers().get(same._replace(op=op))
        if found:
            layer = next((one for one in found if one.network in preferred), found[0])
            return layer._replace(name=f"{layer.name}, {_OPS[problem.op]}") if op != problem.op else layer
    return Layer("", _sizes(problem), 2**31)


def layer_name(problem: Problem, preferred: Collection[str] = ()) -> str:
    """What people call a problem, as `layer_of` says it: "VGG-19 conv1_2"."""
    return str(layer_of(problem, preferred))


def _sizes(p: Problem) -> str:
    """The sizes of a convolution in a few words."""
    parts = [
        f"{p.c}→{p.o} @{p.h}x{p.w}",
        f"{p.kh}x{p.kw}",
        f"/{p.stride_h}" if p.stride_h > 1 or p.stride_w > 1 else "",
        f"dilated {p.dilation_h}" if p.dilation_h > 1 or p.dilation_w > 1 else "",
        "depthwise" if 1 < p.groups == p.c else f"{p.groups} groups" if p.groups > 1 else "",
        _OPS[p.op],
    ]
    return " ".join(filter(None, parts))


@cache
def _layers() -> dict[Problem, list[Layer]]:
    """Of each geometry the networks that have it, with the layer's name in each."""
    found: dict[Problem, list[Layer]] = {}
    place = 0
    for network in map(networks.get, networks.names()):
        for layer in network.unique():
            place += 1
            found.setdefault(geometry(layer.problem(1)), []).append(Layer(network_title(network), layer.name, place))
    return found

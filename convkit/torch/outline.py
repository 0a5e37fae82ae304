"""A module's forward read whole, with the modules within, and which parts of it are one call of convkit's.

`straight` writes and runs the code.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from convkit.torch import between
from convkit.torch.chains import Chain, Dialect, find_chains, next_step, take_step

__all__ = ["LinearChain", "Outline", "Part", "outline"]


@dataclass
class LinearChain(Chain):
    """A linear layer over the channels of images that lie channels last, with what follows it.

    Attributes
    ----------
    gain : Node, optional
        A parameter with a factor for each output channel.
    turned : int, optional
        Before which step the channels become the second dimension.
    """

    gain: Any = None
    turned: int | None = None


@dataclass
class Part:
    """A node that a function of `between` computes.

    Attributes
    ----------
    node : Node
    function : callable
    module : Module, optional
        What the node calls, if it calls one; its attributes of these names are the function's further operands.
    attributes : tuple of str
    activation : str or tuple, optional
        What follows, in the same call.
    """

    node: Any
    function: Callable[..., Any]
    module: Any = None
    attributes: tuple[str, ...] = ()
    activation: Any = None


@dataclass
class Outline:
    """A graph and what is known of its nodes.

    Attributes
    ----------
    graph : torch.fx.Graph
    dialect : Dialect
    chains : dict of Node to Chain
        By the node whose value they compute.
    parts : dict of Node to Part
    within : set of Node
        Those of chains and parts whose own values nobody sees.
    inlined : list of Module
        Whose code was read as if it were the module's own.
    holding : list of Module
        Lists and dicts of modules that these are in.
    """

    graph: Any
    dialect: Any
    chains: dict[Any, Chain]
    parts: dict[Any, Part]
    within: set[Any]
    inlined: list[Any]
    holding: list[Any]


_MODULES: dict[type, tuple[Callable[..., Any], tuple[str, ...]]] = {
    nn.MaxPool2d: (
        between.max_pool2d,
        ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    ),
    nn.AvgPool2d: (
        between.avg_pool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    nn.AdaptiveAvgPool2d: (between.adaptive_avg_pool2d, ("output_size",)),
    nn.Flatten: (between.flatten, ("start_dim", "end_dim")),
    nn.Upsample: (between.interpolate, ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")),
    nn.LayerNorm: (between.layer_norm, ("normalized_shape", "weight", "bias", "eps")),
    nn.GroupNorm: (between.group_norm, ("num_groups", "weight", "bias", "eps")),
}
"""PyTorch's modules that have a function in `between`, with the attributes that it takes after the image."""

_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    F.max_pool2d: between.max_pool2d, F.avg_pool2d: between.avg_pool2d,
    F.adaptive_avg_pool2d: between.adaptive_avg_pool2d, F.interpolate: between.interpolate, torch.cat: between.cat,
    torch.concat: between.cat, torch.mean: between.mean, F.layer_norm: between.layer_norm,
    F.group_norm: between.group_norm, torch.flatten: between.flatten,
}  # fmt: skip
_METHODS = {"mean": between.mean, "flatten": between.flatten}
_PRODUCTS = (operator.mul, torch.mul, "mul")
_TWO = 2


def parts(graph: Any, dialect: Dialect, within: set[Any]) -> Iterator[tuple[Any, Part, list[Any]]]:
    """Nodes that one function of `between` computes, each with that and the nodes before it that are computed too."""
    for node in graph.nodes:
        part = None if node in within else _part(node, dialect)
        if part is None:
            continue
        if part.function is between.group_norm and len(node.users) == 1:
            (after,) = node.users
            step = next_step(after, node, dialect)[0]
            if step is not None and step[0] not in ("norm", "add", "scale") and after not in within:
                name, numbers = step
                part.activation = (name, *numbers) if numbers else name
                yield after, part, [node]
                continue
        yield node, part, []


def _part(node: Any, dialect: Dialect) -> Part | None:
    if node.op == "call_module":
        module = dialect.module(node)
        known = _MODULES.get(type(module))
        if known is None or len(node.args) != 1 or node.kwargs:
            return None
        return Part(node, known[0], module, known[1])
    if node.op == "call_function" and node.target in _FUNCTIONS:
        function = _FUNCTIONS[node.target]
    elif node.op == "call_method" and node.target in _METHODS:
        function = _METHODS[node.target]
    elif node.target in _PRODUCTS and len(node.args) == _TWO and all(isinstance(a, torch.fx.Node) for a in node.args):
        function = between.mul
    else:
        return None
    try:
        inspect.signature(function).bind(*node.args, **node.kwargs)
    except TypeError:
        return None
    return Part(node, function)


def linear_chains(graph: Any, dialect: Any, taken: set[Any]) -> Iterator[LinearChain]:
    """Linear layers with what follows them.

    Parameters
    ----------
    graph : torch.fx.Graph
    dialect : Dialect
    taken : set of Node
        Of other chains; nodes of these are added.
    """
    for node in graph.nodes:
        module = dialect.module(node) if node.op == "call_module" else None
        if type(module) is nn.Linear and len(node.args) == 1 and not node.kwargs:
            chain = LinearChain(node)
            while _extend(chain, module.out_features, dialect, taken):
                pass
            taken.update(chain.nodes)
            yield chain


def _extend(chain: LinearChain, channels: int, dialect: Any, taken: set[Any]) -> bool:
    """Take the next step into a chain, if it can be taken."""
    last = chain.last
    if len(last.users) != 1 or dialect.is_watched(last):
        return False
    (node,) = last.users
    if node in taken:
        return False
    gain = _factor(node, last, channels, dialect)
    if gain is not None and chain.gain is None and chain.turned is None:
        chain.gain = gain if take_step(chain, node, (("norm", (0.0,)), None, None), dialect) else None
        return chain.gain is not None
    if chain.turned is None and _puts_channels_second(node, last):
        chain.turned = len(chain.steps)
        chain.nodes.append(node)
        return True
    found = next_step(node, last, dialect)
    return (found[0] or ("norm",))[0] != "norm" and take_step(chain, node, found, dialect)


def _factor(node: Any, value: Any, channels: int, dialect: Any) -> Any:
    """The node of a parameter with a factor for each channel, if that is what a value is multiplied with."""
    if node.target not in _PRODUCTS or len(node.args) != _TWO or node.kwargs:
        return None
    first, second = node.args
    other = second if first is value else first
    if not isinstance(other, torch.fx.Node) or other.op != "get_attr":
        return None
    return other if tuple(getattr(dialect.attribute(other.target), "shape", ())) == (channels,) else None


def _puts_channels_second(node: Any, value: Any) -> bool:
    if node.target not in ("permute", torch.permute) or not node.args or node.args[0] is not value or node.kwargs:
        return False
    axes = node.args[1:] if len(node.args) > _TWO else node.args[1]
    return tuple(axes) == (0, 3, 1, 2)


def outline(graph: Any, dialect: Any, inlined: list[Any], holding: list[Any]) -> Outline:
    """What of a graph is convkit's."""
    chains: dict[Any, Chain] = {chain.last: chain for chain in find_chains(graph, dialect)}
    taken = {node for chain in chains.values() for node in (chain.convolution, *chain.nodes)}
    chains.update((chain.last, chain) for chain in linear_chains(graph, dialect, taken))
    within: set[Any] = set()
    for chain in chains.values():
        within.update((chain.convolution, *chain.nodes, *([chain.pad] if chain.pad else [])))
    found = {}
    for node, part, before in parts(graph, dialect, within):
        found[node] = part
        within.update(before)
    return Outline(graph, dialect, chains, found, within - set(chains), inlined, holding)

"""Chains in a graph of torch.fx: a convolution and what follows it, as far as one fused convolution does it all.

What a convolution or a norm looks like in a graph is the caller's to say: modules in `optimize`, functions in the
backend of `torch.compile`. Everything else is the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from convkit.torch.recipe import ACTIVATIONS, Step

__all__ = [
    "Chain",
    "Dialect",
    "activation_of",
    "could_follow",
    "find_chains",
    "next_step",
    "static_padding",
    "take_step",
]

# What may follow each other; a name is in the first place where it can be, and each place is taken once.
_PLACES = (("norm",), ("scale",), ("add",), tuple(ACTIVATIONS), ("scale",), ("norm",), ("add",))


@dataclass
class Chain:
    """A convolution with what follows it.

    Attributes
    ----------
    convolution : Node
    nodes : list of Node
        What follows, in order; with steps of two nodes, both.
    steps : list of (str, numbers)
    members : list
        Of each step the node of its module, or None where it is a function.
    norm, sum, pad : Node, optional
        The batch norm, the sum with something else, and zeros before the convolution.
    margins : tuple of int
        How many zeros: before and after along each dimension.
    """

    convolution: Any
    nodes: list[Any] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    members: list[Any] = field(default_factory=list)
    norm: Any = None
    sum: Any = None
    pad: Any = None
    margins: tuple[int, ...] = ()

    @property
    def last(self) -> Any:
        """The node whose value the chain computes."""
        return self.nodes[-1] if self.nodes else self.convolution

    @property
    def residual(self) -> Any:
        """The other summand, as the graph has it now."""
        if self.sum is None:
            return None
        first, second = self.sum.args
        return second if first in (self.convolution, *self.nodes) else first

    @property
    def place(self) -> int:
        """Where in the order of steps the chain has come to."""
        place = 0
        for name, _ in self.steps:
            place = next(i for i in range(place, len(_PLACES)) if name in _PLACES[i]) + 1
        return place

    def takes(self, name: str) -> bool:
        """Whether a step may come next."""
        if name in ("norm", "add") and any(name == other for other, _ in self.steps):
            return False
        return any(name in _PLACES[i] for i in range(self.place, len(_PLACES)))


class Dialect:
    """How a graph writes convolutions and norms."""

    def is_convolution(self, node: Any) -> bool:
        """Whether a node is a convolution that convkit computes."""
        raise NotImplementedError

    def dims(self, node: Any) -> int:
        """Number of spatial dimensions of a convolution."""
        raise NotImplementedError

    def is_norm(self, node: Any) -> bool:
        """Whether a node is a batch norm with fixed statistics."""
        raise NotImplementedError

    def module(self, node: Any) -> Any:
        """The module that a node calls, if it is one that nobody changed and nobody watches."""
        return None

    def may_add(self, residual: Any, node: Any) -> bool:
        """Whether the sum that a node computes has the shape of the convolution's result."""
        return True  # looked at when it is computed

    def is_watched(self, node: Any) -> bool:
        """Whether somebody else than the graph may see the node's value."""
        return False


def find_chains(graph: Any, dialect: Dialect) -> list[Chain]:
    """All chains of a graph, in its order; a node is in one at most."""
    found: list[Chain] = []
    taken: set[Any] = set()
    for node in graph.nodes:
        if dialect.is_convolution(node):
            chain = Chain(node)
            _take_padding(chain, dialect)
            while _extend(chain, dialect, taken):
                pass
            taken.update(chain.nodes)
            found.append(chain)
    return found


def could_follow(node: Any, value: Any, dialect: Dialect) -> bool:
    """Whether a node is a step that some chain ending in `value` could take."""
    return next_step(node, value, dialect)[0] is not None


def _extend(chain: Chain, dialect: Dialect, taken: set[Any]) -> bool:
    """Take the next step into a chain, if it can be taken."""
    last = chain.last
    users = list(last.users)
    if dialect.is_watched(last):
        return False
    if len(users) == 2 and chain.takes("silu"):
        product = _sigmoid_times(last, users)
        if product is not None and not taken.intersection(users):
            chain.nodes += users if users[1] is product else users[::-1]
            chain.steps.append(("silu", ()))
            chain.members.append(None)
            return True
    if len(users) != 1 or users[0] in taken:
        return False
    (node,) = users
    return take_step(chain, node, next_step(node, last, dialect), dialect)


def take_step(chain: Chain, node: Any, found: tuple[Step | None, Any, Any], dialect: Dialect) -> bool:
    """Take what `next_step` found into a chain, if it may come next."""
    step, member, residual = found
    if step is None or not chain.takes(step[0]):
        return False
    if step[0] == "norm":
        chain.norm = node
    if step[0] == "add":
        if residual is chain.last or _comes_after(residual, chain) or _is_written(chain, node):
            return False
        if not dialect.may_add(residual, node):
            return False
        chain.sum = node
    chain.nodes.append(node)
    chain.steps.append(step)
    chain.members.append(member)
    return True


def _comes_after(node: Any, chain: Chain) -> bool:
    """Whether a node is computed from the chain's convolution."""
    seen, waiting = set(), [node]
    while waiting:
        one = waiting.pop()
        if one is chain.convolution:
            return True
        if one not in seen:
            seen.add(one)
            waiting.extend(one.all_input_nodes)
    return False


def _is_written(chain: Chain, end: Any) -> bool:
    """Whether the chain's input is written between the convolution and a node, up to which fusing defers reading it."""
    source = chain.convolution.args[0]
    node = chain.convolution.next
    while node is not end:
        if node.args and node.args[0] is source and node not in chain.nodes:
            name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
            if node.kwargs.get("inplace") or (name.endswith("_") and node.op != "call_module") or name in _IN_PLACE:
                return True
            if node.op == "call_module":
                return True  # which may do so
        node = node.next
    return False


_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "setitem")


def _sigmoid_times(value: Any, users: Sequence[Any]) -> Any:
    """The node of ``value * sigmoid(value)``, if the two users are that."""
    for gate, product in (users, users[::-1]):
        gated = (gate.op == "call_function" and gate.target in (torch.sigmoid, F.sigmoid)) or (
            gate.op == "call_method" and gate.target == "sigmoid"
        )
        multiplied = product.target in (operator.mul, torch.mul, "mul") and not product.kwargs
        if gated and multiplied and list(gate.users) == [product] and set(product.args) == {value, gate}:
            return product
    return None


def next_step(node: Any, value: Any, dialect: Dialect) -> tuple[Step | None, Any, Any]:
    """What a node does to a value, as a step, with its module and the other summand."""
    if dialect.is_norm(node):
        return ("norm", ()), node, None
    if node.op == "call_module":
        module = dialect.module(node)
        if module is None or len(node.args) != 1 or node.kwargs:
            return None, None, None
        return activation_of(module), node, None
    if node.op not in ("call_function", "call_method"):
        return None, None, None
    name = _FUNCTIONS.get(node.target) if node.op == "call_function" else _METHODS.get(node.target)
    if name is None:
        return None, None, None
    arguments = list(node.args)
    keywords = {key: v for key, v in node.kwargs.items() if key != "inplace"}
    if name in ("add", "iadd", "mul"):
        return _arithmetic(name, node, arguments, keywords, value)
    if not arguments or arguments[0] is not value:
        return None, None, None
    numbers = _numbers(name, arguments[1:], keywords)
    return numbers, None, None


def _arithmetic(
    name: str, node: Any, arguments: list[Any], keywords: dict[str, Any], value: Any
) -> tuple[Step | None, Any, Any]:
    if len(arguments) != 2 or keywords:
        return None, None, None
    first, second = arguments
    other = second if first is value else first
    in_place = name == "iadd" or (node.op == "call_method" and node.target.endswith("_"))
    if in_place and first is not value:  # changes what others may read
        return None, None, None
    if name == "mul":
        return (("scale", (float(other),)) if isinstance(other, int | float) else None), None, None
    return (("add", ()) if isinstance(other, torch.fx.Node) else None), None, other


def _numbers(name: str, rest: list[Any], keywords: dict[str, Any]) -> Step | None:
    """An activation's step, from the arguments after the value."""
    if name == "gelu":
        kind = keywords.pop("approximate", rest.pop(0) if rest else "none")
        return None if rest or keywords else ({"none": "gelu", "tanh": "gelu_tanh"}[kind], ())
    names = _NUMBERS.get(name, {})
    given = dict(zip([*names, "inplace"], rest, strict=False)) if len(rest) <= len(names) + 1 else None
    if given is None:
        return None
    given.pop("inplace", None)
    values = {**names, **given, **keywords}
    if set(values) != set(names) or not all(v is None or isinstance(v, int | float) for v in values.values()):
        return None
    return _RENAMED.get(name, name), tuple(None if v is None else float(v) for v in values.values())


_NUMBERS: dict[str, dict[str, Any]] = {
    "leaky_relu": {"negative_slope": 0.01},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "clamp": {"min": None, "max": None},
}
_RENAMED = {"hardtanh": "clip", "clamp": "clip"}

_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu", torch.relu: "relu", torch.relu_: "relu", F.relu_: "relu",
    F.relu6: "relu6", F.silu: "silu", F.hardswish: "hardswish",
    torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", torch.tanh: "tanh", F.tanh: "tanh",
    F.leaky_relu: "leaky_relu", F.hardtanh: "hardtanh", torch.clamp: "clamp", F.gelu: "gelu",
    operator.add: "add", torch.add: "add", operator.iadd: "iadd", operator.mul: "mul", torch.mul: "mul",
}  # fmt: skip
_METHODS = {
    "relu": "relu", "relu_": "relu", "sigmoid": "sigmoid", "sigmoid_": "sigmoid", "tanh": "tanh", "tanh_": "tanh",
    "clamp": "clamp", "clamp_": "clamp", "add": "add", "add_": "add", "mul": "mul", "mul_": "mul",
}  # fmt: skip


def _limits(lo: float, hi: float) -> Step:
    return "clip", (float(lo), float(hi))


_MODULES: dict[type, Callable[[Any], Step]] = {
    nn.ReLU: lambda m: ("relu", ()),
    nn.ReLU6: lambda m: ("relu6", ()),
    nn.SiLU: lambda m: ("silu", ()),
    nn.Hardswish: lambda m: ("hardswish", ()),
    nn.Sigmoid: lambda m: ("sigmoid", ()),
    nn.Tanh: lambda m: ("tanh", ()),
    nn.LeakyReLU: lambda m: ("leaky_relu", (float(m.negative_slope),)),
    nn.Hardtanh: lambda m: _limits(m.min_val, m.max_val),
    nn.GELU: lambda m: ("gelu_tanh" if m.approximate == "tanh" else "gelu", ()),
}


def activation_of(module: Any) -> Step | None:
    """The step that a module of PyTorch's does; None if it is no activation that convkit knows."""
    make = _MODULES.get(type(module))
    return None if make is None else make(module)


def static_padding(node: Any, dialect: Dialect, dims: int) -> tuple[int, ...] | None:
    """Zeros that a node puts around its first argument, before and after along each dimension; else None."""
    margins: Any = None
    if node.op == "call_function" and node.target in (F.pad, torch._C._nn.pad):
        given = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False)) | node.kwargs
        if given.get("mode", "constant") == "constant" and not given.get("value"):
            margins = given.get("pad")
    elif node.op == "call_module" and type(dialect.module(node)) in (nn.ZeroPad1d, nn.ZeroPad2d):
        margins = dialect.module(node).padding
    if not isinstance(margins, list | tuple) or len(margins) != 2 * dims:
        return None
    if not all(isinstance(n, int) and n >= 0 for n in margins):
        return None
    return tuple(n for i in reversed(range(dims)) for n in margins[2 * i : 2 * i + 2])


def _take_padding(chain: Chain, dialect: Dialect) -> None:
    source = chain.convolution.args[0] if chain.convolution.args else None
    if not isinstance(source, torch.fx.Node) or list(source.users) != [chain.convolution] or dialect.is_watched(source):
        return
    margins = static_padding(source, dialect, dialect.dims(chain.convolution))
    if margins is not None:
        chain.pad, chain.margins = source, margins

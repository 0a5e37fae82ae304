"""Source of straight-line code for an outline, and what the names in it stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from convkit import _core
from convkit.torch import between
from convkit.torch.computing import REFUSED
from convkit.torch.fused_modules import fused, resolved, spelled
from convkit.torch.memory import FLOATS, array_of, is_channels_last, strides_of
from convkit.torch.outline import LinearChain, Outline
from convkit.torch.packings import packing_of
from convkit.torch.recipe import ACTIVATIONS, Recipe
from convkit.torch.watching import Structure, Values

__all__ = ["Writer"]

_FEWEST_ROWS = 16  # of a linear layer that is computed as a convolution, unless its weights are small
_LARGE = 1 << 24  # bytes
_CONVOLUTION = ("stride", "padding", "dilation", "groups", "output_padding", "padding_mode", "transposed")
_NUMBERS: dict[type, tuple[str, ...]] = {
    nn.BatchNorm1d: ("eps",), nn.BatchNorm2d: ("eps",), nn.LeakyReLU: ("negative_slope",),
    nn.Hardtanh: ("min_val", "max_val"), nn.GELU: ("approximate",),
}  # fmt: skip
_HELD = ("get_attr", "placeholder", "output")
_MAKE_NEW = (between.adaptive_avg_pool2d, between.mean, between.mul)  # never a view of what they read
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


# --- values between two steps: tensors, or arrays over the same memory ----------------------------------------------


def _array(value: Any) -> Any:
    """A tensor of real numbers as an array of the same shape."""
    if isinstance(value, torch.Tensor) and value.dtype in FLOATS:
        array = array_of(value)
        return array[:, :, 0] if value.dim() == 3 else array
    return value


def _tensor(value: Any) -> Any:
    """An array as a tensor."""
    return torch.from_numpy(value) if type(value) is np.ndarray else value


def _result(value: Any, given: tuple[Any, ...], last: bool) -> Any:
    """A value as a tensor, whose strides are PyTorch's even where they say nothing: those of what was given."""
    tensor = _tensor(value)
    if type(value) is not np.ndarray or value.ndim != 4 or not tensor.is_contiguous():
        return tensor
    _, c, h, w = value.shape
    if c > 1 and h * w > 1:
        return tensor
    return tensor.as_strided(value.shape, strides_of(value.shape, last or any(map(is_channels_last, given))))


# --- chains ----------------------------------------------------------------------------------------------------------


def _convolution(layer: Any, dims: int, adds: bool, last: bool) -> Callable[..., Any]:
    """A packed layer as a function of arrays."""

    def signal(x: Any, residual: Any = None) -> Any:
        if type(x) is not np.ndarray or x.ndim != 3 or (adds and type(residual) is not np.ndarray):
            return NotImplemented
        try:
            y = layer(x[:, :, None], None, residual[:, :, None] if adds else None)[:, :, 0]
        except REFUSED:
            return NotImplemented
        return y if y.flags.c_contiguous else np.ascontiguousarray(y)

    def image(x: Any, residual: Any = None) -> Any:
        if type(x) is not np.ndarray or x.ndim != 4 or (adds and type(residual) is not np.ndarray):
            return NotImplemented
        try:
            if last and x.strides[1] != x.itemsize and between.pixels(x) is None:
                x = _core.transpose(x, (0, 2, 3, 1)).transpose(0, 3, 1, 2)
            return layer(x, None, residual if adds else None)
        except REFUSED:
            return NotImplemented

    return image if dims == 2 else signal


def _linear(layer: Any, channels: int, least: int, adds: bool, turned: bool) -> Callable[..., Any]:
    """A packed 1x1 convolution as a function of what a linear layer takes."""

    def as_image(x: Any) -> Any:
        return x.reshape((1,) * (4 - x.ndim) + x.shape).transpose(0, 3, 1, 2)

    def compute(x: Any, residual: Any = None) -> Any:
        if (
            type(x) is not np.ndarray
            or not 2 <= x.ndim <= 4
            or not x.flags.c_contiguous
            or x.size < least * x.shape[-1]
        ):
            return NotImplemented
        size = (*x.shape[:-1], channels)
        if turned:
            size = (x.shape[0], channels, *x.shape[1:3]) if x.ndim == 4 else ()
        if adds and (type(residual) is not np.ndarray or residual.shape != size):
            return NotImplemented
        try:
            y = layer(as_image(x), None, (residual if turned else as_image(residual)) if adds else None)
        except REFUSED:
            return NotImplemented
        return y if turned else y.transpose(0, 2, 3, 1).reshape(size)

    return compute


class _Chain:
    """A chain of the outline, to be bound to its weights as they are."""

    def __init__(self, chain: Any, called: dict[Any, Any], structure: Structure) -> None:
        self.modules = tuple(
            called[node] for node in (chain.convolution, *(member for member in chain.members if member is not None))
        )
        self.last = False
        convolution, *members = self.modules
        structure.does_as_told(convolution, _CONVOLUTION)
        for member in members:
            structure.does_as_told(member, _NUMBERS.get(type(member), ()))
        self.text = spelled(chain.steps, chain.members, chain.margins)

    def otherwise(self, x: Any, residual: Any = None) -> Any:
        """The chain's value by PyTorch's dispatcher."""
        return fused(x, residual, self.text, self.modules)

    def bind(self, root: Any, threads: int, values: Values) -> Callable[..., Any] | None:
        """The function that computes it; None if its weights are not to be packed now."""
        found = resolved(self.text, self.modules)
        if found is None:
            return None
        w, beside, recipe = found
        packing = packing_of(w, beside, recipe, threads)
        if packing is None:
            return None
        self.last = packing.last
        for module in self.modules:
            values.tensors_of(module)
        values.stay((w, *beside))
        if packing.done < len(recipe.steps):
            return _never
        return _convolution(packing.layer, recipe.dims, packing.adds, packing.last)


class _LinearChain:
    """A linear chain, likewise: a 1x1 convolution, whose gain is a norm with mean 0 and variance 1."""

    def __init__(self, chain: LinearChain, called: dict[Any, Any], structure: Structure, options: Any) -> None:
        self.module, self.last = called[chain.convolution], False
        self.members = [called[member] if member is not None else None for member in chain.members]
        self.steps, self.turned, self.options = list(chain.steps), chain.turned is not None, options
        self.turns_before = len(self.steps) if chain.turned is None else chain.turned
        self.gain_path = None if chain.gain is None else chain.gain.target
        self.gain: Any = None
        channels, dtype = self.module.out_features, self.module.weight.dtype
        self.mean, self.variance = torch.zeros(channels, dtype=dtype), torch.ones(channels, dtype=dtype)
        structure.does_as_told(self.module)
        for member in filter(None, self.members):
            structure.does_as_told(member, _NUMBERS.get(type(member), ()))

    def otherwise(self, x: Any, residual: Any = None) -> Any:
        """The chain's value by PyTorch."""
        y = self.module(x)
        for i, ((name, numbers), member) in enumerate(zip(self.steps, self.members, strict=True)):
            if self.turned and i == self.turns_before:
                y = y.permute(0, 3, 1, 2)
            if name == "norm":
                y = y * self.gain
            elif name == "add":
                y = y + residual
            elif name == "scale":
                y = y * numbers[0]
            else:
                y = ACTIVATIONS[name](y, *numbers) if member is None else member(y)
        return y.permute(0, 3, 1, 2) if self.turned and self.turns_before == len(self.steps) else y

    def bind(self, root: Any, threads: int, values: Values) -> Callable[..., Any] | None:
        """The function that computes it; None if its weights are not to be packed now."""
        w, bias = self.module.weight, self.module.bias
        recipe = Recipe((1, 1), (0, 0, 0, 0), (1, 1), steps=tuple(self.steps), options=self.options)
        beside: tuple[Any, ...] = (bias,)
        if self.gain_path is not None:
            self.gain = attrgetter(self.gain_path)(root)
            beside = (bias, self.mean, self.variance, self.gain, None)
        if not w.dtype == self.mean.dtype == (w if self.gain is None else self.gain).dtype or w.dtype not in FLOATS:
            return _never
        packing = packing_of(w, beside, recipe, threads)
        if packing is None:
            return None
        values.tensors_of(self.module)
        values.stay((w, bias, self.gain))
        if packing.done < len(recipe.steps):
            return _never
        least = _FEWEST_ROWS if w.nbytes > _LARGE else 1
        return _linear(packing.layer, self.module.out_features, least, packing.adds, self.turned)


def _never(*_: Any) -> Any:
    return NotImplemented


# --- source ----------------------------------------------------------------------------------------------------------


class Writer:
    """Source for an outline, and what the names in it stand for."""

    def __init__(self, read: Outline, root: Any) -> None:
        self.space: dict[str, Any] = {"array": _array, "tensor": _tensor, "result": _result}
        self.chains: dict[str, Any] = {}
        self.structure = Structure()
        self.structure.children(root)
        for module in read.inlined:
            self.structure.does_as_told(module)
        for module in read.holding:
            self.structure.children(module)
        self._owners = [module for module in read.inlined if module is not root]
        self._paths: dict[str, str] = {}  # of tensors, from the module whose code it is
        self._attributes: dict[str, tuple[Any, str]] = {}
        self._read, self._options = read, _options(root)
        self._names: dict[Any, str] = {}
        self.count = 0
        lines = list(self._lines())
        arguments = ", ".join(name for node, name in self._names.items() if node.op == "placeholder")
        self.source = "\n    ".join([f"def run({arguments}):", *lines])
        del self._read, self._names, self._last_uses  # which hold the module that holds this

    def bind(self, root: Any, threads: int) -> tuple[Callable[..., Any], Values] | None:
        """The code for weights as they are, with what it took for granted; None if they are not to be packed now."""
        values, space = Values(), dict(self.space)
        for module in (root, *self._owners, *(module for module, _ in self._attributes.values())):
            values.tensors_of(module)
        for name, chain in self.chains.items():
            space[name] = chain.bind(root, threads, values)
            if space[name] is None:
                return None
        space.update((name, attrgetter(path)(root)) for name, path in self._paths.items())
        space.update((name, getattr(module, key)) for name, (module, key) in self._attributes.items())
        space["held_last"] = any(chain.last for chain in self.chains.values())
        exec(compile(self.source, "<convkit.torch straight-line code>", "exec"), space)
        values.close()
        return space.pop("run"), values

    def _lines(self) -> Iterator[str]:
        nodes = [node for node in self._read.graph.nodes if node not in self._read.within]
        self._last_uses = self._last_uses_of(nodes)
        for node in nodes:
            name = self._names[node] = f"v{len(self._names)}"
            if node.op == "placeholder":
                self.count += 1
            elif node.op == "output":
                given = "".join(f"{self._names[n]}, " for n in nodes if n.op == "placeholder")
                yield f"given = ({given})"
                yield f"return {self._text(node.args[0], 'result')}"
            elif node.op == "get_attr":
                self._paths[name] = node.target
            else:
                yield from self._computed(node, name)
            free = [self._names[n] for n in self._last_uses[node] if n.op not in _HELD]
            if free and node.op != "output":
                yield f"{' = '.join(free)} = None"

    def _operands(self, node: Any) -> Any:
        """What a node's line reads."""
        chain, part = self._read.chains.get(node), self._read.parts.get(node)
        if chain is not None:
            return [(chain.pad or chain.convolution).args[0], *([chain.residual] if chain.sum is not None else [])]
        if part is None:
            return [node.args, node.kwargs]
        given, named = list(part.node.args), dict(part.node.kwargs)
        given += [_of(part.module, name) for name in part.attributes]
        return [given, named if part.activation is None else named | {"activation": part.activation}]

    def _spare(self, node: Any) -> tuple[int, ...]:
        """Which factors of a product may become it: chains' values that nobody reads later or has a view of."""
        return tuple(
            i for i, factor in enumerate(node.args) if factor in self._last_uses[node] and self._is_own(factor)
        )

    def _is_own(self, value: Any) -> bool:
        read = self._read
        others = (user for user in value.users if user not in read.within and user not in read.chains)
        return value in read.chains and all(
            user in read.parts and read.parts[user].function in _MAKE_NEW for user in others
        )

    def _last_uses_of(self, nodes: list[Any]) -> dict[Any, list[Any]]:
        found: dict[Any, list[Any]] = {}
        seen: set[Any] = set()
        for node in reversed(nodes):
            fresh = [n for n in (*_nodes(self._operands(node)), node) if n not in seen]
            seen.update(fresh)
            found[node] = fresh
        return found

    def _computed(self, node: Any, name: str) -> Iterator[str]:
        """The lines that compute a node."""
        chain, part = self._read.chains.get(node), self._read.parts.get(node)
        if chain is not None:
            called = self._read.dialect.called
            kind: Any = (
                _LinearChain(chain, called, self.structure, self._options)
                if isinstance(chain, LinearChain)
                else _Chain(chain, called, self.structure)
            )
            self.chains[f"c{name}"] = kind
            self.space[f"o{name}"] = kind.otherwise
            yield from self._either(name, f"c{name}", f"o{name}", self._operands(node), {}, (self._operands(node), {}))
        elif part is not None:
            self.space[f"c{name}"] = part.function
            if part.module is not None:
                self.structure.does_as_told(part.module, [n for n in part.attributes if n in vars(part.module)])
            other, *written = self._as_written(part.node, name, part.activation)
            given, named = self._operands(node)
            if part.function is between.mul:
                named = named | {"spare": self._spare(part.node)}
            yield from self._either(name, f"c{name}", other, given, named, written)
        elif node.op == "call_module" and type(self._read.dialect.called[node]) in _NOTHING:
            self.structure.does_as_told(self._read.dialect.called[node])
            yield f"{name} = {self._text(node.args[0], None)}"
        else:
            call, given, named = self._as_written(node, name)
            yield f"{name} = {call}({self._call(given, named, 'tensor')})"

    def _either(self, name: str, first: str, other: str, given: Any, named: Any, written: Any) -> Iterator[str]:
        """Convkit's way and, for what that does not take, PyTorch's."""
        yield f"{name} = {first}({self._call(given, named, 'array')})"
        positional, keywords = written
        yield f"if {name} is NotImplemented: {name} = {other}({self._call(positional, keywords, 'tensor')})"

    def _as_written(self, node: Any, name: str, activation: Any = None) -> tuple[str, Any, Any]:
        """What the author calls, and its operands."""
        if node.op == "call_method":
            self.space[f"m{name}"] = partial(_method, node.target)
        else:
            called = self._read.dialect.called[node] if node.op == "call_module" else node.target
            self.space[f"m{name}"] = called if activation is None else partial(_then, called, activation)
        return f"m{name}", node.args, node.kwargs

    def _call(self, given: Any, named: Any, kind: str) -> str:
        words = [self._text(value, kind) for value in given]
        return ", ".join([*words, *(f"{key}={self._text(value, kind)}" for key, value in named.items())])

    def _text(self, value: Any, kind: str | None) -> str:
        """An operand in the source; values as arrays or tensors."""
        if isinstance(value, fx.Node):
            name = self._names[value]
            return f"result({name}, given, held_last)" if kind == "result" else f"{kind}({name})" if kind else name
        if isinstance(value, list) or (isinstance(value, tuple) and not isinstance(value, _Attribute)):
            inner = "".join(f"{self._text(one, kind)}, " for one in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        if isinstance(value, slice):
            return f"slice({', '.join(self._text(v, kind) for v in (value.start, value.stop, value.step))})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key!r}: {self._text(one, kind)}" for key, one in value.items()) + "}"
        if value is None or type(value) in (bool, int, str):
            return repr(value)
        name = f"k{len(self.space)}_{len(self._attributes)}"
        if isinstance(value, _Attribute):
            self._attributes[name] = (value.module, value.name)
            return f"{kind}({name})"
        self.space[name] = value
        return name


def _options(root: Any) -> Any:
    """What was asked of the model's convolutions."""
    return next((vars(m)["_convkit_options"] for m in root.modules() if "_convkit_options" in vars(m)), ())


class _Attribute(NamedTuple):
    """A tensor that a module has, whichever that is when the code is bound."""

    module: Any
    name: str


def _of(module: Any, name: str) -> Any:
    value = getattr(module, name)
    return _Attribute(module, name) if isinstance(value, torch.Tensor) else value


def _nodes(operands: Any) -> dict[Any, None]:
    """The nodes among operands, each once."""
    found: dict[Any, None] = {}
    fx.node.map_arg(operands, lambda n: found.setdefault(n))
    return found


def _method(name: str, value: Any, *rest: Any, **named: Any) -> Any:
    return getattr(value, name)(*rest, **named)


def _then(first: Callable[..., Any], activation: Any, *given: Any, **named: Any) -> Any:
    name, *numbers = (activation,) if isinstance(activation, str) else activation
    return ACTIVATIONS[name](first(*given, **named), *numbers)

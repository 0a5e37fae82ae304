"""Forwards as torch.fx reads them: one module's, or with those of the modules within."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn

from convkit.torch.chains import Dialect
from convkit.torch.fused_modules import NORMS, is_unwatched
from convkit.torch.modules import SWAPPED
from convkit.torch.outline import Outline, outline
from convkit.tuner.process import AwaitedLock

__all__ = ["Modules", "UnreadableError", "author_of", "block_of", "parameters_of", "read_graph", "whole"]

_reading = AwaitedLock()  # torch.fx changes what all modules do while it reads
_OURS = frozenset(SWAPPED.values())


class UnreadableError(Exception):
    """Why a forward cannot be written anew."""


class Modules(Dialect):
    """Graphs that call modules."""

    def __init__(self, root: Any, graph: Any) -> None:
        self._root = root
        called = (node for node in graph.nodes if node.op == "call_module")
        self._modules = {node: root.get_submodule(node.target) for node in called}

    def module(self, node: Any) -> Any:
        return self._modules.get(node)

    def dims(self, node: Any) -> int:
        return len(self._modules[node].kernel_size)

    @property
    def called(self) -> dict[Any, Any]:
        """The module of each node that calls one."""
        return self._modules

    def attribute(self, path: str) -> Any:
        """What a path of names leads to."""
        return attrgetter(path)(self._root)

    def is_convolution(self, node: Any) -> bool:
        module = self.module(node)
        if type(module) not in _OURS or len(node.args) != 1 or node.kwargs:
            return False
        return bool(module.transposed or module.padding_mode == "zeros")

    def is_norm(self, node: Any) -> bool:
        module = self.module(node)
        plain = type(module) in NORMS and len(node.args) == 1 and not node.kwargs
        return bool(plain and module.track_running_stats and module.running_mean is not None)


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """Reads one module's forward; modules within are called, but for those that are named."""

    def __init__(self, inlined: frozenset[str]) -> None:
        super().__init__()
        self.inlined = inlined

    def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.inlined

    def proxy(self, node: Any) -> Any:
        return fx.Proxy(node, self) if _pieces(node) is None else _Pieces(node, self)


class _Pieces(fx.Proxy):  # type: ignore[misc]
    """Pieces of an image's channels, whose number is known before they are there."""

    def __len__(self) -> int:
        return _pieces(self.node) or 0

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])


def _pieces(node: Any) -> int | None:
    """How many pieces a node makes of an image's channels; None if that is not known."""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if name not in ("chunk", "split") or node.op not in ("call_method", "call_function"):
        return None
    given = dict(zip(("input", "pieces", "dim"), node.args, strict=False)) | node.kwargs
    pieces = next(
        (given[key] for key in ("pieces", "chunks", "split_size_or_sections", "split_size") if key in given), 0
    )
    if given.get("dim", 0) != 1:
        return None
    if name == "split":
        return len(pieces) if isinstance(pieces, list | tuple) else None
    return pieces if isinstance(pieces, int) else None


def parameters_of(author: type) -> list[str]:
    """Names of the arguments that a call must give; others keep their defaults."""
    kinds = inspect.Parameter
    names = []
    for name, parameter in inspect.signature(author.forward).parameters.items():  # type: ignore[attr-defined]
        if parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD):
            raise UnreadableError("its forward takes any number of arguments")
        if parameter.default is kinds.empty:
            names.append(name)
    return names[1:]


def author_of(module: Any) -> type:
    """The class that a module is of, without what makes it a block."""
    kind: type = vars(type(module)).get("_convkit_author", type(module))
    return kind


def read_graph(module: Any, author: type, names: list[str], inlined: frozenset[str]) -> Any:
    """The graph of a module's forward in inference, with the defaults of what is not named."""
    # torch.fx makes a tensor of each argument of the function that it reads.
    space: dict[str, Any] = {"author": author}
    exec(f"def forward({', '.join(['self', *names])}): return author.forward({', '.join(['self', *names])})", space)
    reader = type(author.__name__, (author,), {"forward": space["forward"], "__module__": author.__module__})
    with _reading:
        return _traced(module, reader, inlined)


def _traced(module: Any, reader: type, inlined: frozenset[str]) -> Any:
    """The graph of a module as another class has it."""
    kind = type(module)
    modes = [(m, m.training) for m in (module, *map(module.get_submodule, inlined))]
    before = [(m, _state(m)) for m in module.modules()]
    try:
        for m, _ in modes:
            m.__dict__["training"] = False
        module.__class__ = reader
        graph = _Tracer(inlined).trace(module)
    except Exception as error:  # with what is no tensor, a forward may fail in any way
        line = (str(error).splitlines() or [repr(error)])[0]
        raise UnreadableError(f"torch.fx cannot read it: {line}") from None
    finally:
        module.__class__ = kind
        for m, training in modes:
            m.__dict__["training"] = training
        changed = sum(_restore(m, state) for m, state in before) > 0
    if changed:
        raise UnreadableError("it changes its own attributes, or makes tensors of its own")
    return graph


_State = dict[str, tuple[Any, Any]]


def _state(module: Any) -> _State:
    """A module's attributes, each with what it holds if it is a container."""
    return {
        name: (value, value.copy() if isinstance(value, _CONTAINERS) else None) for name, value in vars(module).items()
    }


def _restore(module: Any, state: _State) -> bool:
    """Bring a module's attributes back; whether they had changed."""
    now = vars(module)
    changed = now.keys() != state.keys() or any(now[name] is not value for name, (value, _) in state.items())
    if changed:
        now.clear()
        now.update({name: value for name, (value, _) in state.items()})
    for value, held in state.values():
        if held is not None and not _holds(value, held):
            changed = True
            value.clear()
            value.extend(held) if isinstance(value, list) else value.update(held)
    return changed


def _holds(value: Any, held: Any) -> bool:
    """Whether a container holds the same objects as its copy; nothing is compared but identities."""
    if isinstance(value, dict):
        return list(value) == list(held) and all(value[key] is held[key] for key in held)
    return len(value) == len(held) and all(a is b for a, b in zip(value, held, strict=True))


_CONTAINERS = (dict, list, set)


def block_of(module: Any) -> Any:
    """A module's block; None if it has none."""
    return module.__dict__.get("_convkit_block") if isinstance(module, nn.Module) else None


def whole(module: Any) -> Outline:
    """The outline of a module with all that can be read in it; blocks that are channels last within are called.

    Raises UnreadableError.
    """
    author = author_of(module)
    names = parameters_of(author)
    wanted = frozenset(_readable(module))
    try:
        graph = read_graph(module, author, names, wanted)
    except UnreadableError:
        wanted = frozenset(_really_readable(module, wanted))
        graph = read_graph(module, author, names, wanted)
    dialect = Modules(module, graph)
    inlined = [module.get_submodule(name) for name in sorted(wanted)]
    holding = [m for m in module.modules() if isinstance(m, nn.ModuleList | nn.ModuleDict)]
    return outline(graph, dialect, inlined, holding)


def _readable(module: Any, prefix: str = "") -> Iterator[str]:
    """Modules within that are called as code, not as PyTorch's own."""
    for name, child in module.named_children():
        block = block_of(child)
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _readable(child, f"{prefix}{name}.")
        elif is_unwatched(child) and (block is None or not block.last) and _is_code(child):
            yield f"{prefix}{name}"
            yield from _readable(child, f"{prefix}{name}.")


def _is_code(module: Any) -> bool:
    kind = author_of(module)
    own = not kind.__module__.startswith("torch.") or kind is nn.Sequential
    return own and kind not in _OURS and not isinstance(module, torch.jit.ScriptModule | fx.GraphModule)


def _really_readable(module: Any, names: frozenset[str]) -> Iterator[str]:
    """Those of some modules within that torch.fx can read, with all that is read in them."""
    unreadable: list[str] = []
    for name in sorted(names, key=lambda name: -name.count(".")):
        inner = module.get_submodule(name)
        within = frozenset(n.removeprefix(f"{name}.") for n in names if n.startswith(f"{name}."))
        within -= {n.removeprefix(f"{name}.") for n in unreadable}
        try:
            read_graph(inner, author_of(inner), parameters_of(author_of(inner)), within)
        except UnreadableError:
            unreadable += [name, *(n for n in names if n.startswith(f"{name}."))]
    yield from names.difference(unreadable)

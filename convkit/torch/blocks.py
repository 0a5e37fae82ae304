"""Modules whose forward is written anew: read by torch.fx, one module at a time, with chains fused.

A block's class becomes a subclass that computes the new way in inference and the author's way in all other cases. The
modules in it stay where they are and are asked again at each call, so that new hooks, new weights, `train` and replaced
children are seen. A forward that torch.fx cannot read, or reads wrongly, stays as it is: the first call of a block
computes both ways and compares.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from convkit.torch.chains import Chain, Dialect, could_follow, find_chains
from convkit.torch.fused_modules import NORMS, fused, is_unwatched, spelled
from convkit.torch.memory import is_channels_last
from convkit.torch.modules import SWAPPED, no_script
from convkit.torch.packings import unpacked

__all__ = ["Block", "block_of", "rewrite"]

_OURS = frozenset(SWAPPED.values())
# Of the largest value: far more than fusing changes, far less than a wrong reading does.
_SAME = 1e-3
_MOST_INLINED = 8


class UnreadableError(Exception):
    """Why a forward cannot be written anew."""


class _Modules(Dialect):
    """Graphs that call modules."""

    def __init__(self, root: Any, graph: Any) -> None:
        called = (node for node in graph.nodes if node.op == "call_module")
        self._modules = {node: root.get_submodule(node.target) for node in called}

    def module(self, node: Any) -> Any:
        return self._modules.get(node)

    def dims(self, node: Any) -> int:
        return len(self._modules[node].kernel_size)

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


class Block:
    """How a module is computed in inference.

    Attributes
    ----------
    chains : tuple of str
        What is fused, in words.
    convolutions : tuple of str
        Whose: the names of the modules within.
    why : str
        Why the author's forward is in force; empty where it is not.
    open : bool
        Whether the result is that of a chain that may go on in the module around.
    inlined : tuple of str
        Modules within that are read as if their code were the block's own.
    last : bool
        Whether images are channels last within, in inference; who calls the block sees nothing of it.
    """

    def __init__(self, last: bool = False) -> None:
        self.last = last
        self.chains: tuple[str, ...] = ()
        self.convolutions: tuple[str, ...] = ()
        self.why = ""
        self.open = False
        self.inlined: tuple[str, ...] = ()
        self._kinds: tuple[type, ...] = ()
        self._run: Any = None
        self._count = 0
        self._read = self._checked = False

    def __reduce__(self) -> Any:
        """As it was before it read anything: code is written anew where it is loaded."""
        return Block, (self.last,)

    def __deepcopy__(self, memo: Any) -> Block:
        return Block(self.last)

    def turned(self, module: Any, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """What a module is given, channels last; None if that is not wanted or so already."""
        if not self.last or module.training or not any(map(_is_turnable, given)):
            return None
        return tuple(v.contiguous(memory_format=torch.channels_last) if _is_turnable(v) else v for v in given)

    def takes(self, module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> bool:
        """Whether a call is to be computed the new way."""
        if module.training or named or not all(isinstance(value, torch.Tensor) for value in given):
            return False
        if not self._read:
            self.read(module)
        if self._run is None or len(given) != self._count:
            return False
        for name, kind in zip(self.inlined, self._kinds, strict=True):
            inner = module.get_submodule(name)
            if inner.training or not is_unwatched(inner) or type(inner) is not kind:
                return False
        return True

    def read(self, module: Any) -> None:
        """Read the module's forward, once."""
        if self._read:
            return
        self._read = True
        try:
            self._write(module)
        except UnreadableError as error:
            self.why = str(error)

    def compute(self, module: Any, given: tuple[Any, ...], as_written: Any) -> Any:
        """The module's value; `as_written` is the author's forward."""
        if self._checked:
            return self._run(module, *given)
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or not _are_real(given):
            return as_written(*given)  # nothing to compare
        copies = [value.clone() for value in given]
        state = torch.get_rng_state()
        with unpacked():
            wanted = as_written(*given)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        try:
            with torch.no_grad(), unpacked():
                same = _agree(self._run(module, *copies), wanted)
        except Exception:  # whatever a wrong reading leads to
            same = False
        torch.set_rng_state(after)
        self._checked = True
        if not same:
            self._run, self.why = None, "computes something else when torch.fx reads it"
        return wanted

    # --- reading -----------------------------------------------------------------------------------------------------

    def _write(self, module: Any) -> None:
        for child in module.modules():
            block = block_of(child)
            if block is not None and child is not module:
                block.read(child)
        author = _author(module)
        names = _parameters(author)
        inlined: frozenset[str] = frozenset()
        while True:
            graph = _read_graph(module, author, names, inlined)
            dialect = _Modules(module, graph)
            chains = find_chains(graph, dialect)
            more = inlined.union(_to_inline(graph, dialect, chains))
            if more == inlined or len(more) > _MOST_INLINED:
                break
            inlined = more
        (output,) = (node for node in graph.nodes if node.op == "output")
        self.open = any(chain.last is output.args[0] and len(chain.last.users) == 1 for chain in chains)
        chains = [chain for chain in chains if chain.steps or chain.pad is not None]
        self.chains = tuple(map(_told, chains))
        self.convolutions = tuple(chain.convolution.target for chain in chains)
        if not chains:
            return
        for chain in chains:
            _replace(graph, chain)
        self._count = len(names)
        self.inlined = tuple(sorted(inlined))
        self._kinds = tuple(type(module.get_submodule(name)) for name in self.inlined)
        self._run = _compiled(graph)


def _parameters(author: type) -> list[str]:
    """Names of the arguments that a call must give; others keep their defaults."""
    kinds = inspect.Parameter
    names = []
    for name, parameter in inspect.signature(author.forward).parameters.items():  # type: ignore[attr-defined]
        if parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD):
            raise UnreadableError("its forward takes any number of arguments")
        if parameter.default is kinds.empty:
            names.append(name)
    return names[1:]


def _author(module: Any) -> type:
    """The class that a module is of, without what makes it a block."""
    kind = type(module)
    return kind.__bases__[0] if kind in _classes.values() else kind


def _read_graph(module: Any, author: type, names: list[str], inlined: frozenset[str]) -> Any:
    """The graph of a module's forward in inference, with the defaults of what is not named."""
    # torch.fx makes a tensor of each argument of the function that it reads.
    space: dict[str, Any] = {"author": author}
    exec(f"def forward({', '.join(['self', *names])}): return author.forward({', '.join(['self', *names])})", space)
    reader = type(author.__name__, (author,), {"forward": space["forward"], "__module__": author.__module__})
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


def _to_inline(graph: Any, dialect: Dialect, chains: list[Chain]) -> Iterator[str]:
    """Modules whose last chain could go on here."""
    taken = {node for chain in chains for node in chain.nodes}
    for node in graph.nodes:
        block = block_of(dialect.module(node)) if node.op == "call_module" else None
        if block is None or not block.open or len(node.users) != 1 or next(iter(node.users)) in taken:
            continue
        if could_follow(next(iter(node.users)), node, dialect):
            yield node.target
            yield from (f"{node.target}.{name}" for name in block.inlined)


def _replace(graph: Any, chain: Chain) -> None:
    """Put one call into the place of a chain."""
    members = [chain.convolution, *(member for member in chain.members if member is not None)]
    source = chain.pad or chain.convolution
    with graph.inserting_before(chain.last):
        modules = tuple(graph.create_node("get_attr", node.target) for node in members)
        text = spelled(chain.steps, chain.members, chain.margins)
        call = graph.call_function(fused, (source.args[0], chain.residual, text, modules))
    chain.last.replace_all_uses_with(call)
    for node in [*reversed(chain.nodes), chain.convolution, *([chain.pad] if chain.pad else [])]:
        graph.erase_node(node)


def _compiled(graph: Any) -> Any:
    code = graph.python_code("self")
    space = dict(code.globals)
    exec(compile(code.src, "<convkit.torch block>", "exec"), space)
    return space["forward"]


def _told(chain: Chain) -> str:
    """A chain in words."""
    words = ["pad"] if chain.pad is not None else []
    return "+".join([*words, "conv", *(name for name, _ in chain.steps)])


def _is_turnable(value: Any) -> bool:
    """Whether a value is a batch of images that are not channels last."""
    return (
        isinstance(value, torch.Tensor)
        and value.dim() == 4
        and value.is_floating_point()
        and not is_channels_last(value)
        and value.shape[1] > 1
    )


def _turned_back(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and is_channels_last(value):
        return value.reshape(-1).reshape(
            value.shape
        )  # gives strides of size-1 dimensions, too, which `contiguous` leaves
    return value


def _are_real(given: tuple[Any, ...]) -> bool:
    return torch._C._len_torch_dispatch_stack() == 0 and all(
        type(value) in (torch.Tensor, nn.Parameter) and value.device.type == "cpu" and value.numel() for value in given
    )


def _agree(found: Any, wanted: Any) -> bool:
    """Whether two results are the same but for rounding."""
    a, b = pytree.tree_flatten(found), pytree.tree_flatten(wanted)
    return a[1] == b[1] and all(_same_leaf(*pair) for pair in zip(a[0], b[0], strict=True))


def _same_leaf(a: Any, b: Any) -> bool:
    if not isinstance(b, torch.Tensor):
        return bool(a is b or (type(a) is type(b) and a == b))
    if not isinstance(a, torch.Tensor) or (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if not b.is_floating_point():
        return bool(torch.equal(a, b))
    limit = _SAME * b.detach().nan_to_num(0.0, 0.0, 0.0).abs().max().item() if b.numel() else 0.0
    return bool(torch.allclose(a.detach(), b.detach(), rtol=0.0, atol=limit, equal_nan=True))


# --- classes ---------------------------------------------------------------------------------------------------------

_classes: dict[type, type] = {}


def block_of(module: Any) -> Block | None:
    """A module's block; None if it has none."""
    found: Block | None = module.__dict__.get("_convkit_block") if isinstance(module, nn.Module) else None
    return found


def rewrite(module: Any, always: bool = False) -> Block | None:
    """Make a module a block, if there is something to fuse in it, or its last chain may go on around it.

    Parameters
    ----------
    module : Module
    always : bool
        Also if there is nothing.

    Returns
    -------
    Block or None
        None if the module cannot be one.
    """
    held = block_of(module)
    if held is not None or not _can_be_block(module):
        return held
    block = Block()
    block.read(module)
    if not block.chains and not block.open and not always:
        return None
    author = type(module)
    if author not in _classes:
        _classes[author] = _class_of(author)
    module.__dict__["_convkit_block"] = block
    module.__class__ = _classes[author]
    return block


def _can_be_block(module: Any) -> bool:
    author = type(module)
    if author in _OURS or (author.__module__.startswith("torch.") and not isinstance(module, nn.Sequential)):
        return False
    if isinstance(module, torch.jit.ScriptModule | fx.GraphModule) or "forward" in vars(module):
        return False
    if author.forward is nn.Module.forward:
        return False
    for base in author.__mro__[:-1]:  # pickled in a way of its own
        if "__reduce__" in vars(base) or "__reduce_ex__" in vars(base):
            return False
    return not hasattr(author, "__slots__")


def _class_of(author: type) -> type:
    """A class that computes in blocks, and says that it is its author's."""

    @functools.wraps(author.forward)  # type: ignore[attr-defined]
    def forward(self: Any, *given: Any, **named: Any) -> Any:
        block = self.__dict__["_convkit_block"]
        turned = block.turned(self, given)
        given = given if turned is None else turned
        if block.takes(self, given, named):
            y = block.compute(self, given, functools.partial(author.forward, self))  # type: ignore[attr-defined]
        else:
            y = author.forward(self, *given, **named)  # type: ignore[attr-defined]
        return y if turned is None else pytree.tree_map(_turned_back, y)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807
        return _restored, (author,), self.__getstate__()

    return type(
        author.__name__,
        (author,),
        {
            "__module__": author.__module__,
            "__qualname__": author.__qualname__,
            "__doc__": author.__doc__,
            "forward": forward,
            "__reduce_ex__": __reduce_ex__,
            "__prepare_scriptable__": no_script,
        },
    )


def _restored(author: type) -> Any:
    if author not in _classes:
        _classes[author] = _class_of(author)
    kind: Any = _classes[author]
    return kind.__new__(kind)

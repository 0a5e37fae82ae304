"""Modules whose forward is written anew: read by torch.fx, one module at a time, with chains fused.

A block's class becomes a subclass that computes the new way in inference and the author's way in all other cases. The
modules in it stay where they are and are asked again at each call, so that new hooks, new weights, `train` and replaced
children are seen. A forward that torch.fx cannot read, or reads wrongly, stays as it is: the first call of a block
computes both ways and compares.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from convkit.torch.chains import Chain, Dialect, could_follow, find_chains
from convkit.torch.comparing import compared
from convkit.torch.fused_modules import fused, is_unwatched, spelled
from convkit.torch.memory import is_channels_last, turned, turned_back
from convkit.torch.modules import SWAPPED, no_script
from convkit.torch.packings import unpacked
from convkit.torch.reading import Modules, UnreadableError, author_of, block_of, parameters_of, read_graph
from convkit.torch.straight import Codes
from convkit.torch.watching import is_plain

__all__ = ["Block", "block_of", "rewrite", "settle"]

_OURS = frozenset(SWAPPED.values())
_MOST_INLINED = 8


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
        self._codes = Codes()

    def __reduce__(self) -> Any:
        """As it was before it read anything: code is written anew where it is loaded."""
        return Block, (self.last,)

    def __deepcopy__(self, memo: Any) -> Block:
        return Block(self.last)

    def turned(self, module: Any, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """What a module is given, channels last; None if that is not wanted or so already."""
        if not self.last or module.training or not any(map(_is_turnable, given)):
            return None
        plain = is_plain(given)
        return tuple(turned(v, plain) if _is_turnable(v) else v for v in given)

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
        with unpacked():
            wanted, same = compared(given, as_written, functools.partial(self._run, module))
        self._checked = True
        if not same:
            self._run, self.why = None, "computes something else when torch.fx reads it"
        return wanted

    def straight(self, module: Any, given: tuple[Any, ...], otherwise: Any) -> Any:
        """The module's value by straight-line code; NotImplemented where there is none for this call."""
        return self._codes.run(module, given, otherwise)

    def close(self, module: Any) -> bool:
        """Read straight-line code now, or never; whether there is any."""
        return self._codes.close(module)

    def drop(self) -> None:
        """Never read straight-line code."""
        self._codes.drop()

    # --- reading -----------------------------------------------------------------------------------------------------

    def _write(self, module: Any) -> None:
        for child in module.modules():
            block = block_of(child)
            if block is not None and child is not module:
                block.read(child)
        author = author_of(module)
        names = parameters_of(author)
        inlined: frozenset[str] = frozenset()
        while True:
            graph = read_graph(module, author, names, inlined)
            dialect = Modules(module, graph)
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


def _turned_back(value: Any, plain: bool) -> Any:
    return turned_back(value, plain) if isinstance(value, torch.Tensor) and is_channels_last(value) else value


def _are_real(given: tuple[Any, ...]) -> bool:
    return torch._C._len_torch_dispatch_stack() == 0 and all(
        type(value) in (torch.Tensor, nn.Parameter) and value.device.type == "cpu" and value.numel() for value in given
    )


# --- classes ---------------------------------------------------------------------------------------------------------

_classes: dict[type, type] = {}


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
    held: Block | None = block_of(module)
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


def settle(module: Any) -> None:
    """Read straight-line code of the largest modules that can be read, once their parts are what they will be."""
    block = block_of(module)
    if block is not None and block.close(module):
        for inner in module.modules():
            if inner is not module and (own := block_of(inner)) is not None:
                if own.last:
                    settle(inner)
                else:
                    own.drop()
        return
    for child in module.children():
        settle(child)


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
        others = block.turned(self, given)
        given = given if others is None else others

        def block_by_block(*given: Any) -> Any:
            if block.takes(self, given, named):
                return block.compute(self, given, functools.partial(author.forward, self))  # type: ignore[attr-defined]
            return author.forward(self, *given, **named)  # type: ignore[attr-defined]

        y = NotImplemented if self.training or named else block.straight(self, given, block_by_block)
        y = block_by_block(*given) if y is NotImplemented else y
        return y if others is None else pytree.tree_map(functools.partial(_turned_back, plain=is_plain(given)), y)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807
        return _restored, (author,), self.__getstate__()

    return type(
        author.__name__,
        (author,),
        {
            "__module__": author.__module__,
            "__qualname__": author.__qualname__,
            "__doc__": author.__doc__,
            "_convkit_author": author,
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

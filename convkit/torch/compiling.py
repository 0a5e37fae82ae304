"""The backend "convkit" of `torch.compile`: Dynamo's graph with fused convolutions, and inductor for the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from convkit.torch.chains import Chain, Dialect, find_chains
from convkit.torch.modules import both_sides
from convkit.torch.ops import CONV, FUSED
from convkit.torch.recipe import Recipe

__all__ = ["backend", "rewrite_graph"]

_INNER = ("inductor", "eager")
# Dimensions, transposed, and the names of the arguments after x, w and bias.
_FORWARD, _BACKWARD = ("stride", "padding", "dilation", "groups"), (
    "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip
_CONVOLUTIONS: dict[Any, tuple[int, bool, tuple[str, ...]]] = {
    torch.conv1d: (1, False, _FORWARD),
    torch.conv2d: (2, False, _FORWARD),
    torch.conv_transpose1d: (1, True, _BACKWARD),
    torch.conv_transpose2d: (2, True, _BACKWARD),
}
_DEFAULTS = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_NORM_DEFAULTS = {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5}


def backend(graph: Any, example_inputs: Any, *, options: dict[str, Any] | None = None, mode: str | None = None) -> Any:
    """Compile a graph of Dynamo's, as ``torch.compile(model, backend="convkit")`` asks for.

    Parameters
    ----------
    graph : torch.fx.GraphModule
    example_inputs : list of Tensor
    options : dict, optional
        ``{"inner": "eager"}`` leaves what convkit does not compute to PyTorch's operations; the default,
        ``"inductor"``, compiles it, if there is a C++ compiler.
    mode : str, optional
        Taken and ignored: modes are inductor's.

    Returns
    -------
    callable
        What computes the graph.

    Raises
    ------
    ValueError
        If there is no such option.
    """
    inner = dict(options or {})
    name = inner.pop("inner", "inductor")
    if inner or name not in _INNER:
        raise ValueError(f"options may be {{'inner': one of {', '.join(_INNER)}}}, got {options!r}")
    learns = torch.is_grad_enabled() and any(
        isinstance(value, torch.Tensor) and value.requires_grad for value in example_inputs
    )
    rewrite_graph(graph, fuse=not learns)
    if name == "eager" or not _can_compile():
        return graph.forward
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(graph, example_inputs)


def _can_compile() -> bool:
    """Whether inductor finds a compiler."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception:  # of many kinds, by platform and version
        return False
    return True


class _Functions(Dialect):
    """Graphs that call functions, whose nodes know the shapes of their values."""

    def dims(self, node: Any) -> int:
        return _CONVOLUTIONS[node.target][0]

    def is_convolution(self, node: Any) -> bool:
        if node.op != "call_function" or node.target not in _CONVOLUTIONS:
            return False
        recipe = recipe_of_call(node)
        x, w = (_value(operand) for operand in node.args[:2]) if len(node.args) >= 2 else (None, None)
        return bool(
            recipe is not None
            and x is not None
            and w is not None
            and w.device.type == "cpu"
            and w.dtype in (torch.float32, torch.float64)
            and x.dtype is w.dtype
            and x.dim() == w.dim()
        )

    def is_norm(self, node: Any) -> bool:
        if node.op != "call_function" or node.target is not F.batch_norm:
            return False
        given = _norm_arguments(node)
        fixed = given["training"] is False and isinstance(given["running_mean"], torch.fx.Node)
        return bool(fixed and isinstance(given["eps"], float))

    def may_add(self, residual: Any, node: Any) -> bool:
        summand, value = _value(residual), _value(node)
        if summand is None or value is None:
            return False
        return bool(summand.shape == value.shape and summand.dtype is value.dtype)


def _value(node: Any) -> Any:
    """An example of a node's value; None if there is none, or it is no tensor."""
    value = node.meta.get("example_value") if isinstance(node, torch.fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None


def _norm_arguments(node: Any) -> dict[str, Any]:
    return {**_NORM_DEFAULTS, **dict(zip(_NORM, node.args, strict=False)), **node.kwargs}


def recipe_of_call(node: Any) -> Recipe | None:
    """The recipe of a functional convolution's node; None if an argument is known only at run time."""
    dims, transposed, names = _CONVOLUTIONS[node.target]
    given = {**_DEFAULTS, **dict(zip(names, node.args[3:], strict=False)), **node.kwargs}
    given.pop("bias", None)
    if set(given) - set(_DEFAULTS):
        return None

    def each(value: Any) -> tuple[int, ...] | None:
        numbers = (value,) * dims if isinstance(value, int) else tuple(value)
        numbers = numbers * dims if len(numbers) == 1 else numbers
        return numbers if len(numbers) == dims and all(type(n) is int for n in numbers) else None

    weight = _value(node.args[1]) if len(node.args) > 1 else None
    if weight is None or type(given["groups"]) is not int:
        return None
    stride, dilation, extra = (each(given[name]) for name in ("stride", "dilation", "output_padding"))
    padding = given["padding"] if isinstance(given["padding"], str) else each(given["padding"])
    if stride is None or dilation is None or extra is None or padding is None:
        return None
    kernel = tuple(weight.shape[2:])
    if not all(type(n) is int for n in kernel):
        return None
    sides = both_sides(padding, dilation, kernel)
    return Recipe(stride, sides, dilation, transposed, extra if transposed else (), given["groups"])


def rewrite_graph(graph: Any, fuse: bool = True) -> int:
    """Put convkit's operators into a graph of functions.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        With example values, as Dynamo has them. It is changed.
    fuse : bool
        Whether chains are fused, or convolutions computed one by one.

    Returns
    -------
    int
        The number of convolutions.
    """
    nodes, dialect = graph.graph, _Functions()
    if fuse:
        chains = find_chains(nodes, dialect)
    else:
        chains = [Chain(node) for node in nodes.nodes if dialect.is_convolution(node)]
    for chain in chains:
        _replace(nodes, chain)
    graph.recompile()
    return len(chains)


def _replace(nodes: Any, chain: Chain) -> None:
    convolution = chain.convolution
    recipe = recipe_of_call(convolution)
    assert recipe is not None
    x, w = convolution.args[:2]
    bias = convolution.args[2] if len(convolution.args) > 2 else convolution.kwargs.get("bias")
    if chain.pad is not None:
        padding = tuple(a + b for a, b in zip(recipe.padding, chain.margins, strict=True))
        recipe, x = replace(recipe, padding=padding), chain.pad.args[0]
    norm: tuple[Any, ...] = (None,) * 4
    steps = []
    for step in chain.steps:
        if step[0] == "norm":
            given = _norm_arguments(chain.norm)
            norm = tuple(given[name] for name in ("running_mean", "running_var", "weight", "bias"))
            step = ("norm", (given["eps"],))
        steps.append(step)
    with nodes.inserting_before(chain.last):
        if steps:
            text = replace(recipe, steps=tuple(steps)).text
            call = nodes.call_function(FUSED, (x, w, bias, *norm, chain.residual, text))
        else:
            call = nodes.call_function(CONV, (x, w, bias, recipe.text))
    call.meta = dict(chain.last.meta)
    chain.last.replace_all_uses_with(call)
    for node in [*reversed(chain.nodes), convolution, *([chain.pad] if chain.pad else [])]:
        nodes.erase_node(node)

"""``convkit explain``: who was asked, every candidate, and why one was chosen."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from convkit import networks
from convkit.commands import arguments
from convkit.commands.terminal import console
from convkit.commands.tune import OPS, gradient
from convkit.problem import Problem, epilogue_class, of_call

__all__ = ["explain"]


def explain(
    x: Annotated[str, typer.Argument(help="Shape of the input, 1x64x56x56; or a network's name; or a problem's text.")],
    w: Annotated[str, typer.Argument(help="Shape of the filters, 128x64x3x3; or the network's layer.")] = "",
    stride: Annotated[str, typer.Option(help="Stride, or one for each direction: 2 or 2,1.")] = "1",
    padding: Annotated[str, typer.Option(help='Rows and columns of zeros: 1, 1,2, or "same" and the like.')] = "0",
    dilation: Annotated[str, typer.Option(help="Distance of the filter's taps.")] = "1",
    groups: Annotated[int, typer.Option(help="Number of groups.")] = 1,
    layout: Annotated[str, typer.Option(help="NCHW or NHWC.")] = "NCHW",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    activation: Annotated[str, typer.Option(help="none, relu, relu6, silu, ...")] = "none",
    bias: Annotated[bool, typer.Option(help="With a bias.")] = False,
    cold: Annotated[bool, typer.Option("--cold", help="As conv2d runs it, weights not packed beforehand.")] = False,
    batch: Annotated[int, typer.Option(help="Batch size, for a network's layer.")] = 1,
    threads: Annotated[int, typer.Option(help="Team size; 0: what a call would use.")] = 0,
    accuracy: Annotated[str, typer.Option(help="strict, standard, fast, or an RMS error; empty: the default.")] = "",
    op: Annotated[str, typer.Option(help="forward, input, weight: the call or a gradient of it.")] = "forward",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain the choice of a kernel: tiers asked, candidates, times, errors."""
    from convkit.tuner import explain_problem

    try:
        problem = _problem(
            x,
            w,
            batch,
            stride=_pair(stride),
            padding=padding if padding.isalpha() or "_" in padding else _pair(padding),
            dilation=_pair(dilation),
            groups=groups,
            layout=layout.upper(),
            activation=None if activation == "none" else activation,
            bias=bias or None,
            dtype=dtype,
            packed=not cold,
        )
        if op != "forward":
            problem = _gradient(problem, op, given=not w)
        explanation = explain_problem(problem, threads=threads or None, accuracy=_accuracy(accuracy))
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    if json:
        print(explanation.to_json())
    else:
        console.print(explanation)


def _problem(x: str, w: str, batch: int, **call: Any) -> Problem:
    if x in networks.names():
        layers = {layer.name: layer for layer in networks.get(x).layers}
        if w not in layers:
            raise ValueError(f"{x} has no layer {w!r}; its layers are {', '.join(layers)}")
        epilogue = epilogue_class(call["activation"])
        chosen = {"layout": call["layout"], "dtype": call["dtype"], "packed": call["packed"]}
        return layers[w].problem(batch, epilogue=epilogue, bias=call["bias"] is not None, **chosen)
    if not w:
        return Problem.parse(x)
    return of_call(arguments.shape(x), arguments.shape(w), **call)[0]


def _gradient(problem: Problem, name: str, *, given: bool) -> Problem:
    """The problem of a gradient as `convkit tune --op` measures it; not of one that was given as a text."""
    if name not in OPS:
        raise ValueError(f"--op {name!r} is not one of {', '.join(OPS)}")
    if given:
        raise ValueError(f"the problem's text says its op, {problem.op}: leave --op {name} out")
    return problem.replace(op=gradient(problem.op, name), epilogue="none", bias=False, packed=False)


def _pair(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) not in (1, 2) or not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(f"{text!r} is neither a number nor two")
    return int(parts[0]), int(parts[-1])


def _accuracy(text: str) -> str | float | None:
    try:
        return float(text)
    except ValueError:
        return text or None

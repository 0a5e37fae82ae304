"""``convkit explain``: who was asked, every candidate, and why one was chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convkit import networks
from convkit.commands import arguments
from convkit.commands.terminal import console
from convkit.commands.tune import CALLS
from convkit.problem import DTYPES, Problem, epilogue_class, of_call
from convkit.tables import threads_text

if TYPE_CHECKING:
    from convkit.tuner.choosing.explanation import Explanation

__all__ = ["explain"]

_GEOMETRY = ("stride", "padding", "dilation", "groups")
_KIND = ("layout", "dtype", "activation", "bias", "cold")


def explain(
    context: typer.Context,
    x: Annotated[str, typer.Argument(help="Shape of the input, 1x64x56x56; or a network's name; or a problem's text.")],
    w: Annotated[str, typer.Argument(help="Shape of the filters, 128x64x3x3; or the network's layer.")] = "",
    stride: Annotated[str, typer.Option(help="Stride, or one for each direction: 2 or 2,1.")] = "1",
    padding: Annotated[
        str, typer.Option(help='Zeros: 1; 1,2 (vertical, horizontal); 1,1,2,2; "same" and the like.')
    ] = "0",
    dilation: Annotated[str, typer.Option(help="Distance of the filter's taps.")] = "1",
    groups: Annotated[int, typer.Option(help="Number of groups.", min=1)] = 1,
    layout: Annotated[str, typer.Option(help="NCHW or NHWC.")] = "NCHW",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    activation: Annotated[str, typer.Option(help="none, relu, relu6, silu, ...")] = "none",
    bias: Annotated[bool, typer.Option(help="With a bias.")] = False,
    cold: Annotated[bool, typer.Option("--cold", help="As conv2d runs it, weights not packed beforehand.")] = False,
    batch: Annotated[int, typer.Option(help="Batch size, for a network's layer.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="Team size; 0: what a call would use.", min=0)] = 0,
    accuracy: Annotated[str, typer.Option(help="strict, standard, fast, or an RMS error; empty: the default.")] = "",
    op: Annotated[str, typer.Option(help="forward, input, weight: the call or a gradient of it.")] = "forward",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain the choice of a kernel: tiers asked, candidates, times, errors."""
    from convkit.tuner import explain_problem

    try:
        if x in networks.names():
            arguments.refuse_idle(context, _GEOMETRY, f"the layers of {x} say it themselves")
            problem = _layer(x, w, batch, layout.upper(), dtype, activation, bias, cold)
        elif not w:
            arguments.refuse_idle(context, (*_GEOMETRY, *_KIND, "batch", "op"), "the problem's text says it itself")
            problem = arguments.problem(x)
        else:
            arguments.refuse_idle(context, ("batch",), "the input's shape begins with the batch")
            problem, _ = of_call(
                _shape(x),
                arguments.shape(w),
                bias,
                arguments.pair(stride),
                arguments.padding(padding),
                arguments.pair(dilation),
                groups,
                layout=layout.upper(),
                activation=_activation(activation),
                dtype=arguments.words(dtype, DTYPES, "--dtype")[0],
                packed=not cold,
            )
        if op != "forward":
            arguments.refuse_idle(
                context, ("activation", "bias", "cold"), "a gradient has no epilogue and packs nothing"
            )
            problem = problem.of_op(arguments.words(op, CALLS, "--op")[0]).replace(packed=False)
        found = explain_problem(
            problem,
            threads=arguments.teams(str(threads))[0] if threads else None,
            accuracy=arguments.accuracy(accuracy),
        )
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from None
    explanation = _with_other_teams(found)
    if json:
        print(explanation.to_json())
    else:
        console.print(explanation)


def _with_other_teams(explanation: Explanation) -> Explanation:
    """The same, but a tier that knows nothing for this team size says for which it does."""
    from convkit.tuner.choosing.selector import selector

    choosing, threads, texts = selector(), explanation.threads, explanation.problem.texts()
    told = []
    for place, (name, outcome) in enumerate(explanation.tiers):
        if place < len(choosing.tiers) and outcome.startswith("nothing "):
            known = choosing.tiers[place].problems(choosing.context_of(threads))
            if teams := sorted({team for text, team in known if text in texts and team != threads}):
                counts = ", ".join(map(str, teams))
                outcome = f"nothing for {threads_text(threads)}; measured for {counts}{outcome.removeprefix('nothing')}"
        told.append((name, outcome))
    return replace(explanation, tiers=tuple(told))


def _layer(
    network: str, name: str, batch: int, layout: str, dtype: str, activation: str, bias: bool, cold: bool
) -> Problem:
    layers = {layer.name: layer for layer in networks.get(network).layers}
    if name not in layers:
        raise ValueError(f"{network} has no layer {name!r}; its layers are {', '.join(layers)}")
    fields: dict[str, Any] = {"layout": layout, "dtype": dtype, "packed": not cold, "bias": bias}
    return layers[name].problem(batch, epilogue=epilogue_class(_activation(activation)), **fields)


def _activation(name: str) -> Any:
    return None if name == "none" else name


def _shape(text: str) -> tuple[int, int, int, int]:
    if not text[:1].isdecimal():
        known = ", ".join(networks.names())
        raise ValueError(f"{text!r} is neither a shape such as 1x64x56x56 nor a network: {known}")
    return arguments.shape(text)

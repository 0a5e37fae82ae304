"""``convkit report``: what was measured, what choosing is worth, and how far prediction would have gone."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from convkit.commands import arguments
from convkit.commands.failing import CommandError
from convkit.commands.outputs import Outputs
from convkit.commands.terminal import console, error_console
from convkit.commands.watching import Watch
from convkit.distribution import install_line
from convkit.networks import Network
from convkit.problem import LAYOUTS, Problem
from convkit.tables import threads_text

__all__ = ["report"]

Layers = list[tuple[str, int, Problem]]
# A network, its title with batch and layout, the team size, and the layers that were measured.
Measured = tuple[Network, str, int, Layers]


def report(
    context: typer.Context,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.", readable=False)] = None,
    network: Annotated[str, typer.Option(help="Networks: each layer's kernel, its limit and its runner-up.")] = "",
    batch: Annotated[str, typer.Option(help="Batch sizes for --network.")] = "1",
    threads: Annotated[str, typer.Option(help="Team sizes for --network; empty: what a call would use.")] = "",
    layout: Annotated[str, typer.Option(help="NCHW, NHWC or both, for --network.")] = "NCHW,NHWC",
    against: Annotated[
        Path | None,
        typer.Option(help="Another tuning database: how far do they agree?", exists=True, dir_okay=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what tuning is worth on this machine, and how good choices without measuring would be.

    With --network, a table of its layers: the kernel that was chosen, the share of its limit, and the runner-up. With
    --against, how far two tunings agree: about these layers, or about all that both have measured.
    """
    from convkit.report.summary import summarise

    if not network:
        arguments.refuse_idle(context, ("batch", "threads", "layout"), "they vary the layers of a --network")
    ours = None if against is None else _comparable(against)
    facts: dict[str, Any] = {}
    with Outputs() as outputs, Watch("problems", None, error_console) as watch:
        page = None if html is None else outputs.file(html)
        write = None if html is None else _page_writer()
        layers = _networks(network, batch, layout, threads) if network else []
        if layers:
            facts["networks"] = [_network(one, json) for one in layers]
        if ours is not None and against is not None:
            only = [(problem, team) for _, _, team, found in layers for _, _, problem in found]
            facts["agreement"] = _agreement(ours, against, only if network else None, watch, json)
        if html is not None or not facts:
            summary = summarise(each=watch.each)
            if not facts:
                facts = summary.facts()
                if not json:
                    console.print(str(summary), highlight=False, markup=False, soft_wrap=True)
            if write is not None:
                write(page, summary=summary)
    if json:
        print(dumps(facts))
    elif html is not None:
        console.print(f"written: {html}", highlight=False, markup=False, soft_wrap=True)


def _page_writer() -> Any:
    try:
        from convkit.pictures.page import write
    except ModuleNotFoundError:
        raise CommandError(f"the page needs matplotlib and jinja2: {install_line('plot')}") from None
    return write


def _networks(network: str, batch: str, layout: str, threads: str) -> list[Measured]:
    return [
        (table, f"{table.title}, batch {size}, {order}", team, _measured(table, size, order, team))
        for table in arguments.network_list(network)
        for size in arguments.counts(batch, "--batch")
        for order in arguments.words(layout.upper(), LAYOUTS, "--layout")
        for team in arguments.teams(threads)
    ]


def _measured(table: Network, batch: int, layout: str, threads: int) -> Layers:
    from convkit.tuner.choosing.selector import selector

    found = []
    for layer in table.unique():
        problem = layer.problem(batch, layout=layout, bias=layer.bias, packed=True)
        if selector().on(problem, threads).own.ranked:
            found.append((layer.name, layer.count, problem))
    return found


def _network(measured: Measured, json: bool) -> dict[str, Any]:
    from convkit.report.comparison import layer_times, network_worth, static_table

    table, title, threads, layers = measured
    worth = network_worth(table, layers, threads)
    if not json:
        text = f"{title}, {threads_text(threads)}: {len(layers)} of {len(table.unique())} layers measured"
        found = static_table(worth) if worth else "none of these layers was measured: run convkit tune --network"
        console.print(f"{text}\n{found}", highlight=False, markup=False, soft_wrap=True)
    return {
        "network": title,
        "threads": threads,
        "layers": [asdict(layer) for layer in layer_times(worth)] if worth else [],
    }


def _comparable(against: Path) -> Path:
    """The user's database, if both can be read: a file that is none is an error, not one that knows nothing."""
    from convkit.tuner.evidence.database import Database, open_user

    ours = open_user()
    for database in (ours, Database(against, owned=False)):
        database.counts()
    return ours.path


def _agreement(
    ours: Path, theirs: Path, only: list[tuple[Problem, int]] | None, watch: Watch, json: bool
) -> dict[str, Any]:
    from convkit.report.comparison import agreement

    found = agreement(ours, theirs, only=only, each=watch.each)
    if not found.problems:
        what = "none of these layers" if only is not None else "no problem"
        raise CommandError(f"{what} was measured in both {ours} and {theirs} on machines like this one")
    if not json:
        console.print(str(found), highlight=False, markup=False, soft_wrap=True)
    return asdict(found)

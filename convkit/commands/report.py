"""``convkit report``: what was measured, what choosing is worth, and how far prediction would have gone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convkit.commands import arguments
from convkit.commands.terminal import console
from convkit.distribution import install_line
from convkit.problem import LAYOUTS

__all__ = ["report"]


def report(
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page with plots here.")] = None,
    network: Annotated[str, typer.Option(help="Networks: their layers by family, against the selector.")] = "",
    batch: Annotated[str, typer.Option(help="Batch sizes for --network.")] = "1",
    threads: Annotated[str, typer.Option(help="Team sizes for --network; empty: what a call would use.")] = "",
    layout: Annotated[str, typer.Option(help="NCHW, NHWC or both, for --network.")] = "NCHW,NHWC",
    against: Annotated[Path | None, typer.Option(help="Another tuning database: how far do they agree?")] = None,
) -> None:
    """Show what the database knows: winners, stale problems, regret of the cost model and of neighbours.

    With --network, a table of its layers: the time of every family that was measured and the selector's choice.
    """
    from convkit import _core
    from convkit.tuner.report import page as reports

    if network:
        teams = arguments.counts(threads) if threads else (_core.default_threads(),)
        for table in arguments.network_list(network):
            for size in arguments.counts(batch):
                for order in arguments.words(layout.upper(), LAYOUTS):
                    for team in teams:
                        _network(table, size, order, team)
    elif against is not None:
        from convkit.tuner.evidence.database import DatabaseError, open_user
        from convkit.tuner.report.comparison import agreement

        try:
            console.print(str(agreement(open_user().path, against)), highlight=False, markup=False)
        except DatabaseError as error:
            console.print(str(error), style="red", highlight=False)
            raise typer.Exit(1) from None
    else:
        console.print(reports.text(), highlight=False, markup=False)
    if html is not None:
        try:
            from convkit.pictures import page

            page.write(html)
        except ImportError:
            text = f"the page needs matplotlib: {install_line('plot')}"
            console.print(text, style="red", highlight=False, markup=False)
            raise typer.Exit(1) from None
        console.print(f"written: {html}", highlight=False)


def _network(table: object, batch: int, layout: str, threads: int) -> None:
    from convkit.networks import Network
    from convkit.tuner.choosing.selector import selector
    from convkit.tuner.report.comparison import layer_times, static_table

    assert isinstance(table, Network)
    choosing = selector()
    layers = []
    for layer in table.unique():
        variants = (
            layer.problem(batch, layout=layout, bias=bias, epilogue=epilogue, packed=True)
            for epilogue in ("clamp", "none")
            for bias in (layer.bias, True, False)
        )
        problem = next((p for p in variants if choosing.answers(p, threads)[0].ranking.ranked), None)
        if problem is not None:
            layers.append((layer.name, layer.count, problem))
    console.print(
        f"{table.title}, batch {batch}, {layout}, {threads} threads: "
        f"{len(layers)} of {len(table.unique())} layers measured",
        highlight=False,
        markup=False,
    )
    console.print(static_table(layer_times(layers, threads, choosing)), highlight=False, markup=False, soft_wrap=True)

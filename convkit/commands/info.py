"""``convkit info``: this machine, this build, this configuration."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from convkit.commands.terminal import console

__all__ = ["info"]


def info(
    kernels: Annotated[bool, typer.Option("--kernels", help="List every kernel that this CPU can run.")] = False,
) -> None:
    """Show machine, build and configuration: one paste for a bug report."""
    from convkit import _core
    from convkit.config import config_text

    console.print(config_text(), highlight=False, markup=False)
    if not kernels:
        return
    table = Table(title="Kernels, best instruction set first")
    for column in ("name", "algorithm", "operation", "layouts", "accuracy", "parameters"):
        table.add_column(column, overflow="fold")
    for kernel in _core.kernels():
        table.add_row(
            kernel["name"],
            kernel["family"],
            kernel["op"],
            " ".join(kernel["layouts"]),
            "strict" if kernel["direct"] else f"RMS x {kernel['rms_ratio']:.3g}",
            ", ".join(name for name, _, _ in kernel["parameters"]) or "-",
        )
    console.print(table)

"""The commands of the `convkit` script; needs the extra `cli`."""

from __future__ import annotations

from typing import Annotated

import typer

from convkit.commands import bench, calibrate, db, demo, doctor, explain, info, report, run, tune
from convkit.commands.failing import Commands

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from convkit import __version__

        print(f"convkit {__version__}")
        raise typer.Exit


@app.callback()
def convkit(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Fast 2-D convolution for NumPy: look at this machine, tune shapes for it, see why a kernel was chosen."""


app.command()(info.info)
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command()(tune.tune)
app.command()(explain.explain)
app.command()(bench.bench)
app.command()(calibrate.calibrate)
app.command()(report.report)
app.command()(run.run)
app.add_typer(db.app, name="db")

"""The commands of the `convkit` script; needs the extra `cli`."""

from __future__ import annotations

import typer

from convkit.commands import bench, calibrate, db, demo, explain, info, report, tune

__all__ = ["app"]

app = typer.Typer(
    help="Fast 2-D convolution for NumPy: look at this machine, tune shapes for it, see why a kernel was chosen.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)
app.command()(info.info)
app.command()(demo.demo)
app.command()(tune.tune)
app.command()(explain.explain)
app.command()(bench.bench)
app.command()(calibrate.calibrate)
app.command()(report.report)
app.add_typer(db.app, name="db")

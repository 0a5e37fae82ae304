"""``convkit calibrate``: measure the constants of the cost model on this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from convkit.commands import arguments
from convkit.commands.terminal import console

__all__ = ["calibrate"]


def calibrate(
    budget: Annotated[str, typer.Option(help="Time for all of it, about.")] = "20s",
) -> None:
    """Measure FMA peak, bandwidths, the cost of a team and each kernel's distance from its declared cost; keep them.

    The cost model uses them from then on, for problems that nobody has measured.
    """
    from convkit.tuner import reload
    from convkit.tuner.measuring import calibration

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("calibrating", total=None)
        found = calibration.calibrate(
            arguments.duration(budget),
            lambda done, total, text: progress.update(task, completed=done, total=total, description=text),
        )
    console.print(str(found), highlight=False, markup=False)
    path = calibration.calibration_path()
    if path is not None and path.exists():
        console.print(f"kept in {path}", highlight=False)
    reload()

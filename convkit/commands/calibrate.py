"""``convkit calibrate``: measure the constants of the cost model on this machine."""

from __future__ import annotations

import os
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from convkit.commands import arguments
from convkit.commands.outputs import try_file
from convkit.commands.terminal import console, error_console
from convkit.commands.watching import Watch

__all__ = ["calibrate"]

# Less than this leaves a run or two for each constant.
_LEAST = 0.1


def calibrate(
    budget: Annotated[str, typer.Option(help="Time for all of it, about.")] = "20s",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure FMA peak, bandwidths, the cost of a team and each kernel's distance from its declared cost; keep them.

    The cost model uses them from then on, for problems that nobody has measured.
    """
    from convkit import calibration
    from convkit.tuner import reload
    from convkit.tuner.choosing.cost_model import constants_path

    seconds = arguments.duration(budget, "--budget", _LEAST)
    path = constants_path()
    if path is not None:
        try_file(Path(path))
    with Watch("calibrating", seconds, error_console if json else console, timed=True) as watch:
        found = calibration.calibrate(seconds, lambda done, total, text: watch.now(text))
    if json:
        print(dumps({**asdict(found), "constants": found.constants._asdict()}))
    else:
        console.print(str(found), highlight=False, markup=False)
        if path is not None and os.path.exists(path):
            console.print(f"kept in {path}", highlight=False, markup=False, soft_wrap=True)
    reload()

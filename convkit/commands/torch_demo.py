"""``convkit demo --torch``: a U-Net in PyTorch on the photograph, before and after `convkit.torch.optimize`."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from json import dumps
from pathlib import Path
from typing import Any

from rich.table import Table

from convkit.commands.failing import CommandError
from convkit.commands.terminal import console, error_console
from convkit.distribution import install_line
from convkit.tables import threads_text, time_text

__all__ = ["unet_demo"]

_SIZE, _BASE = 256, 32
# Seconds for all contestants together.
_SECONDS = 6.0


def unet_demo(image: Path | None, team: int, seconds: float | None, json: bool) -> None:
    """Time the network in turns, compare its results, and print both.

    Parameters
    ----------
    image : Path, optional
        A photograph; None: matplotlib's sample.
    team : int
        Threads.
    seconds : float, optional
        How long kernels may be measured first; None: until all is settled.
    json : bool
    """
    try:
        import torch

        import convkit.torch as door
        from convkit.torch import networks
    except ImportError:
        raise CommandError(f"the demo's model is PyTorch's: {install_line('torch')}") from None
    from convkit import tuning
    from convkit.pictures.demo import load_photo, square

    told = error_console if json else console
    pixels = torch.from_numpy(square(load_photo(image), _SIZE).transpose(0, 3, 1, 2).copy())
    torch.set_num_threads(team)
    model = networks.make("unet")[0]
    with torch.no_grad():
        told.print(
            f"A U-Net, {_SIZE} x {_SIZE} pixels, float32, {threads_text(team)}: measuring kernels", highlight=False
        )
        with nullcontext() if seconds == 0 else tuning(mode="tune", budget=seconds):
            optimized = door.optimize(model, pixels, verbose=False)
        door.refresh(optimized)
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        pixels_last = pixels.to(memory_format=torch.channels_last)
        calls: dict[str, Callable[[], Any]] = {
            "PyTorch": lambda: model(pixels),
            "PyTorch, channels last": lambda: last(pixels_last),
            "convkit": lambda: optimized(pixels),
        }
        exact = copy.deepcopy(model).double()(pixels.double())
        largest = exact.abs().max()
        errors = {name: float((call().double() - exact).abs().max() / largest) for name, call in calls.items()}
        times = _in_turns(calls)
    if json:
        print(dumps({"threads": team, "seconds": times, "errors": errors}))
        return
    table = Table(
        title=f"U-Net on the photograph, {_SIZE}x{_SIZE}, {threads_text(team)}",
        caption="Timed in turns, medians. Error: largest, relative to the largest output, against double precision.",
    )
    for column in ("", "time", "convkit is", "error"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in times.items():
        faster = "" if name == "convkit" else f"{value / times['convkit']:.2f}x as fast"
        table.add_row(name, time_text(value), faster, f"{errors[name]:.0e}")
    console.print(table)
    console.print("Yours: model = convkit.torch.optimize(model.eval(), images)", highlight=False)


def _in_turns(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The middle of each one's seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    while len(times["convkit"]) < 3 or (time.perf_counter() - begin < _SECONDS and len(times["convkit"]) < 25):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}

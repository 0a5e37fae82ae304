"""``convkit demo``: a photograph through a filter bank, and through VGG-19's sixteen convolutions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from convkit import networks, reference
from convkit.commands.terminal import console
from convkit.commands.tune import Job, tune_all
from convkit.distribution import install_line
from convkit.problem import Problem
from convkit.tables import threads_text

__all__ = ["LayerRow", "demo"]

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerRow:
    """What one layer of the network did."""

    name: str
    problem: Problem
    kernel: str
    seconds: float
    numpy_seconds: float
    error: float
    stale: bool

    @property
    def flops_rate(self) -> float:
        """Operations a second, counted as direct summation does."""
        return self.problem.flops / self.seconds

    @property
    def numpy_flops_rate(self) -> float:
        """The same for NumPy."""
        return self.problem.flops / self.numpy_seconds

    @property
    def speedup(self) -> float:
        """How many times faster than NumPy."""
        return self.numpy_seconds / self.seconds


def demo(
    image: Annotated[Path | None, typer.Option(help="A photograph; none: matplotlib's sample.", exists=True)] = None,
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("convkit-demo"),
    threads: Annotated[int, typer.Option(help="Team size; 0: what a call would use.")] = 0,
    layout: Annotated[Literal["NCHW", "NHWC"], typer.Option(help="Order of the tensors.")] = "NCHW",
    budget: Annotated[str, typer.Option(help="Time for the tuning, such as 30s; empty: until all is settled.")] = "",
) -> None:
    """Send a photograph through a filter bank and through VGG-19, tuning each layer on the way."""
    try:
        from convkit.pictures import demo as pictures
    except ModuleNotFoundError as error:
        console.print(f"the demo draws with {error.name}: {install_line('cli', 'plot')}", style="red", markup=False)
        raise typer.Exit(1) from None
    from convkit import _core
    from convkit.commands.arguments import duration
    from convkit.commands.filter_bank import FILTERS, apply

    output.mkdir(parents=True, exist_ok=True)
    photo = pictures.load_photo(image)

    sheet = output / "filter-bank.png"
    pictures.contact_sheet(photo, apply(photo), tuple(FILTERS), sheet)
    console.print(
        f"One conv2d: {photo.shape[1]} x {photo.shape[0]} photograph, 3 colours, {len(FILTERS)} filters -> {sheet}",
        highlight=False,
    )

    team = threads or _core.default_threads()
    rows, tally = _vgg19(pictures.square(photo, 224), layout, team, duration(budget) if budget else None, output)
    if not rows:
        console.print("Interrupted: run the demo again and it goes on where it stopped.")
        raise typer.Exit(130)
    peak = 2 * _core.fma_peak("float32", team)
    console.print(_table(rows, peak, team))
    chart = output / "vgg19.png"
    pictures.layer_chart(rows, peak, team, str(_core.cpu()["brand"]), chart)
    console.print(f"Chart -> {chart}", highlight=False)
    if tally.measured or tally.failed:
        console.print(f"Tuning: {tally.text()}. Run it again: nothing will be timed.", highlight=False)
    else:
        console.print("Every layer came from the database; nothing was timed.", highlight=False)
        if stale := sum(row.stale for row in rows):
            console.print(
                f"{stale} of them were measured on a busy machine or before an upgrade; "
                "convkit tune --network vgg19 measures them again.",
                highlight=False,
            )


def _vgg19(
    picture: Array, layout: Literal["NCHW", "NHWC"], team: int, budget: float | None, output: Path
) -> tuple[list[LayerRow], Any]:
    """Tune, run and check the sixteen layers; no rows if the tuning was interrupted."""
    import convkit
    from convkit import tuner

    layers = networks.get("vgg19").layers
    problems = {
        layer.name: layer.problem(1, layout=layout, epilogue="clamp", bias=True, packed=True) for layer in layers
    }
    first = {problem: name for name, problem in reversed(problems.items())}
    tally = tune_all(
        [Job(f"VGG-19 {first[p]}", p, team) for p in dict.fromkeys(problems.values())], budget, any_answer=True
    )
    if tally.pending or tally.failed:
        return [], tally
    convkit.reload()
    convkit.clear_workspaces()

    rng = np.random.default_rng(19)
    baseline = Baseline(output / "numpy-im2col.json")
    rows = []
    x = picture if layout == "NHWC" else np.ascontiguousarray(picture.transpose(0, 3, 1, 2))
    for layer in track(layers, "Photograph through VGG-19", console=console, transient=True):
        if x.shape[1 if layout == "NHWC" else 2] != layer.h:
            x = max_pool(x, layout)
        w = (rng.standard_normal((layer.o, layer.c, 3, 3)) * np.sqrt(2 / (layer.c * 9))).astype(np.float32)
        bias = (rng.standard_normal(layer.o) * 0.01).astype(np.float32)
        choice = tuner.choose(problems[layer.name], team)
        conv = convkit.Conv2d(w, bias, padding=1, layout=layout, activation="relu", num_threads=team)
        y = conv(x)
        exact = reference.conv2d(x, w, bias, padding=1, layout=layout, activation="relu")
        error = float(np.abs(y - exact).max() / np.abs(exact).max())
        operands = x if layout == "NCHW" else x.transpose(0, 3, 1, 2)
        seconds = baseline.seconds(problems[layer.name], lambda: im2col_conv(operands, w, bias))  # noqa: B023
        row = LayerRow(layer.name, problems[layer.name], choice.kernel, choice.seconds, seconds, error, choice.stale)
        rows.append(row)
        x = y
    baseline.save()
    return rows, tally


def max_pool(x: Array, layout: str) -> Array:
    """Largest of each 2x2 square."""
    if layout == "NHWC":
        n, h, w, c = x.shape
        return np.ascontiguousarray(x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4)))
    n, c, h, w = x.shape
    return np.ascontiguousarray(x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5)))


def im2col_conv(x: Array, w: Array, bias: Array) -> Array:
    """A 3x3 convolution with ReLU as one writes it in NumPy: gather the windows, one matrix product."""
    n, c, h, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, c * 9, h * width)
    y = w.reshape(len(w), -1) @ columns
    y += bias[:, None]
    return np.asarray(np.maximum(y, 0, out=y).reshape(n, len(w), h, width))


class Baseline:
    """NumPy's times, measured once for a machine and kept beside the pictures."""

    def __init__(self, path: Path) -> None:
        from convkit.tuner.machine import machine_class

        self._path, self._machine = path, str(machine_class())
        self._seconds: dict[str, float] = {}
        try:
            kept = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        if kept.get("machine") == self._machine and kept.get("numpy") == np.__version__:
            self._seconds = kept["seconds"]

    def seconds(self, problem: Problem, call: Callable[[], object]) -> float:
        """The best of three calls, or what was measured before."""
        key = str(problem)
        if key not in self._seconds:
            times = []
            for _ in range(3):
                begin = time.perf_counter()
                call()
                times.append(time.perf_counter() - begin)
            self._seconds[key] = min(times)
        return self._seconds[key]

    def save(self) -> None:
        """Keep the times for the next run."""
        kept = {"machine": self._machine, "numpy": np.__version__, "seconds": self._seconds}
        self._path.write_text(json.dumps(kept, indent=1))


def _table(rows: list[LayerRow], peak: float, team: int) -> Table:
    total, numpy_total = sum(row.seconds for row in rows), sum(row.numpy_seconds for row in rows)
    flops = sum(row.problem.flops for row in rows)
    table = Table(
        title=f"VGG-19, one 224x224 photograph, float32, {rows[0].problem.layout}, {threads_text(team)}",
        caption=f"% of the measured FMA peak, {peak / 1e9:.0f} GFLOP/s; operations are those of direct summation. "
        "NumPy: im2col and its own matrix product and threads. Error: largest, relative to the largest output.",
        show_footer=True,
    )
    table.add_column("layer", "total")
    table.add_column("kernel", overflow="fold")
    table.add_column("ms", f"{1e3 * total:.2f}", justify="right")
    table.add_column("GFLOP/s", f"{flops / total / 1e9:.0f}", justify="right")
    table.add_column("% of peak", f"{100 * flops / total / peak:.0f}", justify="right")
    table.add_column("vs NumPy", f"{numpy_total / total:.1f}x", justify="right")
    table.add_column("max error", f"{max(row.error for row in rows):.1e}", justify="right")
    for row in rows:
        table.add_row(
            row.name,
            row.kernel,
            f"{1e3 * row.seconds:.2f}",
            f"{row.flops_rate / 1e9:.0f}",
            f"{100 * row.flops_rate / peak:.0f}",
            f"{row.speedup:.1f}x",
            f"{row.error:.1e}",
        )
    return table

"""What all commands have in common: their options, the table of epochs, the progress bar."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import convkit as ck
from examples.training import workers
from examples.training.group import Group, join
from examples.training.layers import Context
from examples.training.network import Network
from examples.training.timing import Experiment, Stopwatch, write_experiment, write_layers
from examples.training.trainer import Trainer

__all__ = ["Options", "console", "options"]

console = Console(highlight=False)

Quick = Annotated[bool, typer.Option("--quick", help="Under a minute on two cores.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for CSV, pictures and checkpoints.", file_okay=False)]
LayoutOption = Annotated[Literal["NCHW", "NHWC"], typer.Option("--layout", help="Order of the tensors.")]
Profile = Annotated[bool, typer.Option("--profile", help="Write each layer's times and each convkit call to CSV.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="Team size; 0: what a call of convkit would use.")]
Epochs = Annotated[int, typer.Option("--epochs", min=0, help="0: the command's own number.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Decides weights, order, dropout and drawn images.")]
Mode = Annotated[
    Literal["replay", "online", "tune", "require", "off"],
    typer.Option("--mode", help="How convkit chooses kernels: see its documentation."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder with the published files.", file_okay=False)]


@dataclass(frozen=True)
class Options:
    """The common options of one run."""

    quick: bool
    out: Path
    layout: str
    threads: int
    seed: int
    profile: bool
    group: Group

    def context(self, seed: int | None = None, dtype: str = "float32") -> Context:
        """What a network's layers share."""
        return Context(self.layout, dtype, self.seed if seed is None else seed, self.threads)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.group.rank == 0

    def say(self, text: Any) -> None:
        """Print, in the first process."""
        if self.first:
            console.print(text)

    @contextlib.contextmanager
    def progress(self, trainer: Trainer, title: str, steps: int) -> Iterator[None]:
        """A bar with loss and images a second while the trainer runs."""
        if not self.first or not console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:.0f} images/s"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=steps, completed=trainer.steps, loss=float("nan"), speed=0.0)
            last = time.perf_counter()

            def report(loss: float, images: int) -> None:
                nonlocal last
                now = time.perf_counter()
                bar.update(task, advance=1, loss=loss, speed=images / (now - last))
                last = now

            trainer.report = report
            yield

    @contextlib.contextmanager
    def calls(self) -> Iterator[None]:
        """With --profile, write every call of convkit."""
        if not self.profile:
            yield
            return
        with ck.profile() as calls:
            yield
        if self.first:
            calls.to_csv(self.out / "calls.csv")
            calls.to_chrome_trace(self.out / "trace.json")
            self.say(f"calls -> {self.out / 'calls.csv'}, {self.out / 'trace.json'}")

    @contextlib.contextmanager
    def profiling(self) -> Iterator[list[Experiment]]:
        """With --profile, write the times of the experiments that join the list, and every call of convkit."""
        ran: list[Experiment] = []
        with self.calls():
            yield ran
        ran = [experiment for experiment in ran if experiment[-1]]
        if self.first and ran:
            write_experiment(self.out / "experiment.csv", ran)
            write_layers(self.out / "layers.csv", ran)
            self.say(f"layers -> {self.out / 'experiment.csv'}, {self.out / 'layers.csv'}")

    def stopwatch(self, ran: list[Experiment], name: str, batch: int, network: Network) -> Stopwatch | None:
        """With --profile, a stopwatch whose iterations are an experiment."""
        if not self.profile:
            return None
        watch = Stopwatch()
        ran.append((name, batch, network, watch.iterations))
        return watch

    @contextlib.contextmanager
    def profiled(self, trainer: Trainer, name: str, batch: int) -> Iterator[None]:
        """With --profile, time every layer of a training and every call of convkit, and write both."""
        with self.profiling() as ran:
            trainer.stopwatch = self.stopwatch(ran, name, batch, trainer.network)
            yield
        trainer.stopwatch = None


@contextlib.contextmanager
def options(
    quick: bool, out: Path, layout: str, threads: int, seed: int, profile: bool = False, mode: str = "replay"
) -> Iterator[Options]:
    """Set up what the common options say, for the time of a command."""
    from threadpoolctl import threadpool_limits

    from convkit import _core

    group = join()
    team = threads or _core.default_threads()
    if group.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
    workers.set_threads(team)
    with threadpool_limits(1, user_api="blas"), ck.tuning(mode=mode):
        yield Options(quick, out, layout, team, seed, profile, group)
    workers.set_threads(1)


def normalised(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images about zero, with the deviation that a first layer expects."""
    return np.asarray((images - images.mean()) / (images.std() + 1e-6), np.float32)


def learned(network: Network) -> str:
    """A network's size in words."""
    return f"{network.values.size:,} parameters"

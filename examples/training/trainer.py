"""The loop: batches, steps, epochs, checkpoints."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from examples.training import checkpoints
from examples.training.data import Dataset, batches
from examples.training.group import Group
from examples.training.losses import Loss, softmax_cross_entropy
from examples.training.network import Network
from examples.training.optimizers import Optimizer
from examples.training.schedules import Schedule
from examples.training.timing import Stopwatch
from examples.training.workers import Array

__all__ = ["Epoch", "Interrupted", "Trainer", "asked_by_interrupt"]


@dataclass
class Epoch:
    """What an epoch came to; `error` is what `Trainer.error` says of the test images."""

    epoch: int
    rate: float
    loss: float
    accuracy: float
    error: float
    seconds: float


class Interrupted(Exception):  # noqa: N818
    """Ctrl-C came; the checkpoint has been written."""


@dataclass
class Trainer:
    """A network and how it learns.

    Attributes
    ----------
    report : callable
        Called after each step with the loss and the number of images.
    """

    network: Network
    optimizer: Optimizer
    schedule: Schedule
    loss: Loss = softmax_cross_entropy
    group: Group = field(default_factory=Group)
    stopwatch: Stopwatch | None = None
    report: Callable[[float, int], None] = lambda loss, images: None
    steps: int = 0
    stopping: bool = False
    _asked: threading.Event = field(default_factory=threading.Event)

    def step(self, images: Array, targets: Array) -> tuple[float, int]:
        """One step on a batch, of which this process takes its share: the loss and how many got the right class.

        `images` are NCHW; `targets` classes, or images for a loss of images.
        """
        if self.stopwatch is not None:
            self.stopwatch.begin()
        context, count = self.network.context, len(images)
        share = self.group.share(count)
        context.step, context.first, context.total = self.steps, share.start, count
        x = self._timed("batch", "data", self.network.images, images[share])
        target = targets[share]
        if target.ndim == 4:
            target = self._timed("batch", "data", self.network.images, target)
        y = self.network.forward(x, training=True)
        loss, dy = self._timed("loss", "loss", self.loss, y, target, count)
        right = int((y.argmax(axis=1) == target).sum()) if target.ndim == 1 else 0
        self.network.backward(dy)
        if self.group.size > 1:
            loss, right = self._timed("processes", "update", self._add_up, loss, right)
        else:
            self.stopping = self._asked.is_set()
        self.optimizer.steps += 1
        rate = self.schedule(self.steps)
        for name, span in self.network.spans.items():
            self._timed(name, "update", self.optimizer.update, span, rate)
        self.steps += 1
        if self.stopwatch is not None:
            self.stopwatch.end()
        return loss, right

    def _add_up(self, loss: float, right: int) -> tuple[float, int]:
        """Sums over all processes; one that was told to stop tells the others, so that all stop after one step."""
        self.group.sum(self.network.gradients)
        told = np.array([loss, right, self._asked.is_set()])
        self.group.sum(told)
        self.stopping = bool(told[2])
        return float(told[0]), int(told[1])

    def _timed(self, name: str, phase: str, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments) if self.stopwatch is None else self.stopwatch.run(name, phase, work, *arguments)

    def error(self, images: Array, labels: Array, size: int = 256) -> float:
        """The share of images that the network gives another class than the right one.

        If `labels` are images, the mean squared difference to them.
        """
        wrong = np.zeros(1)
        for first in range(0, len(images), size):
            batch, right = images[first : first + size], labels[first : first + size]
            share = self.group.share(len(batch))
            if share.start < share.stop:
                y = self.network.forward(self.network.images(batch[share]))
                if labels.ndim == 1:
                    wrong += (y.argmax(axis=1) != right[share]).sum()
                else:
                    wrong += ((y - self.network.images(right[share])) ** 2).mean(axis=(1, 2, 3)).sum(dtype=np.float64)
        self.group.sum(wrong)
        return float(wrong[0] / max(len(images), 1))

    def fit(
        self, data: Dataset, epochs: int, size: int, *, path: Path | None = None, resume: bool = False
    ) -> list[Epoch]:
        """Train for some epochs on batches of `size` images.

        With a `path` a checkpoint is written after each epoch and at Ctrl-C, which raises `Interrupted`. `resume` goes
        on from there as if nothing had been in between.
        """
        history: list[Epoch] = []
        sums, spent = np.zeros(2), 0.0  # loss times images, and images with the right class, of the epoch so far
        if resume and path is not None:
            progress = self.group.same(checkpoints.load(path, self.network, self.optimizer))
            self.steps, spent = progress["steps"], progress["spent"]
            sums, history = np.array(progress["sums"]), [Epoch(**row) for row in progress["history"]]
        per_epoch = -(-len(data.train) // size)

        def save() -> None:
            if path is not None and self.group.rank == 0:
                rows = [asdict(row) for row in history]
                checkpoints.save(
                    path, self.network, self.optimizer,
                    steps=self.steps, sums=sums.tolist(), spent=spent, history=rows, seed=self.network.context.seed,
                )  # fmt: skip

        count = len(data.train)
        with asked_by_interrupt(self._asked):
            while self.steps < epochs * per_epoch:
                epoch, done = divmod(self.steps, per_epoch)
                begin = time.perf_counter() - spent
                for i, chosen in enumerate(batches(count, size, self.network.context.seed, epoch)):
                    if i < done:
                        continue
                    loss, right = self.step(data.train[chosen], data.train_labels[chosen])
                    if not np.isfinite(loss):
                        raise FloatingPointError(f"the loss is {loss} at step {self.steps}: lower the learning rate")
                    sums += loss * len(chosen), right
                    spent = time.perf_counter() - begin
                    self.report(loss, len(chosen))
                    if self.stopping and i + 1 < per_epoch:
                        save()
                        raise Interrupted
                error = self.error(data.test, data.test_labels)
                rate = self.schedule(self.steps - 1)
                loss, accuracy = (sums / count).tolist()
                history.append(Epoch(epoch + 1, rate, loss, accuracy, error, spent))
                sums, spent = np.zeros(2), 0.0
                save()
                if self.stopping and self.steps < epochs * per_epoch:
                    raise Interrupted
        return history


@contextmanager
def asked_by_interrupt(asked: threading.Event) -> Iterator[threading.Event]:
    """Ctrl-C sets an event instead of raising in the middle of a step; a second one raises."""
    asked.clear()

    def note(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)

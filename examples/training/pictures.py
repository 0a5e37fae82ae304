"""Plots and pictures: error by epoch, curves, stacked bars, sheets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from examples.training.trainer import Epoch
from examples.training.workers import Array

__all__ = ["curves", "error_by_epoch", "save_picture", "sheet", "stacked_bars"]


def error_by_epoch(path: Path, errors: Mapping[str, Array]) -> None:
    """The mean error over the seeds with its standard deviation; `errors` holds (seeds, epochs) for each set."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in errors.items():
        epochs = np.arange(1, values.shape[1] + 1)
        mean, deviation = 100 * values.mean(axis=0), 100 * values.std(axis=0)
        (line,) = axes.plot(epochs, mean, marker="o", markersize=3, label=name)
        axes.fill_between(epochs, np.maximum(mean - deviation, 0), mean + deviation, color=line.get_color(), alpha=0.2)
    axes.set(xlabel="epoch", ylabel="test error, %", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def curves(path: Path, runs: Mapping[str, Sequence[Epoch]]) -> None:
    """Loss, accuracy, learning rate and seconds of every epoch."""
    figure, grid = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for name, history in runs.items():
        epochs = [row.epoch for row in history]
        (loss, accuracy), (rate, seconds) = grid
        loss.plot(epochs, [row.loss for row in history], marker="o", markersize=3, label=name)
        (line,) = accuracy.plot(epochs, [row.accuracy for row in history], label=f"{name}, training")
        accuracy.plot(epochs, [1 - row.error for row in history], "--", color=line.get_color(), label=f"{name}, test")
        rate.plot(epochs, [row.rate for row in history], label=name)
        seconds.plot(epochs, [row.seconds for row in history], marker="o", markersize=3, label=name)
    for axes, label in zip(grid.flat, ("loss", "accuracy", "learning rate", "seconds"), strict=True):
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def stacked_bars(path: Path, title: str, layers: Sequence[str], parts: Mapping[str, Sequence[float]]) -> None:
    """One bar for each layer, in milliseconds, its phases on top of each other."""
    figure, axes = plt.subplots(figsize=(max(6.0, 0.32 * len(layers)), 4.5), layout="constrained")
    bottom = np.zeros(len(layers))
    for phase, seconds in parts.items():
        heights = 1e3 * np.asarray(seconds)
        axes.bar(range(len(layers)), heights, bottom=bottom, label=phase)
        bottom += heights
    axes.set_xticks(range(len(layers)), layers, rotation=60, ha="right", fontsize="small")
    axes.set(ylabel="ms an iteration", title=title)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def sheet(path: Path, rows: Mapping[str, Array]) -> None:
    """Rows of small images, (count, C, H, W), zero to one."""
    count = min(len(images) for images in rows.values())
    figure, grid = plt.subplots(len(rows), count, figsize=(count, 1.1 * len(rows)), squeeze=False, layout="constrained")
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, images, strict=False):
            axes.imshow(np.clip(image.transpose(1, 2, 0), 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def save_picture(path: Path, image: Array) -> None:
    """One picture, (3, H, W), zero to one."""
    plt.imsave(path, np.clip(image.transpose(1, 2, 0), 0, 1))

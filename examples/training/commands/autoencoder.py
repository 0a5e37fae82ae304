"""Row 7: a convolutional autoencoder with 2,561 parameters learns to take the noise off digits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from examples.training import losses, models, options, schedules
from examples.training.data import Dataset, digits
from examples.training.network import Network
from examples.training.optimizers import Adam
from examples.training.trainer import Trainer
from examples.training.workers import Array

__all__ = ["PARAMETERS", "autoencoder"]

PARAMETERS = 2561  # as the survey counts them
BATCH, NOISE = 64, 0.35


def autoencoder(
    quick: options.Quick = False,
    out: options.Out = Path("autoencoder"),
    layout: options.LayoutOption = "NHWC",
    profile: options.Profile = False,
    threads: options.Threads = 0,
    epochs: options.Epochs = 0,
    seed: options.Seed = 0,
    mode: options.Mode = "replay",
    resume: options.Resume = False,
) -> None:
    """Convolutions with pools, transposed convolutions, and one back to an image; inputs and outputs as a picture."""
    with options.options(quick, out, layout, threads, seed, profile, mode) as run:
        network = Network(models.AUTOENCODER, (1, 28, 28), run.context())
        if network.values.size != PARAMETERS:
            raise AssertionError(f"the autoencoder must have {PARAMETERS} parameters, it has {network.values.size}")
        clean, count = digits.load(), epochs or (5 if quick else 30)
        train, test = (noisy(images, seed, part) for part, images in enumerate((clean.train, clean.test)))
        steps = count * -(-len(train) // BATCH)
        trainer = Trainer(
            network, Adam(network), schedules.cosine(0.01, steps, 1e-4), losses.mean_squared_error, run.group
        )
        before = trainer.error(test, clean.test)
        path = out / "autoencoder.npz"
        with run.progress(trainer, "autoencoder", steps), run.profiled(trainer, "autoencoder", BATCH):
            data = Dataset("noisy digits", train, clean.train, test, clean.test)
            history = trainer.fit(data, count, BATCH, path=path, resume=resume and path.exists())
        if not run.first:
            return
        from examples.training import pictures

        with (out / "epochs.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(
                [("epoch", "loss", "test_error"), *((e.epoch, e.loss, e.error) for e in history)]
            )
        shown = slice(0, 10)
        y = network.forward(network.images(test[shown]))
        cleaned = y if layout == "NCHW" else y.transpose(0, 3, 1, 2)
        pictures.sheet(out / "digits.png", {"noisy": test[shown], "cleaned": cleaned, "original": clean.test[shown]})
        given = float(np.mean((test - clean.test) ** 2))
        run.say(f"{options.learned(network)}; mean squared error on test digits: {before:.4f} before training,")
        run.say(f"{history[-1].error:.4f} after {count} epochs; of the noisy digits themselves {given:.4f}")
        run.say(f"-> {out / 'digits.png'}, {out / 'epochs.csv'}, {path}")


def noisy(images: Array, seed: int, part: int) -> Array:
    """Images with normal noise; each part of a data set has its own."""
    rng = np.random.default_rng([seed, 2, part])
    return np.asarray(images + np.float32(NOISE) * rng.standard_normal(images.shape, np.float32))

"""Row 7: a convolutional autoencoder with 2,561 parameters learns to take the noise off digits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from examples.training import losses, models, options, schedules
from examples.training.data import batches, digits
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
) -> None:
    """Convolutions with pools, transposed convolutions, and one back to an image; inputs and outputs as a picture."""
    with options.options(quick, out, layout, threads, seed, profile, mode) as run:
        network = Network(models.AUTOENCODER, (1, 28, 28), run.context())
        if network.values.size != PARAMETERS:
            raise AssertionError(f"the autoencoder must have {PARAMETERS} parameters, it has {network.values.size}")
        data, count = digits.load(), epochs or (5 if quick else 30)
        steps = count * -(-len(data.train) // BATCH)
        trainer = Trainer(
            network, Adam(network), schedules.cosine(0.01, steps, 1e-4), losses.mean_squared_error, run.group
        )
        test = noisy(data.test, seed, 0)
        before = _error(network, test, data.test)
        rows = []
        with run.progress(trainer, "autoencoder", steps), run.profiled(trainer, "autoencoder", BATCH):
            for epoch in range(count):
                clean = data.train
                noise = noisy(clean, seed, epoch + 1)
                total = 0.0
                for chosen in batches(len(clean), BATCH, seed, epoch):
                    loss, _ = trainer.step(noise[chosen], clean[chosen])
                    total += loss * len(chosen)
                    trainer.report(loss, len(chosen))
                rows.append((epoch + 1, total / len(clean), _error(network, test, data.test)))
        if not run.first:
            return
        from examples.training import pictures

        with (out / "epochs.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("epoch", "loss", "test_error"), *rows])
        shown = slice(0, 10)
        cleaned = _images(network, test[shown])
        pictures.sheet(out / "digits.png", {"noisy": test[shown], "cleaned": cleaned, "original": data.test[shown]})
        given = float(np.mean((test - data.test) ** 2))
        run.say(f"{options.learned(network)}; mean squared error on test digits: {before:.4f} before training,")
        run.say(f"{rows[-1][2]:.4f} after {count} epochs; of the noisy digits themselves {given:.4f}")
        run.say(f"-> {out / 'digits.png'}, {out / 'epochs.csv'}")


def noisy(images: Array, seed: int, epoch: int) -> Array:
    """Digits with normal noise, which differs from epoch to epoch."""
    rng = np.random.default_rng([seed, 2, epoch])
    return np.asarray(images + np.float32(NOISE) * rng.standard_normal(images.shape, np.float32))


def _images(network: Network, images: Array) -> Array:
    y = network.forward(network.images(images))
    return y if network.context.layout == "NCHW" else y.transpose(0, 3, 1, 2)


def _error(network: Network, images: Array, wanted: Array) -> float:
    return float(np.mean((_images(network, images) - wanted) ** 2))

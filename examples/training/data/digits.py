"""scikit-learn's 1,797 handwritten digits (its wheel holds them), enlarged from 8x8 to MNIST's 28x28 pixels."""

from __future__ import annotations

import numpy as np

from examples.training.data import DataError, Dataset
from examples.training.workers import Array

__all__ = ["enlarged", "load"]

TEST = 360


def load() -> Dataset:
    """The digits, 1,437 for training and 360 for tests, in an order of their own."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise DataError("the digits come with scikit-learn: pip install '.[examples]'") from None
    found = load_digits()
    images = enlarged(found.images / 16.0).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], np.asarray(found.target)[order]
    return Dataset("digits", images[TEST:], labels[TEST:], images[:TEST], labels[:TEST])


def enlarged(images: Array, margin: int = 2, size: int = 28) -> Array:
    """Images between margins of zeros, pixels interpolated linearly along both sides."""
    old = images.shape[1]
    places = (np.arange(size - 2 * margin) + 0.5) * old / (size - 2 * margin) - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(np.clip(places, 0, old - 1)[:, None] - np.arange(old)))
    return np.pad(weights @ images @ weights.T, ((0, 0), (margin, margin), (margin, margin)))

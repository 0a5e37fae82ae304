"""Images and what they show: the published data sets from files, and sets that need no download."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from examples.training.workers import Array

__all__ = ["DataError", "Dataset", "batches"]


class DataError(Exception):
    """A file of a data set is missing or is not what it should be; the text names it and what to do."""


@dataclass(frozen=True)
class Dataset:
    """Images for training and for tests.

    Attributes
    ----------
    train, test : ndarray
        (images, C, H, W), float32, zero to one.
    train_labels, test_labels : ndarray of int
    """

    name: str
    train: Array
    train_labels: Array
    test: Array
    test_labels: Array

    def cut(self, train: int, test: int) -> Dataset:
        """The first images of each part only."""
        return Dataset(
            self.name, self.train[:train], self.train_labels[:train], self.test[:test], self.test_labels[:test]
        )


def batches(count: int, size: int, seed: int, epoch: int) -> Iterator[Array]:
    """Numbers of the images of each batch, in an order that seed and epoch decide; the last batch may be smaller."""
    order = np.random.default_rng([seed, 1, epoch]).permutation(count)
    for first in range(0, count, size):
        yield order[first : first + size]

"""Drawn images: ten kinds of shapes of any colour, place and size on a noisy ground. The seed decides everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from examples.training.data import Dataset
from examples.training.workers import Array

__all__ = ["KINDS", "draw", "load"]

# Whether a point at (x, y), in units of the shape's radius, belongs to the shape.
KINDS: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda x, y: x * x + y * y < 1,
    "stripes": lambda x, y: (np.maximum(abs(x), abs(y)) < 1) & (np.sin(9 * y) > 0),
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.85,
    "triangle": lambda x, y: (y < 0.75) & (y > 2 * abs(x) - 0.95),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.75) < 0.22,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.25) & (np.maximum(abs(x), abs(y)) < 1),
    "diamond": lambda x, y: abs(x) + abs(y) < 1,
    "bars": lambda x, y: (np.maximum(abs(x), abs(y)) < 1) & (np.sin(9 * x) > 0),
    "checks": lambda x, y: (np.maximum(abs(x), abs(y)) < 1) & (np.sin(6 * x) * np.sin(6 * y) > 0),
    "crescent": lambda x, y: (x * x + y * y < 1) & ((x - 0.5) ** 2 + y * y > 0.7),
}


def draw(kind: str, size: int, rng: np.random.Generator) -> Array:
    """One image, (3, size, size), float32."""
    radius = size * rng.uniform(0.22, 0.38)
    cx, cy = rng.uniform(radius, size - radius, 2)
    axis = np.arange(size)
    inside = KINDS[kind]((axis[None] - cx) / radius, (axis[:, None] - cy) / radius)
    ground, colour = rng.uniform(0.0, 0.45, 3), rng.uniform(0.55, 1.0, 3)
    image = np.where(inside, colour[:, None, None], ground[:, None, None])
    noise = 0.08 * rng.standard_normal((3, size, size), np.float32)
    return np.asarray(np.clip(image + noise, 0, 1), np.float32)


def load(
    name: str, size: int, classes: int, train: int, test: int, seed: int = 0, kinds: Sequence[str] = tuple(KINDS)
) -> Dataset:
    """A data set of drawn images, the first so many kinds in turns."""
    rng = np.random.default_rng([seed, size, classes])
    labels = np.arange(train + test) % classes
    images = np.stack([draw(kinds[label], size, rng) for label in labels])
    return Dataset(name, images[:train], labels[:train], images[train:], labels[train:])

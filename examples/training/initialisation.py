"""First values of weights: He for what a ReLU follows, Glorot for the rest. Seeded, the same in both layouts."""

from __future__ import annotations

import math

import numpy as np

from examples.training.workers import Array

__all__ = ["glorot", "he", "ones", "zeros"]


def he(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal with variance 2 / fan_in (He et al., arXiv 1502.01852)."""
    fan_in = math.prod(shape[1:])
    return rng.standard_normal(shape) * math.sqrt(2.0 / fan_in)


def glorot(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot and Bengio, AISTATS 2010)."""
    taps = math.prod(shape[2:])
    limit = math.sqrt(6.0 / ((shape[0] + shape[1]) * taps))
    return rng.uniform(-limit, limit, shape)


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Nothing: biases, and the shifts of normalisations."""
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One: the scales of normalisations."""
    return np.ones(shape)

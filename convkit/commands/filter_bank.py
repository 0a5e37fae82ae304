"""Classical image filters as one convolution: the colours are the batch, the filters the output channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FILTERS", "apply"]

Array = NDArray[Any]
_SIZE = 11


def _gaussian(sigma: float) -> Array:
    distance = np.arange(_SIZE) - _SIZE // 2
    line = np.exp(-0.5 * (distance / sigma) ** 2)
    return np.asarray(np.outer(line, line) / line.sum() ** 2)


def _centred(rows: list[list[float]]) -> Array:
    small = np.asarray(rows)
    filled = np.zeros((_SIZE, _SIZE))
    begin = (_SIZE - len(small)) // 2
    filled[begin : begin + len(small), begin : begin + len(small)] = small
    return filled


# Written as correlations, as conv2d computes them.
FILTERS: dict[str, Array] = {
    "Gaussian, σ = 2.5": _gaussian(2.5),
    "Sobel x": _centred([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
    "Sobel y": _centred([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]),
    "Laplacian": _centred([[1, 1, 1], [1, -8, 1], [1, 1, 1]]),
    "Sharpen": _centred([[-1, -1, -1], [-1, 9, -1], [-1, -1, -1]]),
    "Emboss": _centred([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]]),
}


def apply(photo: Array) -> Array:
    """Every filter on every colour of a photograph, in one `convkit.conv2d`.

    Parameters
    ----------
    photo : ndarray of float32
        Shape (H, W, 3), values 0 to 1.

    Returns
    -------
    ndarray of float32
        Shape (filter, H, W, 3). Edges repeat the outermost pixels.
    """
    import convkit

    margin = _SIZE // 2
    planes = np.pad(photo.transpose(2, 0, 1), ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    weights = np.stack(list(FILTERS.values())).astype(np.float32)[:, None]
    filtered = convkit.conv2d(np.ascontiguousarray(planes)[:, None], weights)
    return np.asarray(filtered.transpose(1, 2, 3, 0))

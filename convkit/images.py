"""What stands between convolutions, compiled: pools, resizing, normalization, softmax, gates, concatenation.

For doors, which know their ecosystem's attributes and hand over plain numbers, and for trainers: the ways back through
maxima and normalizations are here, too. Operands are all float32 or all float64, and C-contiguous; images lie as
(N, H, W, C). Results are new arrays, in memory that earlier results gave back. NaN is kept, as in NumPy. Every function
takes ``num_threads``, the most threads of its team.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core
from convkit._core import (
    empty,
    gradient_sums,
    join,
    layer_norm,
    moments,
    pool,
    pool_gradient,
    resample,
    scale_gradient,
    scale_shift,
    softmax,
)

__all__ = [
    "beside", "concatenate", "empty", "gradient_sums", "group_norm", "join", "layer_norm", "mean_pool", "moments",
    "pool", "pool_gradient", "resample", "scale_gradient", "scale_shift", "softmax",
    "window_shares",
]  # fmt: skip

_MOST_PARTS = 32  # of one `join`


def window_shares(
    spatial: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    before: Sequence[int], size: Sequence[int], counted: Sequence[tuple[int, int]],
) -> list[Any]:  # fmt: skip
    """For each spatial dimension one over the number of pixels in each window, as `pool` takes them for means.

    Parameters
    ----------
    spatial : sequence of int
        Pixels of the image.
    kernel, stride, dilation, before, size : sequence of int
        As `pool` takes them, for any number of dimensions.
    counted : sequence of (int, int)
        How many zeros before and after the image count as pixels.

    Returns
    -------
    list of ndarray
        Of float64; a window without pixels counts as one.
    """
    found = []
    for i, (low, high) in enumerate(counted):
        at = np.arange(size[i])[:, None] * stride[i] - before[i] + np.arange(kernel[i]) * dilation[i]
        found.append(1 / np.maximum(((at >= -low) & (at < spatial[i] + high)).sum(1), 1))
    return found


def mean_pool(x: Any, num_threads: int | None = None) -> Any:
    """Means of all pixels of an image.

    Parameters
    ----------
    x : ndarray
        Images (N, H, W, C).
    num_threads : int, optional
        Team size.

    Returns
    -------
    ndarray
        Of shape (N, C).
    """
    return moments(x.reshape(x.shape[0], -1, x.shape[3]), False, num_threads)


def concatenate(parts: Sequence[Any], num_threads: int | None = None) -> Any:
    """Images side by side along their channels.

    Parameters
    ----------
    parts : sequence of ndarray
        Images (N, H, W, C) in any memory order; all but C are alike.
    num_threads : int, optional
        Team size.

    Returns
    -------
    ndarray
        Of shape (N, H, W, sum of C).
    """
    if len(parts) > _MOST_PARTS:
        parts = [concatenate(parts[:_MOST_PARTS], num_threads), *parts[_MOST_PARTS:]]
        return concatenate(parts, num_threads)
    return join(beside(parts, num_threads), num_threads)


def beside(parts: Sequence[Any], num_threads: int | None = None) -> list[Any]:
    """Images whose pixels are runs of channels at even places, as `join` and `convkit.Conv2d.joined` take them.

    Parameters
    ----------
    parts : sequence of ndarray
        Images (N, H, W, C) in any memory order.
    num_threads : int, optional
        Team size.

    Returns
    -------
    list of ndarray
        The same, or copies of those that lie otherwise.
    """
    return [part if _beside(part) else _core.transpose(part, (0, 1, 2, 3), None, num_threads) for part in parts]


def _beside(x: Any) -> bool:
    n, h, w, c = x.strides
    return bool(
        c == x.itemsize and w >= x.shape[3] * c and h == w * x.shape[2] and (x.shape[0] == 1 or n == h * x.shape[1])
    )


def group_norm(
    x: Any, groups: int, weight: Any, bias: Any, epsilon: float, *, last: bool, activation: Any = None,
    num_threads: int | None = None,
) -> Any:  # fmt: skip
    """Images whose groups of channels have mean 0 and variance 1, then a factor and a summand for each channel.

    Parameters
    ----------
    x : ndarray
        Of shape (N, pixels, C), or (N, C, pixels).
    groups : int
        C of them is instance normalization.
    weight, bias : ndarray
        Of shape (C,).
    epsilon : float
        Is added to the variance.
    last : bool
        Whether the channels are the last dimension.
    activation : str or tuple, optional
        As `convkit.conv2d` takes it.
    num_threads : int, optional
        Team size.

    Returns
    -------
    ndarray
        Like x.
    """
    n, c = x.shape[0], x.shape[2 if last else 1]
    flat = x if last else x.reshape(n * c, -1, 1)
    mean, variance = (a.reshape(n, groups, -1) for a in moments(flat, True, num_threads))
    centre = mean.mean(axis=2, keepdims=True)
    variance = (variance + np.square(mean - centre)).mean(axis=2, keepdims=True)
    factor = (1 / np.sqrt(variance + variance.dtype.type(epsilon)) * weight.reshape(groups, -1)).reshape(n, c)
    shift = bias - (centre * factor.reshape(n, groups, -1)).reshape(n, c)
    shape = (n, c) if last else (n * c, 1)
    return scale_shift(
        flat, factor.reshape(shape), shift.reshape(shape), activation=activation, num_threads=num_threads
    ).reshape(x.shape)

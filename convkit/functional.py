"""The calls users make: `conv2d`, `conv_transpose2d`, transposes, and what belongs to the process that it runs in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convkit import _core
from convkit._core import conv2d, conv_transpose2d
from convkit.tuner.locks import planning

__all__ = ["clear_workspaces", "conv2d", "conv_transpose2d", "nchw_to_nhwc", "nhwc_to_nchw", "transpose"]


def clear_workspaces() -> None:
    """Return the memory that convkit keeps for later calls to the operating system.

    Workspaces of kernels and the memory of large results (more than 128 KiB) are kept and used again, because touching
    a fresh page costs more than most of what is done with it. Arrays that are in use are not affected.
    """
    _core.clear_workspaces()


def transpose(x: Any, axes: Sequence[int], out: Any = None, *, num_threads: int | None = None) -> Any:
    """Write out `x` with its dimensions in another order.

    What ``np.ascontiguousarray(x.transpose(axes))`` gives, at the speed of a plain copy: blocks are transposed in
    registers by all threads, and large results are written past the caches.

    Parameters
    ----------
    x : array_like of float32 or float64
        At most four dimensions, any strides.
    axes : sequence of int
        Dimension i of the result is dimension ``axes[i]`` of `x`. Negative numbers count from the last one.
    out : ndarray, optional
        Where to write; of the result's shape and dtype, any strides. It may not share memory with `x`.
    num_threads : int, optional
        Team size; by default as for `conv2d`.

    Returns
    -------
    ndarray
        `out`, or a new C-contiguous array.

    Raises
    ------
    TypeError
        If `x` is neither float32 nor float64, or `out` has another dtype.
    ValueError
        If `axes` is not a permutation, or `out` has another shape, is read-only or overlaps `x`.

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> ck.transpose(np.zeros((2, 3, 4), dtype=np.float32), (2, 0, 1)).shape
    (4, 2, 3)
    """
    return _core.transpose(x, axes, out, num_threads)


def nchw_to_nhwc(x: Any, out: Any = None, *, num_threads: int | None = None) -> Any:
    """Reorder images from (N, C, H, W), or (C, H, W), to channels last.

    Parameters
    ----------
    x : array_like of float32 or float64
        Three or four dimensions.
    out, num_threads
        As in `transpose`.

    Returns
    -------
    ndarray of shape (N, H, W, C) or (H, W, C)

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> ck.nchw_to_nhwc(np.zeros((1, 3, 8, 6), dtype=np.float32)).shape
    (1, 8, 6, 3)
    """
    return transpose(x, (1, 2, 0) if _is_one_image(x) else (0, 2, 3, 1), out, num_threads=num_threads)


def nhwc_to_nchw(x: Any, out: Any = None, *, num_threads: int | None = None) -> Any:
    """Reorder images from (N, H, W, C), or (H, W, C), to channels first.

    Parameters
    ----------
    x : array_like of float32 or float64
        Three or four dimensions.
    out, num_threads
        As in `transpose`.

    Returns
    -------
    ndarray of shape (N, C, H, W) or (C, H, W)

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> ck.nhwc_to_nchw(np.zeros((1, 8, 6, 3), dtype=np.float32)).shape
    (1, 3, 8, 6)
    """
    return transpose(x, (2, 0, 1) if _is_one_image(x) else (0, 3, 1, 2), out, num_threads=num_threads)


def _is_one_image(x: Any) -> bool:
    if not hasattr(x, "shape"):
        raise TypeError(f"x must be an array, not {type(x).__name__}")
    if len(x.shape) not in (3, 4):
        raise ValueError(f"x must have 3 or 4 dimensions, not shape {tuple(x.shape)}")
    return len(x.shape) == 3


def _choose(
    problem: tuple[int, ...], threads: int, algorithm: Any, accuracy: Any, workspace_limit: Any
) -> _core.Chosen:
    """Stand in for the tuner's chooser until the first call needs it."""
    with planning:
        from convkit.tuner.modes import chooser

        _core.set_chooser(chooser)
    return chooser(problem, threads, algorithm, accuracy, workspace_limit)


_core.set_chooser(_choose)

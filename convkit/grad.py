"""Gradients of `convkit.conv2d`, with the names and argument order of torch.nn.grad."""

from __future__ import annotations

from typing import Any

from convkit._core import as_array, conv2d_input, conv2d_weight

__all__ = ["conv2d_bias", "conv2d_input", "conv2d_weight"]

# Pixels summed one after another before partial sums are added: keeps float32 errors as small as pairwise sums.
_RUN = 256


def conv2d_bias(grad_output: Any, layout: str = "NCHW") -> Any:
    """Gradient of `convkit.conv2d` with respect to its bias: the sum of `grad_output` over everything but channels.

    Parameters
    ----------
    grad_output : array
        Gradient with respect to the convolution's result: (N, O, OH, OW), or (N, OH, OW, O) for ``layout="NHWC"``; the
        batch dimension may be left out. float32 or float64.
    layout : {"NCHW", "NHWC"}
        Order of `grad_output`.

    Returns
    -------
    array
        O values of the dtype of `grad_output`.

    Raises
    ------
    TypeError, ValueError
        For a dtype, a shape or a layout that `convkit.conv2d` does not know.

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> ck.grad.conv2d_bias(np.ones((2, 3, 4, 4), dtype=np.float32))
    array([32., 32., 32.], dtype=float32)
    """
    dy = as_array(grad_output, "grad_output")
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout must be 'NCHW' or 'NHWC', not {layout!r}")
    if dy.ndim not in (3, 4):
        raise ValueError(f"grad_output has shape {dy.shape}, expected 3 or 4 dimensions")
    images = dy if dy.ndim == 4 else dy[None]
    pixels = images if layout == "NHWC" else images.transpose(0, 2, 3, 1)
    channels = pixels.shape[3]
    if layout == "NHWC" or pixels.flags.c_contiguous:
        return _sum_of_runs(pixels.reshape(-1, channels))
    planes = images.reshape(len(images), channels, images.shape[2] * images.shape[3])
    if planes.shape[2] < _RUN // 4:  # short rows: along the batch first, so that whole vectors are added
        return _sum_of_runs(planes).sum(axis=1)
    return _sum_of_runs(planes.sum(axis=2))  # pairwise, along memory


def _sum_of_runs(rows: Any) -> Any:
    """Sum over the first dimension."""
    whole = len(rows) // _RUN * _RUN
    rest = rows[whole:].sum(axis=0)
    if not whole:
        return rest
    return rows[:whole].reshape(-1, _RUN, *rows.shape[1:]).sum(axis=1).sum(axis=0) + rest

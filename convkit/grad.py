"""Gradients of `convkit.conv2d`, with the names and argument order of torch.nn.grad."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit._core import conv2d_input, conv2d_weight

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
    dy = grad_output if isinstance(grad_output, np.ndarray) else np.from_dlpack(grad_output)
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout must be 'NCHW' or 'NHWC', not {layout!r}")
    if isinstance(dy, np.ma.MaskedArray) or dy.dtype not in (np.float32, np.float64):
        raise TypeError(f"grad_output must be a float32 or float64 array, not {type(dy).__name__} of {dy.dtype}")
    if dy.ndim not in (3, 4):
        raise ValueError(f"grad_output has shape {dy.shape}, expected 3 or 4 dimensions")
    channel = dy.ndim - 3 if layout == "NCHW" else dy.ndim - 1
    if layout == "NCHW":
        rows = dy.sum(axis=-1)  # pairwise, along memory
        return rows.sum(axis=tuple(axis for axis in range(rows.ndim) if axis != channel))
    pixels = dy.reshape(-1, dy.shape[channel])
    whole = len(pixels) // _RUN * _RUN
    runs = pixels[:whole].reshape(-1, _RUN, dy.shape[channel]).sum(axis=1)
    return runs.sum(axis=0) + pixels[whole:].sum(axis=0)

"""Gradients of `convkit.conv2d`, with the names and argument order of torch.nn.grad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from convkit._core import as_array, conv2d_input, conv2d_weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convkit.typing import FloatT, Layout, SupportsDLPack

__all__ = ["conv2d_bias", "conv2d_input", "conv2d_weight"]

# Pixels summed one after another before partial sums are added: keeps float32 errors as small as pairwise sums.
_RUN = 256


@overload
def conv2d_bias(grad_output: NDArray[FloatT], layout: Layout = "NCHW") -> NDArray[FloatT]: ...
@overload
def conv2d_bias(grad_output: SupportsDLPack, layout: Layout = "NCHW") -> NDArray[Any]: ...
def conv2d_bias(grad_output: SupportsDLPack, layout: Layout = "NCHW") -> NDArray[Any]:
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
    total: NDArray[Any]
    if layout == "NHWC" or pixels.flags.c_contiguous:
        total = _sum_of_runs(pixels.reshape(-1, channels))
        return total
    planes = images.reshape(len(images), channels, images.shape[2] * images.shape[3])
    # Short rows: along the batch first, so that whole vectors are added. Else pairwise, along memory.
    short = planes.shape[2] < _RUN // 4
    total = _sum_of_runs(planes).sum(axis=1) if short else _sum_of_runs(planes.sum(axis=2))
    return total


def _sum_of_runs(rows: Any) -> Any:
    """Sum over the first dimension."""
    whole = len(rows) // _RUN * _RUN
    rest = rows[whole:].sum(axis=0)
    if not whole:
        return rest
    return rows[:whole].reshape(-1, _RUN, *rows.shape[1:]).sum(axis=1).sum(axis=0) + rest

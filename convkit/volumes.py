"""Convolution along three dimensions, by kernels for two: the slices that a filter covers are channels of one image."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from convkit import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convkit.typing import Accuracy, Activation, Algorithm, FloatT, SupportsDLPack, Triple

__all__ = ["conv3d"]


@overload
def conv3d(
    x: NDArray[FloatT],
    w: NDArray[FloatT],
    bias: NDArray[FloatT] | None = None,
    stride: Triple = 1,
    padding: Triple | str = 0,
    dilation: Triple = 1,
    groups: int = 1,
    *,
    activation: Activation | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[FloatT]: ...
@overload
def conv3d(
    x: SupportsDLPack,
    w: SupportsDLPack,
    bias: SupportsDLPack | None = None,
    stride: Triple = 1,
    padding: Triple | str = 0,
    dilation: Triple = 1,
    groups: int = 1,
    *,
    activation: Activation | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[Any]: ...
def conv3d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: Triple = 1,
    padding: Triple | str = 0,
    dilation: Triple = 1,
    groups: int = 1,
    **options: Any,
) -> NDArray[Any]:
    """Convolve (cross-correlate) volumes with filters.

    Names and order of the arguments are those of torch.nn.functional.conv3d.

    Parameters
    ----------
    x : array
        Of shape (N, C, D, H, W); the batch dimension may be left out.
    w : array
        Filters of shape (O, C / groups, KD, KH, KW).
    bias : array, optional
        O values.
    stride : int or (int, int, int)
        Depth, height and width, at least 1.
    padding : int, (int, int, int) or {"valid", "same"}
        Zeros on both sides, as in PyTorch.
    dilation : int or (int, int, int)
        Distance of the filters' taps, at least 1.
    groups : int
        Blocks of channels that are convolved apart.
    **options
        Keywords of `conv2d`: activation, algorithm, num_threads, accuracy and workspace_limit.

    Returns
    -------
    ndarray
        Of shape (N, O, OD, OH, OW). Its memory order is (N, OD, O, OH, OW).

    Raises
    ------
    TypeError, ValueError
        As in `conv2d`, whose channels are those of all slices that a filter covers.

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> x, w = np.ones((1, 2, 5, 8, 8), dtype=np.float32), np.ones((3, 2, 3, 3, 3), dtype=np.float32)
    >>> float(ck.conv3d(x, w, padding=1)[0, 0, 2, 4, 4])
    54.0
    """
    volumes, filters = _core.as_array(x, "x"), _core.as_array(w, "w")
    if volumes.ndim == 4:
        batch: NDArray[Any] = conv3d(volumes[None], filters, bias, stride, padding, dilation, groups, **options)
        return batch.reshape(batch.shape[1:])
    if volumes.ndim != 5 or filters.ndim != 5:
        raise ValueError(
            "x must have 5 dimensions (N, C, D, H, W), or 4 without a batch, and w 5 (O, C / groups, KD, KH, KW); "
            f"their shapes are {volumes.shape} and {filters.shape}"
        )
    deep, *flat = _three(stride, "stride", 1)
    apart, *flat_apart = _three(dilation, "dilation", 1)
    n, c, d, h, width = volumes.shape
    o, per_group, taps, *_ = filters.shape
    groups = index(groups)
    if groups < 1 or o % groups or per_group * groups != c:
        raise ValueError(
            f"x of shape {volumes.shape} and w of shape {filters.shape} do not go together with groups={groups}"
        )
    reach = apart * (taps - 1) + 1
    before, after, flat_padding = _sides(padding, (deep, *flat), reach)
    count = (before + d + after - reach) // deep + 1
    if count < 1:
        raise ValueError(
            f"x of shape {volumes.shape} and w of shape {filters.shape} do not go together: the dilated filter is "
            f"deeper than the padded input, {reach} slices on {before + d + after}"
        )
    # Slices one after the other, zeros before and after them: those that a filter covers lie side by side.
    slices = np.zeros((n, before + d + after, c, h, width), volumes.dtype)
    slices[:, before : before + d] = volumes.transpose(0, 2, 1, 3, 4)
    planes = filters.swapaxes(1, 2).reshape(o, taps * per_group, *filters.shape[3:])
    conv = _core.Conv2d(planes, bias, flat, flat_padding, flat_apart, groups, copy=False, **options)
    channels = groups * taps * per_group
    shape = conv(np.empty((0, channels, h, width), volumes.dtype)).shape[1:]
    y: NDArray[Any] = np.empty((n, count, *shape), volumes.dtype)
    for volume in range(n):
        for place in range(count):
            covered = slices[volume, place * deep : place * deep + reach : apart]
            if groups > 1:
                covered = covered.reshape(taps, groups, per_group, h, width).swapaxes(0, 1)
            conv(np.ascontiguousarray(covered).reshape(1, channels, h, width), y[volume, place][None])
    return y.swapaxes(1, 2)


def _three(value: Triple, name: str, least: int) -> list[int]:
    """Depth, height and width."""
    numbers = [index(one) for one in value] if isinstance(value, Sequence) else [index(value)] * 3
    if len(numbers) != 3:
        raise TypeError(f"{name} must be an int or three of them (depth, height, width), not {value!r}")
    if min(numbers) < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return numbers


def _sides(padding: Triple | str, stride: Sequence[int], reach: int) -> tuple[int, int, Any]:
    """Slices of zeros before and after, and the padding of an image."""
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid', 'same' or numbers, not {padding!r}")
        if padding == "same" and max(stride) > 1:
            raise ValueError("padding 'same' needs a stride of 1")
        around = reach - 1 if padding == "same" else 0
        return around // 2, around - around // 2, padding
    deep, *flat = _three(padding, "padding", 0)
    return deep, deep, flat

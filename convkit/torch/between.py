"""What stands between convolutions, by `convkit.images` where images lie channels last.

Each function takes what PyTorch's function of that name takes, an array for each tensor, and gives an array; or
NotImplemented, for what PyTorch is to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from convkit import images

__all__ = [
    "adaptive_avg_pool2d", "avg_pool2d", "cat", "flatten", "group_norm", "interpolate", "layer_norm", "max_pool2d",
    "mean", "mul", "pixels",
]  # fmt: skip

_threads = torch.get_num_threads
_DTYPES = (np.dtype("f4"), np.dtype("f8"))
_KEPT = 256  # sizes whose geometry is kept


def pixels(x: Any) -> Any:
    """Images as (N, H, W, C), if that is how they lie in memory; else None."""
    if type(x) is np.ndarray and x.ndim == 4 and x.dtype in _DTYPES:
        last = x.transpose(0, 2, 3, 1)
        if last.flags.c_contiguous and last.size:
            return last
    return None


def _image(last: Any) -> Any:
    return last.transpose(0, 3, 1, 2)


def _pair(value: Any) -> tuple[int, int]:
    numbers = (value, value) if isinstance(value, int) else tuple(value)
    return numbers if len(numbers) == 2 else (numbers[0], numbers[0])


def _constant(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _extent(size: int, kernel: int, stride: int, pad: int, dilation: int, ceil: bool) -> int:
    """Number of windows along a dimension, as PyTorch counts."""
    room = size + 2 * pad - dilation * (kernel - 1) - 1
    count = (room + (stride - 1 if ceil else 0)) // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= size + pad else count


@lru_cache(_KEPT)
def _windows(spatial: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Any:
    """Kernel, stride, dilation, padding and size for `images.pool`; None for windows that PyTorch refuses."""
    kernel = _pair(kernel)
    stride, padding, dilation = _pair(stride) if stride else kernel, _pair(padding), _pair(dilation)
    if min(*kernel, *stride, *dilation) < 1 or any(p < 0 or 2 * p > k for p, k in zip(padding, kernel, strict=True)):
        return None
    each = zip(spatial, kernel, stride, padding, dilation, strict=True)
    size = tuple(_extent(*numbers, ceil) for numbers in each)
    return (kernel, stride, dilation, padding, size) if min(size) > 0 else None


def max_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    last = pixels(x)
    if last is None or return_indices:
        return NotImplemented
    given = _windows(x.shape[2:], *map(_constant, (kernel_size, stride, padding, dilation)), ceil_mode)
    if given is None:
        return NotImplemented
    rest: Any = (*given, None, None, _threads())
    return _image(images.pool(last, *rest))


def avg_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: Any = None,
) -> Any:  # fmt: skip
    last = pixels(x)
    if last is None or ceil_mode or divisor_override is not None:
        return NotImplemented
    given = _windows(x.shape[2:], *map(_constant, (kernel_size, stride, padding)), 1, False)
    if given is None:
        return NotImplemented
    factors = [a.astype(x.dtype) for a in _shares(x.shape[2:], given, count_include_pad)]
    rest: Any = (*given, *factors, _threads())
    return _image(images.pool(last, *rest))


@lru_cache(_KEPT)
def _shares(spatial: tuple[int, int], given: Any, padded: bool) -> list[Any]:
    """For each dimension one over the number of pixels in each window, zeros around the image counted or not."""
    counted = [(pad, pad) if padded else (0, 0) for pad in given[3]]
    rest: Any = (*given, counted)
    return images.window_shares(spatial, *rest)


def adaptive_avg_pool2d(x: Any, output_size: Any) -> Any:
    last = pixels(x)
    if last is None or _constant(output_size) not in (1, (1, 1)):
        return NotImplemented
    return images.mean_pool(last, _threads())[:, :, None, None]


def mean(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    last = pixels(x)
    if last is None or not isinstance(dim, tuple | list) or sorted(d % 4 for d in dim) != [2, 3]:
        return NotImplemented
    means = images.mean_pool(last, _threads())
    return means[:, :, None, None] if keepdim else means


def interpolate(
    x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None,
    recompute_scale_factor: Any = None, antialias: bool = False,
) -> Any:  # fmt: skip
    last = pixels(x)
    if last is None or mode != "nearest" or align_corners or recompute_scale_factor or antialias:
        return NotImplemented
    tables = _repeats(x.shape[2:], _constant(size), _constant(scale_factor))
    if tables is None:
        return NotImplemented
    rest: Any = (*tables, None, None, None, None, _threads())
    return _image(images.resample(last, *rest))


@lru_cache(_KEPT)
def _repeats(spatial: tuple[int, int], size: Any, scale: Any) -> Any:
    """The row and the column of each pixel, if each comes a whole number of times; else None."""
    if (size is None) is (scale is None):
        return None
    if size is not None:
        factors = tuple(new / old for new, old in zip(_pair(size), spatial, strict=True))
    else:
        factors = scale if isinstance(scale, tuple) else (scale, scale)
    if len(factors) != 2 or not all(f >= 1 and f == int(f) for f in factors):
        return None
    return [np.repeat(np.arange(n), int(f)) for n, f in zip(spatial, factors, strict=True)]


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    first = tensors[0]
    if dim not in (1, -3) or not any(pixels(x) is not None for x in tensors):
        return NotImplemented
    if not all(_beside(x, first) for x in tensors):
        return NotImplemented
    return _image(images.concatenate([x.transpose(0, 2, 3, 1) for x in tensors], _threads()))


def _beside(x: Any, other: Any) -> bool:
    """Whether images are of the same size, with the channels of a pixel side by side."""
    return bool(
        type(x) is np.ndarray and x.ndim == other.ndim == 4 and x.dtype == other.dtype and x.dtype in _DTYPES and x.size
        and x.strides[1] == x.itemsize and x.shape[0] == other.shape[0] and x.shape[2:] == other.shape[2:]
    )  # fmt: skip


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """One number a channel, without the two dimensions of size 1."""
    if type(x) is not np.ndarray or x.ndim != 4 or x.shape[2:] != (1, 1):
        return NotImplemented
    if start_dim not in (1, -3) or end_dim not in (3, -1):
        return NotImplemented
    return x.reshape(x.shape[:2])


def mul(x: Any, y: Any, spare: tuple[int, ...] = ()) -> Any:
    """The product of an image and a gate for each of its channels; `spare` says which factors may become it."""
    for i, image, gate in ((0, x, y), (1, y, x)):
        last = pixels(image)
        if last is None or type(gate) is not np.ndarray or gate.dtype != image.dtype:
            continue
        n, h, w, c = last.shape
        if gate.shape == (n, c, 1, 1) and h * w > 1:
            flat, factors = last.reshape(n, h * w, c), np.ascontiguousarray(gate.reshape(n, c))
            in_place = i in spare and image.flags.writeable
            product = images.scale_shift(flat, factors, in_place=in_place, num_threads=_threads())
            return _image(product.reshape(n, h, w, c))
    return NotImplemented


def layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    if (
        type(x) is not np.ndarray or len(normalized_shape) != 1 or not x.size or not x.flags.c_contiguous
        or x.shape[-1] != normalized_shape[0] or x.dtype not in _DTYPES
        or not all(a is None or (a.dtype == x.dtype and a.flags.c_contiguous) for a in (weight, bias))
    ):  # fmt: skip
        return NotImplemented
    flat = x.reshape(-1, x.shape[-1])
    return images.layer_norm(flat, weight, bias, eps, _threads()).reshape(x.shape)


def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, activation: Any = None
) -> Any:
    """`torch.nn.functional.group_norm`, and an activation that follows it."""
    last = pixels(x)
    if last is None or weight is None or bias is None or not x.dtype == weight.dtype == bias.dtype:
        return NotImplemented
    n, h, w, c = last.shape
    y = images.group_norm(
        last.reshape(n, h * w, c), num_groups, weight, bias, eps, last=True, activation=activation,
        num_threads=_threads(),
    )  # fmt: skip
    return _image(y.reshape(n, h, w, c))

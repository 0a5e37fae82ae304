"""Tensors as arrays and arrays as tensors, over the same memory, in the memory format that PyTorch would choose."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import to_dlpack

from convkit import _core

__all__ = ["FLOATS", "array_of", "format_of", "is_channels_last", "strides_of", "tensor_of", "turned", "turned_back"]

FLOATS = (torch.float32, torch.float64)
"""What convkit computes with."""


class _Shared:
    """A tensor that NumPy reads through DLPack: `Tensor.numpy` would make its storage unresizable, for good."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __dlpack__(self, **_: object) -> Any:
        return to_dlpack(self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def array_of(tensor: Any) -> Any:
    """A read-only array over a tensor's memory; of a signal, an image with one row."""
    array = np.from_dlpack(_Shared(tensor))
    return array[:, :, None] if array.ndim == 3 else array


def tensor_of(array: Any, dims: int, last: bool) -> Any:
    """A tensor over an array's memory, with the strides that PyTorch's own result would have.

    Parameters
    ----------
    array : ndarray
        Four-dimensional and dense.
    dims : int
        Number of spatial dimensions.
    last : bool
        Whether the result is to be channels last.
    """
    y = torch.from_numpy(array)
    if dims == 1:
        y = y.squeeze(2)
        return y if y.is_contiguous() else y.contiguous()
    wanted = strides_of(y.shape, last)
    if y.stride() == wanted:
        return y
    # Strides along dimensions of size 1 say nothing, but later operations choose their format by them.
    if all(n == 1 or a == b for n, a, b in zip(y.shape, y.stride(), wanted, strict=True)):
        return y.as_strided(y.shape, wanted)
    return y.contiguous(memory_format=format_of(last))


def strides_of(shape: Any, last: bool) -> tuple[int, ...]:
    """Strides of PyTorch's own images."""
    _, c, h, w = (max(size, 1) for size in shape)
    return (h * w * c, 1, w * c, c) if last else (c * h * w, h * w, w, 1)


def format_of(last: bool) -> Any:
    """PyTorch's name of a memory format."""
    return torch.channels_last if last else torch.contiguous_format


def is_channels_last(x: Any) -> bool:
    """Whether PyTorch takes a tensor for channels last, by its strides.

    What `suggest_memory_format` of c10/core/MemoryFormat.h says, ambiguous strides included: the format of results, and
    of those computed from them, depends on it.
    """
    if x.dim() != 4:
        return False
    sizes, strides = x.shape, x.stride()
    if strides[1] == 0:
        return False
    least = 0
    for d in (1, 3, 2, 0):
        if sizes[d] == 0 or strides[d] < least or (d == 0 and least == strides[1]):
            return False
        least = strides[d] * max(sizes[d], 1)
    return True


def turned(image: Any, plain: bool) -> Any:
    """An image channels last; `plain` says that nobody records what is done to it."""
    if not plain or image.dtype not in FLOATS or not image.is_contiguous():
        return image.contiguous(memory_format=torch.channels_last)
    array = _core.transpose(array_of(image), (0, 2, 3, 1), None, torch.get_num_threads())
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def turned_back(image: Any, plain: bool) -> Any:
    """An image that is channels last, contiguous."""
    if not plain or image.dtype not in FLOATS or image.dim() != 4 or image.shape[1] == 1:
        # Gives strides of size-1 dimensions, too, which `contiguous` leaves.
        return image.reshape(-1).reshape(image.shape)
    return torch.from_numpy(_core.transpose(array_of(image), (0, 1, 2, 3), None, torch.get_num_threads()))

"""What NumPy itself does not do for element-wise work: several threads, parts that fit the cache, memory used again.

NumPy's loops run on one thread, and leave a large array for another before they come back to its first element. So work
is cut along the first dimension into parts that stay in the L2 cache while several operations pass over them; a pool of
threads takes the parts, for NumPy releases the GIL. Where the cuts are does not depend on the number of threads, and
nothing is summed across parts except in their order: the same bits for any number of threads.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "empty", "over_parts", "product", "set_threads"]

Array = NDArray[Any]

PART = 1 << 18  # bytes of one operand: a handful of them fit an L2 cache of 1 or 2 MiB
PIECE, PIECES = 1 << 20, 16  # multiply-adds that are worth a thread's waking, and most pieces of a product
KEPT = 48  # blocks of memory that wait for their next use

_threads = 1
_pool: ThreadPoolExecutor | None = None


def set_threads(threads: int) -> None:
    """Let `over_parts` use so many threads, the calling one included."""
    global _threads, _pool
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if _pool is not None and threads != _threads:
        _pool.shutdown()
        _pool = None
    _threads = threads
    if threads > 1 and _pool is None:
        _pool = ThreadPoolExecutor(threads - 1, "training")


def over_parts(work: Callable[[slice], Any], array: Array) -> list[Any]:
    """Call `work` with slices of `array`'s first dimension, and return its results in order."""
    count = len(array)
    if not count:
        return []
    return _among_threads(work, count, max(1, PART * count // max(array.nbytes, 1)))


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """``a @ b`` of two matrices, the longer side of the result cut into pieces that the threads take.

    BLAS would do it on threads of its own, which spin on the CPUs for long after it and keep convolutions off them: the
    programs let it have one.
    """
    rows, columns = len(a), b.shape[1]
    y = np.empty((rows, columns), np.result_type(a, b)) if out is None else out
    longer = max(rows, columns)
    pieces = min(PIECES, 1 + rows * columns * len(b) // PIECE)

    def piece(part: slice) -> None:
        if columns == longer:
            np.matmul(a, b[:, part], out=y[:, part])
        else:
            np.matmul(a[part], b, out=y[part])

    _among_threads(piece, longer, -(-longer // pieces))
    return y


def _among_threads(work: Callable[[slice], Any], count: int, step: int) -> list[Any]:
    slices = [slice(first, min(first + step, count)) for first in range(0, count, step)]
    if _pool is None or len(slices) == 1:
        return _in_turn(work, slices)
    # Each thread takes one run of neighbours, so that it finds in its cache what it wrote there.
    runs = [slices[len(slices) * i // _threads : len(slices) * (i + 1) // _threads] for i in range(_threads)]
    others = [_pool.submit(_in_turn, work, run) for run in runs[1:]]
    results = _in_turn(work, runs[0])
    for other in others:
        results += other.result()
    return results


def _in_turn(work: Callable[[slice], Any], parts: list[slice]) -> list[Any]:
    return [work(part) for part in parts]


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """As `numpy.empty`; memory that nobody refers to any more is used again.

    A fresh array of 100 MB costs thousands of page faults, as long as the work on it. A block of memory is free once no
    view of it is left.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < 1 << 16:
        return np.empty(shape, dtype)
    with _blocks_lock:
        fitting = (i for i in range(len(_blocks)) if nbytes <= _blocks[i].nbytes <= 2 * nbytes)
        for i in sorted(fitting, key=lambda i: _blocks[i].nbytes):
            if _references(i) == _ALONE:
                return np.asarray(_blocks[i][:nbytes].view(dtype).reshape(shape))
        if len(_blocks) >= KEPT:
            del _blocks[0]  # lives on as long as somebody uses it
        _blocks.append(np.empty(nbytes, np.uint8))
        return np.asarray(_blocks[-1].view(dtype).reshape(shape))


def _references(i: int) -> int:
    return sys.getrefcount(_blocks[i])


_blocks_lock = threading.Lock()
_blocks: list[Array] = [np.empty(1, np.uint8)]
_ALONE = _references(0)  # how many the interpreter counts differs from version to version
_blocks.clear()

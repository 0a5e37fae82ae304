"""The calls users make: convolutions, convolutions that own their weights, transposes, and why a kernel runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from convkit import _core
from convkit._core import Conv2d, ConvTranspose2d, conv2d, conv_transpose2d
from convkit.tuner.process import planning

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from convkit.tuner.choosing.explanation import Explanation
    from convkit.typing import (
        Accuracy,
        Activation,
        Algorithm,
        FloatT,
        Layout,
        Op,
        Padding,
        Pair,
        Shape,
        SupportsDLPack,
    )

__all__ = [
    "Conv2d", "ConvTranspose2d", "clear_workspaces", "conv2d", "conv_transpose2d", "explain", "nchw_to_nhwc",
    "nhwc_to_nchw", "transpose",
]  # fmt: skip


def clear_workspaces() -> None:
    """Return the memory that convkit keeps for later calls to the operating system.

    Workspaces of kernels and the memory of large results (more than 128 KiB) are kept and used again, because touching
    a fresh page costs more than most of what is done with it. Arrays that are in use are not affected.
    """
    _core.clear_workspaces()


@overload
def transpose(
    x: NDArray[FloatT], axes: Shape, out: NDArray[FloatT] | None = None, *, num_threads: int | None = None
) -> NDArray[FloatT]: ...
@overload
def transpose(
    x: SupportsDLPack, axes: Shape, out: SupportsDLPack | None = None, *, num_threads: int | None = None
) -> NDArray[Any]: ...
def transpose(
    x: SupportsDLPack, axes: Shape, out: SupportsDLPack | None = None, *, num_threads: int | None = None
) -> NDArray[Any]:
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


@overload
def nchw_to_nhwc(
    x: NDArray[FloatT], out: NDArray[FloatT] | None = None, *, num_threads: int | None = None
) -> NDArray[FloatT]: ...
@overload
def nchw_to_nhwc(
    x: SupportsDLPack, out: SupportsDLPack | None = None, *, num_threads: int | None = None
) -> NDArray[Any]: ...
def nchw_to_nhwc(
    x: SupportsDLPack, out: SupportsDLPack | None = None, *, num_threads: int | None = None
) -> NDArray[Any]:
    """Reorder images from (N, C, H, W), or (C, H, W), to channels last.

    Parameters
    ----------
    x : array_like of float32 or float64
        Three or four dimensions.
    out, num_threads : optional
        As in `transpose`.

    Returns
    -------
    ndarray
        Of shape (N, H, W, C) or (H, W, C).

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> ck.nchw_to_nhwc(np.zeros((1, 3, 8, 6), dtype=np.float32)).shape
    (1, 8, 6, 3)
    """
    return transpose(x, (1, 2, 0) if _is_one_image(x) else (0, 2, 3, 1), out, num_threads=num_threads)


@overload
def nhwc_to_nchw(
    x: NDArray[FloatT], out: NDArray[FloatT] | None = None, *, num_threads: int | None = None
) -> NDArray[FloatT]: ...
@overload
def nhwc_to_nchw(
    x: SupportsDLPack, out: SupportsDLPack | None = None, *, num_threads: int | None = None
) -> NDArray[Any]: ...
def nhwc_to_nchw(
    x: SupportsDLPack, out: SupportsDLPack | None = None, *, num_threads: int | None = None
) -> NDArray[Any]:
    """Reorder images from (N, H, W, C), or (H, W, C), to channels first.

    Parameters
    ----------
    x : array_like of float32 or float64
        Three or four dimensions.
    out, num_threads : optional
        As in `transpose`.

    Returns
    -------
    ndarray
        Of shape (N, C, H, W) or (C, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> ck.nhwc_to_nchw(np.zeros((1, 8, 6, 3), dtype=np.float32)).shape
    (1, 3, 8, 6)
    """
    return transpose(x, (2, 0, 1) if _is_one_image(x) else (0, 3, 1, 2), out, num_threads=num_threads)


def _is_one_image(x: object) -> bool:
    shape: tuple[int, ...] | None = getattr(x, "shape", None)
    if shape is None:
        raise TypeError(f"x must be an array, not {type(x).__name__}")
    if len(shape) not in (3, 4):
        raise ValueError(f"x must have 3 or 4 dimensions, not shape {tuple(shape)}")
    return len(shape) == 3


def _choose(
    problem: tuple[int, ...], threads: int, algorithm: object, accuracy: object, workspace_limit: object
) -> _core.Chosen:
    """Stand in for the tuner's chooser until the first call needs it."""
    with planning:
        from convkit.tuner.modes import chooser

        _core.set_chooser(chooser)
    return chooser(problem, threads, algorithm, accuracy, workspace_limit)


_core.set_chooser(_choose)


def explain(
    x: SupportsDLPack | Shape,
    w: SupportsDLPack | Shape,
    bias: SupportsDLPack | Shape | bool | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
    activation: Activation | None = None,
    residual: SupportsDLPack | Shape | bool | None = None,
    scale: float | SupportsDLPack | Shape | None = None,
    shift: float | SupportsDLPack | Shape | None = None,
    residual_after: bool = False,
    out: SupportsDLPack | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
    dtype: DTypeLike | None = None,
    packed: bool = False,
    op: Op = "forward",
) -> Explanation:
    """Explain which kernel `conv2d` or one of its gradients would run for these arguments, and why.

    Nothing is timed and nothing is run.

    Parameters
    ----------
    x, w : array or tuple of int
        Arrays, or shapes; then `dtype` says the element type.
    bias : array, tuple of int or bool, optional
        As for `conv2d`; beside shapes it is enough to say whether there is one.
    stride, padding, dilation, groups, layout, activation : optional
        As for `conv2d`.
    residual : array, tuple of int or bool, optional
        As `bias`.
    scale, shift : float, array or tuple of int, optional
        As for `conv2d`, or shapes.
    residual_after, out, algorithm, num_threads, accuracy, workspace_limit : optional
        As for `conv2d`.
    dtype : dtype, optional
        Element type of the shapes, float32 if it is left out.
    packed : bool
        True explains what `Conv2d` would run: its weights are packed beforehand.
    op : {"forward", "input_grad", "weight_grad"}
        The gradients of ``conv2d(x, w, ...)`` by `convkit.grad.conv2d_input` (which `conv_transpose2d` is, too, with w
        as it takes it) and by `convkit.grad.conv2d_weight`. They take no bias, epilogue or out here.

    Returns
    -------
    Explanation
        Its text is a table; its `choice` may be given to `conv2d` as `algorithm`.
    """
    with planning:
        from convkit.problem import of_call
        from convkit.tuner.choosing.explanation import explain_problem

    extras = {
        "bias": bias, "activation": activation, "residual": residual, "scale": scale, "shift": shift, "out": out,
    }  # fmt: skip
    surplus = [name for name, value in extras.items() if value is not None]
    if op != "forward" and surplus:
        raise ValueError(f"{surplus[0]} must be None if op is {op!r}")
    problem, threads = of_call(
        x, w, bias, stride, padding, dilation, groups, layout=layout, activation=activation, residual=residual,
        scale=scale, shift=shift, residual_after=residual_after, out=out, num_threads=num_threads, dtype=dtype,
        packed=packed, op=op,
    )  # fmt: skip
    return explain_problem(problem, threads, algorithm=algorithm, accuracy=accuracy, workspace_limit=workspace_limit)

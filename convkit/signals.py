"""Convolutions along one dimension: those along two, of signals that are one row high."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from convkit import _core

if TYPE_CHECKING:
    from typing import SupportsIndex

    from numpy.typing import NDArray

    from convkit.typing import (
        Accuracy,
        Activation,
        Algorithm,
        Array,
        FloatT,
        Layout,
        Memory,
        Padding1d,
        SignalLayout,
        Single,
        SupportsDLPack,
    )

__all__ = ["Conv1d", "conv1d", "conv_transpose1d"]


@overload
def conv1d(
    x: NDArray[FloatT],
    w: NDArray[FloatT],
    bias: NDArray[FloatT] | None = None,
    stride: Single = 1,
    padding: Padding1d = 0,
    dilation: Single = 1,
    groups: int = 1,
    *,
    layout: SignalLayout = "NCW",
    activation: Activation | None = None,
    residual: NDArray[FloatT] | None = None,
    scale: float | NDArray[FloatT] | None = None,
    shift: float | NDArray[FloatT] | None = None,
    residual_after: bool = False,
    out: NDArray[FloatT] | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[FloatT]: ...
@overload
def conv1d(
    x: SupportsDLPack,
    w: SupportsDLPack,
    bias: SupportsDLPack | None = None,
    stride: Single = 1,
    padding: Padding1d = 0,
    dilation: Single = 1,
    groups: int = 1,
    *,
    layout: SignalLayout = "NCW",
    activation: Activation | None = None,
    residual: SupportsDLPack | None = None,
    scale: float | SupportsDLPack | None = None,
    shift: float | SupportsDLPack | None = None,
    residual_after: bool = False,
    out: SupportsDLPack | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[Any]: ...
def conv1d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: Single = 1,
    padding: Padding1d = 0,
    dilation: Single = 1,
    groups: int = 1,
    *,
    layout: SignalLayout = "NCW",
    residual: Any = None,
    out: Any = None,
    **options: Any,
) -> NDArray[Any]:
    """Convolve (cross-correlate) signals with filters.

    Names and order of the arguments are those of torch.nn.functional.conv1d.

    Parameters
    ----------
    x : array
        Of shape (N, C, L), or (N, L, C) for ``layout="NWC"``; the batch dimension may be left out.
    w : array
        Filters of shape (O, C / groups, K) in both layouts.
    bias : array, optional
        O values.
    stride : int or (int,)
        At least 1.
    padding : int, (int,), ((int, int),) or str
        Zeros at both ends, or before and after, or a rule of `conv2d`.
    dilation : int or (int,)
        At least 1.
    groups : int
        Blocks of channels that are convolved apart.
    layout : {"NCW", "NWC"}
        Order of the dimensions of `x`, `residual`, `out` and the result.
    residual, out : array, optional
        As in `conv2d`, shaped like the result.
    **options
        Keywords of `conv2d`: activation, scale, shift, residual_after, algorithm, num_threads, accuracy and
        workspace_limit.

    Returns
    -------
    ndarray
        Of shape (N, O, M), or (N, M, O), with M = (L + before + after - dilation * (K - 1) - 1) // stride + 1; `out` if
        that was given.

    Raises
    ------
    TypeError, ValueError
        As in `conv2d`, whose sizes are those of images with a height of 1.

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> x = np.arange(6, dtype=np.float32).reshape(1, 1, 6)
    >>> w = np.ones((1, 1, 3), dtype=np.float32)
    >>> ck.conv1d(x, w, padding="same")[0, 0]
    array([ 1.,  3.,  6.,  9., 12.,  9.], dtype=float32)
    """
    at = _height_at(layout)
    y: NDArray[Any] = _core.conv2d(
        _image(x, "x", at), _filters(w), bias, _pair(stride, "stride", 1), _sides(padding),
        _pair(dilation, "dilation", 1), groups, layout=_of_images(layout), residual=_image(residual, "residual", at),
        out=_image(out, "out", at), **options,
    )  # fmt: skip
    return out if out is not None else _signal(y, at)


@overload
def conv_transpose1d(
    x: NDArray[FloatT],
    w: NDArray[FloatT],
    bias: NDArray[FloatT] | None = None,
    stride: Single = 1,
    padding: Single | Sequence[Sequence[SupportsIndex]] = 0,
    output_padding: Single = 0,
    groups: int = 1,
    dilation: Single = 1,
    *,
    layout: SignalLayout = "NCW",
    activation: Activation | None = None,
    residual: NDArray[FloatT] | None = None,
    scale: float | NDArray[FloatT] | None = None,
    shift: float | NDArray[FloatT] | None = None,
    residual_after: bool = False,
    out: NDArray[FloatT] | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[FloatT]: ...
@overload
def conv_transpose1d(
    x: SupportsDLPack,
    w: SupportsDLPack,
    bias: SupportsDLPack | None = None,
    stride: Single = 1,
    padding: Single | Sequence[Sequence[SupportsIndex]] = 0,
    output_padding: Single = 0,
    groups: int = 1,
    dilation: Single = 1,
    *,
    layout: SignalLayout = "NCW",
    activation: Activation | None = None,
    residual: SupportsDLPack | None = None,
    scale: float | SupportsDLPack | None = None,
    shift: float | SupportsDLPack | None = None,
    residual_after: bool = False,
    out: SupportsDLPack | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[Any]: ...
def conv_transpose1d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: Single = 1,
    padding: Single | Sequence[Sequence[SupportsIndex]] = 0,
    output_padding: Single = 0,
    groups: int = 1,
    dilation: Single = 1,
    *,
    layout: SignalLayout = "NCW",
    residual: Any = None,
    out: Any = None,
    **options: Any,
) -> NDArray[Any]:
    """Convolve signals by a transposed convolution: the input gradient of `conv1d`, as a forward pass.

    Names and order of the arguments are those of torch.nn.functional.conv_transpose1d.

    Parameters
    ----------
    x : array
        Of shape (N, C, L), or (N, L, C) for ``layout="NWC"``; the batch dimension may be left out.
    w : array
        Filters of shape (C, O / groups, K) in both layouts: inputs first, unlike those of `conv1d`.
    bias : array, optional
        O values.
    stride : int or (int,)
        At least 1.
    padding : int, (int,) or ((int, int),)
        Samples cut off both ends of the result, or before and after.
    output_padding : int or (int,)
        Samples added at its end, fewer than the stride or the dilation.
    groups : int
        Blocks of channels that are convolved apart.
    dilation : int or (int,)
        At least 1.
    layout, residual, out : optional
        As in `conv1d`.
    **options
        As in `conv1d`.

    Returns
    -------
    ndarray
        Of shape (N, O, M), or (N, M, O), with M = (L - 1) * stride - before - after + dilation * (K - 1) +
        output_padding + 1; `out` if that was given.

    Raises
    ------
    TypeError, ValueError
        As in `conv_transpose2d`, whose sizes are those of images with a height of 1.

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> x, w = np.ones((1, 1, 3), dtype=np.float32), np.ones((1, 1, 4), dtype=np.float32)
    >>> ck.conv_transpose1d(x, w, stride=2, padding=1)[0, 0]
    array([1., 2., 2., 2., 2., 1.], dtype=float32)
    """
    at = _height_at(layout)
    y: NDArray[Any] = _core.conv_transpose2d(
        _image(x, "x", at), _filters(w), bias, _pair(stride, "stride", 1), _sides(padding),
        _pair(output_padding, "output_padding", 0), groups, _pair(dilation, "dilation", 1), layout=_of_images(layout),
        residual=_image(residual, "residual", at), out=_image(out, "out", at), **options,
    )  # fmt: skip
    return out if out is not None else _signal(y, at)


class Conv1d:
    """A convolution along one dimension with weights of its own, packed once for the kernel that uses them.

    Unlike torch.nn.Conv1d it takes the weights themselves. Call it as ``conv(x, out=None, residual=None)``.

    Parameters
    ----------
    w : array
        Filters of shape (O, C / groups, K), float32 or float64.
    bias : array, optional
        O values.
    stride, padding, dilation, groups, layout : optional
        As in `conv1d`.
    activation, weight_scale, scale, shift, residual_after : optional
        As in `Conv2d`.
    copy, memory, algorithm, num_threads, accuracy, workspace_limit : optional
        As in `Conv2d`.

    Raises
    ------
    TypeError, ValueError
        As in `conv1d`.

    See Also
    --------
    Conv2d : What it is made of; packings, copies and threads are as there.

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> conv = ck.Conv1d(np.ones((8, 3, 5), dtype=np.float32), padding=2, activation="relu")
    >>> conv(np.ones((2, 3, 100), dtype=np.float32)).shape
    (2, 8, 100)
    """

    __slots__ = ("_at", "_conv")

    def __init__(
        self,
        w: SupportsDLPack,
        bias: SupportsDLPack | None = None,
        stride: Single = 1,
        padding: Padding1d = 0,
        dilation: Single = 1,
        groups: int = 1,
        *,
        layout: SignalLayout = "NCW",
        activation: Activation | None = None,
        weight_scale: float | SupportsDLPack | None = None,
        scale: float | SupportsDLPack | None = None,
        shift: float | SupportsDLPack | None = None,
        residual_after: bool = False,
        copy: bool = True,
        memory: Memory = "fast",
        algorithm: Algorithm | None = None,
        num_threads: int | None = None,
        accuracy: Accuracy | None = None,
        workspace_limit: int | None = None,
    ) -> None:
        self._at = _height_at(layout)
        self._conv = _core.Conv2d(
            _filters(w), bias, _pair(stride, "stride", 1), _sides(padding), _pair(dilation, "dilation", 1), groups,
            layout=_of_images(layout), activation=activation, weight_scale=weight_scale, scale=scale, shift=shift,
            residual_after=residual_after, copy=copy, memory=memory, algorithm=algorithm, num_threads=num_threads,
            accuracy=accuracy, workspace_limit=workspace_limit,
        )  # fmt: skip

    @overload
    def __call__(
        self, x: NDArray[FloatT], out: NDArray[FloatT] | None = None, residual: NDArray[FloatT] | None = None
    ) -> NDArray[FloatT]: ...
    @overload
    def __call__(
        self, x: SupportsDLPack, out: SupportsDLPack | None = None, residual: SupportsDLPack | None = None
    ) -> NDArray[Any]: ...
    def __call__(self, x: Any, out: Any = None, residual: Any = None) -> NDArray[Any]:
        at = self._at
        y: NDArray[Any] = self._conv(_image(x, "x", at), _image(out, "out", at), _image(residual, "residual", at))
        return out if out is not None else _signal(y, at)

    def __repr__(self) -> str:
        return repr(self._conv).replace("Conv2d", "Conv1d", 1).replace(", 1x", ", ", 1)

    def update(self, w: SupportsDLPack, bias: SupportsDLPack | None = None, **factors: Any) -> None:
        """Replace the weights and the bias.

        Parameters
        ----------
        w : array
            Of the shape and type of the layer's weights.
        bias : array, optional
            As the layer's; None if it has none.
        **factors
            Keywords of `Conv2d.update`: weight_scale, scale and shift.
        """
        self._conv.update(_filters(w), bias, **factors)

    @property
    def weight(self) -> Array:
        """Filters of shape (O, C / groups, K), scaled, read-only."""
        weight = self._conv.weight
        return weight[:, :, 0]

    @property
    def bias(self) -> Array | None:
        """O values, or None."""
        return self._conv.bias

    @property
    def nbytes(self) -> int:
        """Bytes that the layer holds."""
        return self._conv.nbytes

    @property
    def packed_nbytes(self) -> int:
        """Bytes of the packings alone."""
        return self._conv.packed_nbytes


def _height_at(layout: SignalLayout) -> int:
    """Where images have their height, counted from the last dimension of a signal."""
    if layout not in ("NCW", "NWC"):
        raise ValueError(f"layout must be 'NCW' or 'NWC', not {layout!r}")
    return 1 if layout == "NCW" else 2


def _of_images(layout: SignalLayout) -> Layout:
    return "NCHW" if layout == "NCW" else "NHWC"


def _image(object: Any, name: str, at: int) -> Any:
    """Signals as images with a height of 1."""
    if object is None:
        return None
    signal = _core.as_array(object, name)
    if signal.ndim not in (2, 3):
        raise ValueError(f"{name} must have 3 dimensions, or 2 without a batch, not shape {signal.shape}")
    place = signal.ndim - at
    return signal[(slice(None),) * place + (None,)]


def _filters(object: Any) -> Any:
    filters = _core.as_array(object, "w")
    if filters.ndim != 3:
        raise ValueError(f"w must have 3 dimensions, (outputs, inputs, taps), not shape {filters.shape}")
    return filters[:, :, None]


def _signal(y: NDArray[Any], at: int) -> NDArray[Any]:
    return y[..., 0, :] if at == 1 else y[..., 0, :, :]


def _pair(number: Single, name: str, neutral: int) -> tuple[int, SupportsIndex]:
    """A number for the width, beside that of a height of 1."""
    if isinstance(number, Sequence):
        if len(number) != 1:
            raise TypeError(f"{name} must be an int or one in a sequence, not {number!r}")
        (number,) = number
    return neutral, number


def _sides(padding: Padding1d) -> Any:
    """Padding for images with a height of 1."""
    if isinstance(padding, str) or not isinstance(padding, Sequence):
        return padding if isinstance(padding, str) else (0, padding)
    if len(padding) != 1:
        raise TypeError(f"padding must be an int, (int,), ((before, after),) or a rule, not {padding!r}")
    return ((0, 0), padding[0]) if isinstance(padding[0], Sequence) else (0, padding[0])

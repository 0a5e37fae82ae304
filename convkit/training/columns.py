"""The matrix of im2col as an array: a convolution over it is one with a 1x1 filter, and so is its weights' gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit import _core
from convkit._core import conv2d, conv2d_weight
from convkit.problem import Problem

__all__ = ["Columns"]


class Columns:
    """Makes columns and keeps them for a second product; the memory is used again by the next pass of the same sizes.

    In NCHW the columns of a pass are an image of C * KH * KW channels, taps inside of channels as weights have them; in
    NHWC channels are inside of taps, so that both are written in runs as long as the input has them. The problem's
    layout, which is that of the memory, decides; arrays come and go in the layout of the caller's arguments.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
        What the dimensions of `x`, `y` and `dy` mean.
    """

    def __init__(self, layout: str) -> None:
        self._layout = layout
        self._sizes: Problem | None = None
        self._matrix: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return 0 if self._matrix is None else int(self._matrix.nbytes)

    def holds(self, p: Problem) -> bool:
        """Whether the memory is that of a problem of these sizes."""
        return self._sizes == p

    @staticmethod
    def refusal(p: Problem, workspace_limit: int | None) -> str:
        """Why there are no columns for a problem; empty if there are."""
        if p.kh == p.kw == p.stride_h == p.stride_w == 1 and not (
            p.pad_top or p.pad_bottom or p.pad_left or p.pad_right
        ):
            return "they would be its input"
        nbytes = p.n * p.oh * p.ow * p.c * p.kh * p.kw * p.itemsize
        limit = _core.workspace_limit() if workspace_limit is None else workspace_limit
        return f"they need {nbytes} bytes, more than workspace_limit={limit}" if nbytes > limit else ""

    def forward(self, x: Any, w: Any, bias: Any, p: Problem, limits: dict[str, Any]) -> Any:
        """Fill the columns of `x` and convolve."""
        single = x.ndim == 3
        self._fill(_reordered(x[None] if single else x, self._layout, p.layout), p)
        y = conv2d(self._as_image(p), _as_points(w, p), bias, groups=p.groups, layout=p.layout, **limits)
        y = _reordered(y, p.layout, self._layout)
        return y[0] if single else y

    def weight_gradient(self, dy: Any, p: Problem, limits: dict[str, Any]) -> Any:
        """The weights' gradient over the columns of the last `forward`."""
        gradient = _reordered(dy[None] if dy.ndim == 3 else dy, self._layout, p.layout)
        size = (p.o, p.c // p.groups * p.kh * p.kw, 1, 1)
        dw = conv2d_weight(self._as_image(p), size, gradient, groups=p.groups, layout=p.layout, **limits)
        if p.layout == "NCHW":
            return dw.reshape(p.w_shape)
        return dw.reshape(p.o, p.kh, p.kw, p.c // p.groups).transpose(0, 3, 1, 2)

    def _as_image(self, p: Problem) -> Any:
        channels = p.c * p.kh * p.kw
        shape = (p.n, channels, p.oh, p.ow) if p.layout == "NCHW" else (p.n, p.oh, p.ow, channels)
        return self._matrix.reshape(shape)

    def _fill(self, x: Any, p: Problem) -> None:
        nchw, per_group = p.layout == "NCHW", p.c // p.groups
        if self._sizes != p:
            shape = (p.n, p.c, p.kh, p.kw, p.oh, p.ow)
            # Zeros stay where padding is: no pass writes them again.
            self._matrix = np.zeros(shape if nchw else (p.n, p.oh, p.ow, p.groups, p.kh, p.kw, per_group), p.dtype)
            self._sizes = p
        if not nchw:
            x = x.reshape(p.n, p.h, p.w, p.groups, per_group)
        for i in range(p.kh):
            rows, from_rows = _reach(p.oh, p.h, p.stride_h, i * p.dilation_h - p.pad_top)
            for j in range(p.kw):
                places, from_places = _reach(p.ow, p.w, p.stride_w, j * p.dilation_w - p.pad_left)
                if nchw:
                    self._matrix[:, :, i, j, rows, places] = x[:, :, from_rows, from_places]
                else:
                    self._matrix[:, rows, places, :, i, j] = x[:, from_rows, from_places]


def _reordered(images: Any, given: str, wanted: str) -> Any:
    """The same images with their dimensions in another layout's order: a view."""
    if given == wanted:
        return images
    return images.transpose(0, 2, 3, 1) if wanted == "NHWC" else images.transpose(0, 3, 1, 2)


def _as_points(w: Any, p: Problem) -> Any:
    """Weights as those of a 1x1 filter, in the order of the columns."""
    ordered = w if p.layout == "NCHW" else w.transpose(0, 2, 3, 1)
    return ordered.reshape(p.o, -1, 1, 1)


def _reach(outputs: int, inputs: int, stride: int, first: int) -> tuple[slice, slice]:
    """Outputs whose input under a tap lies inside, and those inputs; the first output's is at `first`."""
    begin = max(0, -(first // stride))
    end = max(begin, min(outputs, (inputs - 1 - first) // stride + 1))
    start = begin * stride + first
    return slice(begin, end), slice(start, start + (end - begin) * stride, stride)

"""Matrix products: by convkit if one is a constant, by NumPy's BLAS if not."""

from __future__ import annotations

from typing import Any

import numpy as np

import convkit as ck
from convkit.onnx.call import Call, Compute, implements
from convkit.onnx.kernels.constants import Made
from convkit.onnx.kernels.memory import is_float

__all__: list[str] = []


class _Rows:
    """Rows times a constant matrix as a pointwise convolution: packed once, on convkit's threads."""

    def __init__(self, call: Call) -> None:
        self._options: Any = {"num_threads": call.threads, "memory": call.memory, "copy": False, "layout": "NHWC"}
        self._layer = Made()

    def __call__(self, x: Any, matrix: Any, bias: Any = None) -> Any:
        layer = self._layer((matrix, bias), (), lambda: ck.Conv2d(matrix.T[:, :, None, None], bias, **self._options))
        y: Any = layer(x.reshape(1, 1, -1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], matrix.shape[1])


@implements("MatMul")
def matmul(call: Call) -> Compute:
    """MatMul; by convkit if the second matrix is a constant."""
    rows = _Rows(call) if 1 in call.constants else None

    def compute(a: Any, b: Any) -> Any:
        if not is_float(a, b):
            return NotImplemented
        if rows is not None and a.ndim > 1 and b.ndim == 2 and a.size and b.size and a.shape[-1] == b.shape[0]:
            return rows(a, b)
        return np.asarray(np.matmul(a, b))

    return compute


@implements("Gemm")
def gemm(call: Call) -> Compute:
    """Gemm: alpha * A' B' + beta * C; by convkit if B is a constant, and C a constant row."""
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    rows = _Rows(call) if 1 in call.constants and alpha == 1 and not call.get("transA", 0) else None
    matrix = call.constants[1].T if rows is not None and call.get("transB", 0) else call.constants.get(1)
    row = call.constants.get(2)
    row = row.reshape(-1) if row is not None and matrix is not None and row.size == matrix.shape[-1] else None

    def compute(a: Any, b: Any, c: Any = None) -> Any:
        if not is_float(a, b, *(() if c is None else (c,))):
            return NotImplemented
        bias = row if c is not None and beta == 1 else None
        if rows and matrix is not None and a.size and b.size and a.ndim == 2 and a.shape[1] == matrix.shape[0]:
            y = rows(a, matrix, bias)
        else:
            bias, y = None, np.matmul(a.T if call.get("transA", 0) else a, b.T if call.get("transB", 0) else b)
        if alpha != 1:
            y *= a.dtype.type(alpha)
        if c is not None and bias is None and beta != 0:
            y += c if beta == 1 else c * a.dtype.type(beta)
        return y

    return compute

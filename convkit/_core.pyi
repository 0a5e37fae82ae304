"""The compiled core: see src/cpp/bindings."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Array: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
_ArrayLike: TypeAlias = Any  # an array, or an object with __dlpack__
_Pair: TypeAlias = int | tuple[int, int]
_Padding: TypeAlias = (
    _Pair | tuple[tuple[int, int], tuple[int, int]] | Literal["valid", "same", "same_upper", "same_lower"]
)
_Activation: TypeAlias = (
    Literal["relu", "relu6", "silu", "hardswish", "sigmoid", "tanh"]
    | tuple[Literal["clip"], float | None, float | None]
    | tuple[Literal["leaky_relu"], float]
    | None
)
_Layout: TypeAlias = Literal["NCHW", "NHWC"]

Problem: TypeAlias = tuple[int, ...]
Settle: TypeAlias = Callable[[float], object]
Chosen: TypeAlias = tuple[int, tuple[int, ...], Settle | None]
Chooser: TypeAlias = Callable[[Problem, int, Any, Any, Any], Chosen]

def conv2d(
    x: _ArrayLike,
    w: _ArrayLike,
    bias: _ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    *,
    layout: _Layout = "NCHW",
    activation: _Activation = None,
    residual: _ArrayLike | None = None,
    out: _ArrayLike | None = None,
    algorithm: Any = None,
    num_threads: int | None = None,
    accuracy: Literal["strict", "standard", "fast"] | float | None = None,
    workspace_limit: int | None = None,
) -> Any: ...
def conv2d_input(
    input_size: Sequence[int],
    weight: _ArrayLike,
    grad_output: _ArrayLike,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    *,
    layout: _Layout = "NCHW",
    out: _ArrayLike | None = None,
    algorithm: Any = None,
    num_threads: int | None = None,
    accuracy: Literal["strict", "standard", "fast"] | float | None = None,
    workspace_limit: int | None = None,
) -> Any: ...
def conv2d_weight(
    input: _ArrayLike,
    weight_size: Sequence[int],
    grad_output: _ArrayLike,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    *,
    layout: _Layout = "NCHW",
    out: _ArrayLike | None = None,
    algorithm: Any = None,
    num_threads: int | None = None,
    accuracy: Literal["strict", "standard", "fast"] | float | None = None,
    workspace_limit: int | None = None,
) -> Any: ...
def conv_transpose2d(
    x: _ArrayLike,
    w: _ArrayLike,
    bias: _ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Pair | tuple[tuple[int, int], tuple[int, int]] = 0,
    output_padding: _Pair = 0,
    groups: int = 1,
    dilation: _Pair = 1,
    *,
    layout: _Layout = "NCHW",
    activation: _Activation = None,
    residual: _ArrayLike | None = None,
    out: _ArrayLike | None = None,
    algorithm: Any = None,
    num_threads: int | None = None,
    accuracy: Literal["strict", "standard", "fast"] | float | None = None,
    workspace_limit: int | None = None,
) -> Any: ...

class Conv2d:
    def __new__(
        cls,
        w: _ArrayLike,
        bias: _ArrayLike | None = None,
        stride: _Pair = 1,
        padding: _Padding = 0,
        dilation: _Pair = 1,
        groups: int = 1,
        *,
        layout: _Layout = "NCHW",
        activation: _Activation = None,
        algorithm: Any = None,
        num_threads: int | None = None,
        accuracy: Literal["strict", "standard", "fast"] | float | None = None,
        workspace_limit: int | None = None,
    ) -> Conv2d: ...
    def __call__(self, x: _ArrayLike, out: _ArrayLike | None = None, residual: _ArrayLike | None = None) -> Any: ...
    def update(self, w: _ArrayLike, bias: _ArrayLike | None = None) -> None: ...
    def __getnewargs_ex__(self) -> tuple[tuple[_Array, _Array | None], dict[str, Any]]: ...
    @property
    def weight(self) -> Any: ...
    @property
    def bias(self) -> Any: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def packed_nbytes(self) -> int: ...

class ConvTranspose2d:
    def __new__(
        cls,
        w: _ArrayLike,
        bias: _ArrayLike | None = None,
        stride: _Pair = 1,
        padding: _Pair | tuple[tuple[int, int], tuple[int, int]] = 0,
        output_padding: _Pair = 0,
        groups: int = 1,
        dilation: _Pair = 1,
        *,
        layout: _Layout = "NCHW",
        activation: _Activation = None,
        algorithm: Any = None,
        num_threads: int | None = None,
        accuracy: Literal["strict", "standard", "fast"] | float | None = None,
        workspace_limit: int | None = None,
    ) -> ConvTranspose2d: ...
    def __call__(self, x: _ArrayLike, out: _ArrayLike | None = None, residual: _ArrayLike | None = None) -> Any: ...
    def update(self, w: _ArrayLike, bias: _ArrayLike | None = None) -> None: ...
    def __getnewargs_ex__(self) -> tuple[tuple[_Array, _Array | None], dict[str, Any]]: ...
    @property
    def weight(self) -> Any: ...
    @property
    def bias(self) -> Any: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def packed_nbytes(self) -> int: ...

class Trial:
    def __init__(
        self,
        index: int,
        parameters: Sequence[int],
        problem: Problem,
        threads: int,
        x: NDArray[Any],
        w: NDArray[Any],
        bias: NDArray[Any] | None = None,
        residual: NDArray[Any] | None = None,
        lo: float = ...,
        hi: float = ...,
        activation: str = "none",
        poison: bool = False,
    ) -> None: ...
    def run(self) -> NDArray[Any]: ...
    def time(self, repeats: int) -> float: ...
    @property
    def y(self) -> NDArray[Any]: ...

def problem_of(
    x: _ArrayLike,
    w: _ArrayLike,
    bias: _ArrayLike | None = None,
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: int = 1,
    *,
    layout: _Layout = "NCHW",
    activation: _Activation = None,
    residual: _ArrayLike | None = None,
    out: _ArrayLike | None = None,
    algorithm: Any = None,
    num_threads: int | None = None,
    accuracy: Any = None,
    workspace_limit: int | None = None,
) -> tuple[Problem, int]: ...
def as_array(object: _ArrayLike, name: str) -> _Array: ...
def transpose(
    x: _ArrayLike, axes: Sequence[int], out: _ArrayLike | None = None, num_threads: int | None = None
) -> Any: ...
def set_chooser(chooser: Chooser | None, /) -> None: ...
def set_context(token: int, /) -> None: ...
def context() -> int: ...
def context_entered() -> None: ...
def context_left() -> None: ...
def kernels() -> list[dict[str, Any]]: ...
def active_isa() -> str: ...
def usable_isas() -> list[str]: ...
def cpu() -> dict[str, Any]: ...
def applies(index: int, problem: Sequence[int]) -> bool: ...
def candidates(index: int, problem: Sequence[int], threads: int) -> list[tuple[int, ...]]: ...
def cost(index: int, problem: Sequence[int], parameters: Sequence[int], threads: int) -> dict[str, float]: ...
def packing(index: int, problem: Sequence[int], parameters: Sequence[int]) -> tuple[str, int]: ...
def workspace_bytes(index: int, problem: Sequence[int], parameters: Sequence[int], threads: int) -> int: ...
def clear_plans() -> None: ...
def plan_count() -> int: ...
def counters() -> dict[str, int]: ...
def clear_workspaces() -> None: ...
def workspace_limit() -> int: ...
def set_workspace_limit(bytes: int) -> None: ...
def default_threads() -> int: ...
def available_cpus() -> int: ...
def fma_peak(dtype: str, threads: int = 1, seconds: float = 0.1) -> float: ...
def build_info() -> dict[str, Any]: ...
def open_profile() -> int: ...
def profile_position() -> int: ...
def close_profile(
    first: int,
) -> tuple[list[tuple[str, Problem, tuple[int, ...], int, int, float, float]], int]: ...

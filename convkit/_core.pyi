"""The compiled core: see src/cpp/bindings."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from convkit.typing import (
    Accuracy,
    Activation,
    Algorithm,
    Array,
    FloatT,
    Layout,
    Memory,
    Padding,
    Pair,
    Shape,
    Sides,
    SupportsDLPack,
)

Problem: TypeAlias = tuple[int, ...]
Settle: TypeAlias = Callable[[float], object]
Chosen: TypeAlias = tuple[int, tuple[int, ...], Settle | None, bool]
# The last three are what the caller gave as algorithm, accuracy and workspace_limit, unchecked.
Chooser: TypeAlias = Callable[[Problem, int, object, object, object], Chosen]

@overload
def conv2d(
    x: NDArray[FloatT],
    w: NDArray[FloatT],
    bias: NDArray[FloatT] | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
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
def conv2d(
    x: SupportsDLPack,
    w: SupportsDLPack,
    bias: SupportsDLPack | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
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
@overload
def conv2d_input(
    input_size: Shape,
    weight: NDArray[FloatT],
    grad_output: NDArray[FloatT],
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
    out: NDArray[FloatT] | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[FloatT]: ...
@overload
def conv2d_input(
    input_size: Shape,
    weight: SupportsDLPack,
    grad_output: SupportsDLPack,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
    out: SupportsDLPack | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[Any]: ...
@overload
def conv2d_weight(
    input: NDArray[FloatT],
    weight_size: Shape,
    grad_output: NDArray[FloatT],
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
    out: NDArray[FloatT] | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[FloatT]: ...
@overload
def conv2d_weight(
    input: SupportsDLPack,
    weight_size: Shape,
    grad_output: SupportsDLPack,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
    out: SupportsDLPack | None = None,
    algorithm: Algorithm | None = None,
    num_threads: int | None = None,
    accuracy: Accuracy | None = None,
    workspace_limit: int | None = None,
) -> NDArray[Any]: ...
@overload
def conv_transpose2d(
    x: NDArray[FloatT],
    w: NDArray[FloatT],
    bias: NDArray[FloatT] | None = None,
    stride: Pair = 1,
    padding: Sides = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    *,
    layout: Layout = "NCHW",
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
def conv_transpose2d(
    x: SupportsDLPack,
    w: SupportsDLPack,
    bias: SupportsDLPack | None = None,
    stride: Pair = 1,
    padding: Sides = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    *,
    layout: Layout = "NCHW",
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

class Conv2d:
    def __new__(
        cls,
        w: SupportsDLPack,
        bias: SupportsDLPack | None = None,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        *,
        layout: Layout = "NCHW",
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
    ) -> Conv2d: ...
    @overload
    def __call__(
        self, x: NDArray[FloatT], out: NDArray[FloatT] | None = None, residual: NDArray[FloatT] | None = None
    ) -> NDArray[FloatT]: ...
    @overload
    def __call__(
        self, x: SupportsDLPack, out: SupportsDLPack | None = None, residual: SupportsDLPack | None = None
    ) -> NDArray[Any]: ...
    def joined(self, parts: Sequence[SupportsDLPack], residual: SupportsDLPack | None = None) -> NDArray[Any]: ...
    def update(
        self,
        w: SupportsDLPack,
        bias: SupportsDLPack | None = None,
        *,
        weight_scale: float | SupportsDLPack | None = None,
        scale: float | SupportsDLPack | None = None,
        shift: float | SupportsDLPack | None = None,
    ) -> None: ...
    def __getnewargs_ex__(self) -> tuple[tuple[Array, Array | None], dict[str, Any]]: ...
    @property
    def weight(self) -> Array: ...
    @property
    def bias(self) -> Array | None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def packed_nbytes(self) -> int: ...

class ConvTranspose2d:
    def __new__(
        cls,
        w: SupportsDLPack,
        bias: SupportsDLPack | None = None,
        stride: Pair = 1,
        padding: Sides = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        dilation: Pair = 1,
        *,
        layout: Layout = "NCHW",
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
    ) -> ConvTranspose2d: ...
    @overload
    def __call__(
        self, x: NDArray[FloatT], out: NDArray[FloatT] | None = None, residual: NDArray[FloatT] | None = None
    ) -> NDArray[FloatT]: ...
    @overload
    def __call__(
        self, x: SupportsDLPack, out: SupportsDLPack | None = None, residual: SupportsDLPack | None = None
    ) -> NDArray[Any]: ...
    def joined(self, parts: Sequence[SupportsDLPack], residual: SupportsDLPack | None = None) -> NDArray[Any]: ...
    def update(
        self,
        w: SupportsDLPack,
        bias: SupportsDLPack | None = None,
        *,
        weight_scale: float | SupportsDLPack | None = None,
        scale: float | SupportsDLPack | None = None,
        shift: float | SupportsDLPack | None = None,
    ) -> None: ...
    def __getnewargs_ex__(self) -> tuple[tuple[Array, Array | None], dict[str, Any]]: ...
    @property
    def weight(self) -> Array: ...
    @property
    def bias(self) -> Array | None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def packed_nbytes(self) -> int: ...

class Runner:
    def __init__(
        self,
        index: int,
        parameters: Sequence[int],
        problem: Problem,
        threads: int,
        x: Array,
        w: Array,
        bias: Array | None = None,
        residual: Array | None = None,
        lo: float = ...,
        hi: float = ...,
        activation: str = "none",
        scale: Array | None = None,
        shift: Array | None = None,
        residual_after: bool = False,
        poison: bool = False,
    ) -> None: ...
    def run(self) -> Array: ...
    def time(self, repeats: int) -> float: ...
    @property
    def y(self) -> Array: ...

def problem_of(
    x: SupportsDLPack,
    w: SupportsDLPack,
    bias: SupportsDLPack | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    layout: Layout = "NCHW",
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
) -> tuple[Problem, int]: ...
@overload
def as_array(object: NDArray[FloatT], name: str) -> NDArray[FloatT]: ...
@overload
def as_array(object: SupportsDLPack, name: str) -> NDArray[Any]: ...
@overload
def transpose(
    x: NDArray[FloatT], axes: Shape, out: NDArray[FloatT] | None = None, num_threads: int | None = None
) -> NDArray[FloatT]: ...
@overload
def transpose(
    x: SupportsDLPack, axes: Shape, out: SupportsDLPack | None = None, num_threads: int | None = None
) -> NDArray[Any]: ...
def empty(shape: Sequence[int], dtype: Any) -> NDArray[Any]: ...
def entries_stand(dicts: list[Any], keys: list[Any], values: list[Any]) -> bool: ...
def dict_versions(dicts: list[Any]) -> bytes: ...
def types_stand(objects: list[Any], types: list[type]) -> bool: ...
def answers(function: Callable[[Any], int], objects: list[Any]) -> bytes: ...
def prefetch(addresses: bytes) -> None: ...

class Elements:
    def __init__(self, arrays: list[NDArray[Any]]) -> None: ...
    def stand(self) -> bool: ...

def join(parts: Sequence[NDArray[FloatT]], num_threads: int | None = None) -> NDArray[FloatT]: ...
def pool(
    x: NDArray[FloatT],
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
    before: Pair,
    size: Pair,
    row_factors: NDArray[FloatT] | None = None,
    column_factors: NDArray[FloatT] | None = None,
    num_threads: int | None = None,
) -> NDArray[FloatT]: ...
def pool_gradient(
    dy: NDArray[FloatT],
    x: NDArray[FloatT],
    y: NDArray[FloatT],
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
    before: Pair,
    num_threads: int | None = None,
) -> NDArray[FloatT]: ...
def resample(
    x: NDArray[FloatT],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    rows_above: NDArray[np.int64] | None = None,
    columns_above: NDArray[np.int64] | None = None,
    row_weights: NDArray[FloatT] | None = None,
    column_weights: NDArray[FloatT] | None = None,
    num_threads: int | None = None,
) -> NDArray[FloatT]: ...
def moments(x: NDArray[FloatT], variance: bool = False, num_threads: int | None = None) -> Any: ...
def scale_shift(
    x: NDArray[FloatT],
    scale: NDArray[FloatT] | None = None,
    shift: NDArray[FloatT] | None = None,
    residual: NDArray[FloatT] | None = None,
    activation: Activation | None = None,
    in_place: bool = False,
    num_threads: int | None = None,
) -> NDArray[FloatT]: ...
def gradient_sums(
    dy: NDArray[FloatT],
    x: NDArray[FloatT],
    centre: NDArray[FloatT] | None = None,
    scale: NDArray[FloatT] | None = None,
    shift: NDArray[FloatT] | None = None,
    activation: Activation | None = None,
    num_threads: int | None = None,
) -> tuple[NDArray[FloatT], NDArray[FloatT]]: ...
def scale_gradient(
    dy: NDArray[FloatT],
    x: NDArray[FloatT],
    dy_factor: NDArray[FloatT] | None = None,
    x_factor: NDArray[FloatT] | None = None,
    summand: NDArray[FloatT] | None = None,
    scale: NDArray[FloatT] | None = None,
    shift: NDArray[FloatT] | None = None,
    activation: Activation | None = None,
    in_place: bool = False,
    num_threads: int | None = None,
) -> NDArray[FloatT]: ...
def softmax(x: NDArray[FloatT], num_threads: int | None = None) -> NDArray[FloatT]: ...
def layer_norm(
    x: NDArray[FloatT],
    weight: NDArray[FloatT] | None = None,
    bias: NDArray[FloatT] | None = None,
    epsilon: float = 1e-5,
    num_threads: int | None = None,
) -> NDArray[FloatT]: ...
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
def thread_runtime() -> str: ...
def group_limits(root: str = "") -> dict[str, Any]: ...
def fma_peak(dtype: str, threads: int = 1, seconds: float = 0.1) -> float: ...
def handover(threads: int) -> float: ...
def leave(lock: Any, *raised: object) -> None: ...
def build_info() -> dict[str, Any]: ...
def open_profile() -> int: ...
def profile_position() -> int: ...
def close_profile(
    first: int,
) -> tuple[list[tuple[str, Problem, tuple[int, ...], int, int, float, float]], int]: ...

class _Filters:
    """The submodule `filters`: filters of stacks of images, for convkit.ndimage."""

    @staticmethod
    def correlate(
        image: NDArray[Any],
        weights: NDArray[Any],
        out: NDArray[Any],
        *,
        row_mode: str,
        column_mode: str,
        cval: float,
        origin: tuple[int, int],
        threads: int | None = None,
        isa: str | None = None,
        exact: bool = True,
    ) -> None: ...
    @staticmethod
    def separable(
        image: NDArray[Any],
        column_taps: NDArray[Any],
        row_taps: NDArray[Any],
        out: NDArray[Any],
        *,
        row_mode: str,
        column_mode: str,
        cval: float,
        origin: tuple[int, int],
        threads: int | None = None,
        isa: str | None = None,
        rounded: bool = False,
    ) -> None: ...
    @staticmethod
    def uniform(
        image: NDArray[Any],
        column_size: int,
        row_size: int,
        out: NDArray[Any],
        *,
        row_mode: str,
        column_mode: str,
        cval: float,
        origin: tuple[int, int],
        threads: int | None = None,
        isa: str | None = None,
        rounded: bool = True,
    ) -> None: ...

filters: _Filters

"""convkit for ONNX models: ONNX Runtime's calls, on NumPy."""

from __future__ import annotations

try:
    import onnx as _onnx  # noqa: F401
    import onnx_ir as _onnx_ir  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name not in ("onnx", "onnx_ir"):
        raise
    from convkit.distribution import install_line

    raise ImportError(f"convkit.onnx needs onnx and onnx-ir: {install_line('onnx')}") from None

from convkit.onnx.errors import ModelError
from convkit.onnx.evaluating import ops
from convkit.onnx.options import (
    ExecutionMode,
    GraphOptimizationLevel,
    ModelMetadata,
    NodeArg,
    RunOptions,
    SessionOptions,
    get_available_providers,
    get_device,
)
from convkit.onnx.profile import Profile
from convkit.onnx.session import InferenceSession

__all__ = [
    "ExecutionMode",
    "GraphOptimizationLevel",
    "InferenceSession",
    "ModelError",
    "ModelMetadata",
    "NodeArg",
    "Profile",
    "RunOptions",
    "SessionOptions",
    "get_available_providers",
    "get_device",
    "ops",
]

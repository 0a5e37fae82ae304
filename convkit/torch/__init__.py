"""convkit in PyTorch: models on the CPU, faster by one line."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "torch":
        raise
    from convkit.distribution import install_line

    raise ImportError(f"convkit.torch needs PyTorch: {install_line('torch')}") from None

from convkit.torch import ops as _ops  # noqa: F401 - registers the operators
from convkit.torch.compiling import backend
from convkit.torch.enabling import disable, enable, enabled
from convkit.torch.optimizing import optimize, refresh

__all__ = ["backend", "disable", "enable", "enabled", "optimize", "refresh"]

"""Fast 2-D convolution for NumPy arrays on x86-64 servers, with kernels chosen by measurement.

>>> import numpy as np
>>> import convkit as ck
>>> x = np.ones((1, 3, 8, 8), dtype=np.float32)
>>> w = np.ones((4, 3, 3, 3), dtype=np.float32)
>>> ck.conv2d(x, w, padding=1).shape
(1, 4, 8, 8)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.implementation.name != "cpython":
    raise ImportError(f"convkit needs CPython: its compiled core cannot be loaded by {sys.implementation.name}")

try:
    from convkit import _core
except ImportError as _error:
    if _error.name != __name__:
        raise  # the core is there, and says itself why it cannot be loaded
    raise ImportError(
        "convkit's compiled core cannot be found. In a checkout, run `pip install -e .` first, or start Python "
        f"outside of the source tree so that the installed package is found. ({_error})"
    ) from _error

from convkit import grad
from convkit.functional import (
    Conv2d,
    ConvTranspose2d,
    clear_workspaces,
    conv2d,
    conv_transpose2d,
    explain,
    nchw_to_nhwc,
    nhwc_to_nchw,
    transpose,
)
from convkit.tuner.process import planning as _planning

if TYPE_CHECKING:
    from convkit import networks, reference
    from convkit.best_of import BestOf
    from convkit.config import show_config
    from convkit.profiling import profile
    from convkit.signals import Conv1d, conv1d, conv_transpose1d
    from convkit.training import TrainingConv2d
    from convkit.tuner import NotMeasuredError, UnsupportedAlgorithmError, reload, tuning
    from convkit.volumes import conv3d

__version__: str = _core.build_info()["version"]

__all__ = [
    "BestOf",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "NotMeasuredError",
    "TrainingConv2d",
    "UnsupportedAlgorithmError",
    "__version__",
    "clear_workspaces",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "explain",
    "grad",
    "nchw_to_nhwc",
    "networks",
    "nhwc_to_nchw",
    "profile",
    "reference",
    "reload",
    "show_config",
    "transpose",
    "tuning",
]

# Imported when they are first needed: importing the package costs next to nothing beside importing NumPy.
_HOMES = {
    "BestOf": "best_of",
    "Conv1d": "signals",
    "NotMeasuredError": "tuner",
    "TrainingConv2d": "training",
    "UnsupportedAlgorithmError": "tuner",
    "conv1d": "signals",
    "conv3d": "volumes",
    "conv_transpose1d": "signals",
    "networks": "",
    "profile": "profiling",
    "reference": "",
    "reload": "tuner",
    "show_config": "config",
    "tuning": "tuner",
}


if not TYPE_CHECKING:  # a type checker knows every name there is

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with _planning:
            from importlib import import_module

            value = getattr(import_module(f"{__name__}.{home}"), name) if home else import_module(f"{__name__}.{name}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

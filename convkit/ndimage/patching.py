"""SciPy's own names, computed by convkit: for programs that one does not own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from operator import index
from types import ModuleType
from typing import Any

import numpy as np

from convkit.ndimage import correlation, derivatives, smoothing
from convkit.ndimage.arguments import supported
from convkit.tuner.process import planning

__all__ = ["NAMES", "patch_scipy", "unpatch_scipy"]

_OURS: dict[str, Callable[..., Any]] = {
    name: getattr(module, name)
    for module, names in (
        (correlation, ("convolve", "convolve1d", "correlate", "correlate1d")),
        (derivatives, ("gaussian_gradient_magnitude", "gaussian_laplace", "laplace", "prewitt", "sobel")),
        (smoothing, ("gaussian_filter", "gaussian_filter1d", "uniform_filter", "uniform_filter1d")),
    )
    for name in names
}

NAMES = tuple(sorted(_OURS))
"""What is patched."""


# Changed under the planning lock, for which a fork waits: a child has all of SciPy's functions or none of them.
_holders = 0
_least = 0
_scipy_s: dict[str, Callable[..., Any]] = {}
_wrappers: dict[str, Callable[..., Any]] = {}


def patch_scipy(*, least_elements: int = 4096) -> None:
    """Let `scipy.ndimage`'s filters be computed by convkit in the whole process, until `unpatch_scipy`.

    The names in the module are replaced: a program that has taken a function out of it before (``from scipy.ndimage
    import gaussian_filter``) keeps SciPy's. Calls that convkit does not take go on to SciPy's functions, with its
    results and errors: smaller arrays than `least_elements`, element types that are not supported, arrays of other
    libraries, arguments that are wrong.

    Each call asks for one of `unpatch_scipy`.

    Parameters
    ----------
    least_elements : int
        Arrays with fewer elements are left to SciPy. The first call decides for all that are nested in it.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    ValueError
        If `least_elements` is negative.
    """
    global _holders, _least
    least = index(least_elements)
    if least < 0:
        raise ValueError(f"least_elements must be 0 or more, not {least}")
    module = _scipy_ndimage()
    with planning:
        if not _holders:
            _least = least
            for name, ours in _OURS.items():
                theirs = getattr(module, name)
                if theirs is _wrappers.get(name):  # Ctrl-C came before the end, last time
                    continue
                _scipy_s[name] = theirs
                _wrappers[name] = _either(name, ours, theirs)
                setattr(module, name, _wrappers[name])
        _holders += 1


def unpatch_scipy() -> None:
    """Undo a `patch_scipy`; the last of several brings SciPy's functions back.

    A name that somebody else has replaced meanwhile stays as it is.
    """
    global _holders
    with planning:
        if _holders == 1:
            module = _scipy_ndimage()
            for name, wrapper in _wrappers.items():
                if getattr(module, name) is wrapper:
                    setattr(module, name, _scipy_s[name])
        _holders = max(_holders - 1, 0)


def _scipy_ndimage() -> ModuleType:
    try:
        import scipy.ndimage as module
    except ModuleNotFoundError as error:
        if error.name not in ("scipy", "scipy.ndimage"):
            raise
        raise ImportError("patch_scipy needs SciPy, which is not installed: pip install scipy") from None
    return module  # type: ignore[no-any-return]


def _either(name: str, ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """SciPy's function with convkit's results where convkit takes the call."""

    @wraps(theirs)
    def either(*args: Any, **kwargs: Any) -> Any:
        if _taken(name, args[0] if args else kwargs.get("input"), kwargs.get("axes")):
            try:
                return ours(*args, **kwargs)
            except (TypeError, ValueError, RuntimeError, OverflowError):
                pass  # SciPy computes it, or says in its own words what is wrong; nothing has been written yet
        return theirs(*args, **kwargs)

    return either


def _taken(name: str, input: object, axes: Any) -> bool:
    """True if convkit computes the call: not if it costs more than the work, or if SciPy means something else by it."""
    if type(input) is not np.ndarray or input.size < _least or not supported(input.dtype):
        return False
    if axes is None or np.ndim(axes) == 0:
        return axes is None or name != "gaussian_gradient_magnitude"
    # SciPy 1.17 smooths along all axes there, and gives origins to all axes in ascending order here: docs/ndimage.md.
    if name == "gaussian_gradient_magnitude":
        return False
    return name not in ("convolve", "correlate") or len(axes) < input.ndim or list(axes) == sorted(axes)

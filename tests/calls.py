"""A call of the public functions held against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import convkit as ck
from convkit import reference

Array = NDArray[Any]


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    """Normal data, the same each time."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def expected(x: Array, w: Array, bias: Array | None = None, **keywords: Any) -> tuple[Array, Array]:
    """The oracle's answer, and the error that each element may have under any accuracy."""
    known = (
        "stride",
        "padding",
        "dilation",
        "groups",
        "layout",
        "activation",
        "residual",
        "scale",
        "shift",
        "residual_after",
    )
    chosen = {name: keywords[name] for name in known if name in keywords}
    exact = reference.conv2d(x, w, bias, **chosen)
    chosen.pop("activation", None)
    for name in ("residual", "scale", "shift"):
        if chosen.get(name) is not None:
            chosen[name] = np.abs(chosen[name])
    if chosen.get("scale") is not None:
        chosen["scale"] = np.maximum(1.0, chosen["scale"])  # errors of the sums are scaled, those after it are not
    magnitude = reference.conv2d(np.abs(x), np.abs(w), None if bias is None else np.abs(bias), **chosen)
    terms = w.shape[1] * w.shape[2] * w.shape[3]
    # Kernels that transform tiles spread the error of the largest element over its neighbours.
    bound = np.finfo(x.dtype).eps * (8.0 * (4.0 + np.sqrt(terms)) * magnitude.max(initial=0.0) + 4.0)
    return exact, np.broadcast_to(bound, exact.shape)


def check(y: Array, x: Array, w: Array, bias: Array | None = None, **keywords: Any) -> None:
    """Fail unless `y` is what the oracle says, in shape, dtype and value."""
    exact, bound = expected(x, w, bias, **keywords)
    assert y.dtype == x.dtype
    assert y.shape == exact.shape
    assert np.all(np.abs(y - exact) <= bound)


def check_call(x: Array, w: Array, bias: Array | None = None, **keywords: Any) -> Array:
    """Run `conv2d` and `Conv2d` on the same arguments, hold both against the oracle and return the first's result."""
    y: Array = ck.conv2d(x, w, bias, **keywords)
    check(y, x, w, bias, **keywords)
    call = {name: keywords.pop(name) for name in ("residual", "out") if name in keywords}
    conv = ck.Conv2d(w, bias, **keywords)
    residual = call.get("residual")
    if call.get("out") is None or call["out"] is not residual:
        check(conv(x, residual=residual), x, w, bias, residual=residual, **keywords)
    return y

"""Two ways to compute the same, held against each other: a reading of somebody's code may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["compared"]

# Of the largest value: far more than fusing changes, far less than a wrong reading does.
_SAME = 1e-3


def compared(given: tuple[Any, ...], as_written: Callable[..., Any], anew: Callable[..., Any]) -> tuple[Any, bool]:
    """The value that the author's way has, and whether the new way has the same; random numbers are the author's."""
    copies, before = [value.clone() for value in given], torch.get_rng_state()
    wanted = as_written(*given)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    try:
        with torch.no_grad():
            same = _agree(anew(*copies), wanted)
    except Exception:  # whatever a wrong reading leads to
        same = False
    torch.set_rng_state(after)
    return wanted, same


def _agree(found: Any, wanted: Any) -> bool:
    """Whether two results are the same but for rounding."""
    a, b = pytree.tree_flatten(found), pytree.tree_flatten(wanted)
    return a[1] == b[1] and all(_same_leaf(*pair) for pair in zip(a[0], b[0], strict=True))


def _same_leaf(a: Any, b: Any) -> bool:
    if not isinstance(b, torch.Tensor):
        return bool(a is b or (type(a) is type(b) and a == b))
    if not isinstance(a, torch.Tensor) or (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if not b.is_floating_point():
        return bool(torch.equal(a, b))
    limit = _SAME * b.detach().nan_to_num(0.0, 0.0, 0.0).abs().max().item() if b.numel() else 0.0
    return bool(torch.allclose(a.detach(), b.detach(), rtol=0.0, atol=limit, equal_nan=True))

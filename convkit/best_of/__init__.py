"""The fastest of any callables, found out on real calls. Knows nothing of convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convkit.best_of.selector import BestOf, Pipeline

__all__ = ["BestOf", "Pipeline"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from convkit.tuner.process import planning

    # A fork while another thread imports would leave the child waiting for that thread.
    with planning:
        from convkit.best_of import selector

        return getattr(selector, name)

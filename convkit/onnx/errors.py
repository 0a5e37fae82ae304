"""What is wrong with a model, as one exception."""

from __future__ import annotations

__all__ = ["ModelError"]


class ModelError(ValueError):
    """A model that cannot be loaded or run: damaged, incomplete, hostile, or with an operator that nobody knows."""

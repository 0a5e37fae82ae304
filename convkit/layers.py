"""Convolutions that own their weights."""

from __future__ import annotations

from convkit._core import Conv2d, ConvTranspose2d

__all__ = ["Conv2d", "ConvTranspose2d"]

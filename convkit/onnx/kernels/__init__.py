"""Operators of vision models in our own code; importing the package enters them all into `convkit.onnx.call.OWN`."""

from __future__ import annotations

from convkit.onnx.kernels import convolutions, elementwise, normalization, pools, products, quantized, resize, shapes

__all__ = ["convolutions", "elementwise", "normalization", "pools", "products", "quantized", "resize", "shapes"]

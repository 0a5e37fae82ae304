"""The same network in PyTorch, with the same weights: what the trainer's results and times are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from examples.training import activations, layers, normalization, pooling
from examples.training.blocks import Concatenate, Residual, Sequential
from examples.training.layers import Layer
from examples.training.network import Network

__all__ = ["Twin"]


class Twin(nn.Module):
    """A network's twin.

    Parameters
    ----------
    network : Network
        Its weights are copied.
    same_masks : bool
        Take the masks that the network's dropouts drew last, instead of drawing.
    """

    def __init__(self, network: Network, same_masks: bool = False) -> None:
        super().__init__()
        self.network, self.same_masks = network, same_masks
        self.learned = nn.ParameterDict()
        self.statistics: dict[str, list[torch.Tensor]] = {}
        for layer, parameter in network.parameters():
            value = torch.from_numpy(parameter.value.copy())
            self.learned[f"{layer.name}-{parameter.name}"] = nn.Parameter(value)
        for layer in network.layers:
            if isinstance(layer, normalization.BatchNorm):
                self.statistics[layer.name] = [torch.from_numpy(b.copy()) for b in layer.buffers.values()]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs for images in NCHW."""
        return self._run(self.network.body, x)

    def gradients(self) -> np.ndarray[Any, Any]:
        """All gradients in the network's order."""
        return np.concatenate([p.grad.numpy().ravel() for p in self.learned.values() if p.grad is not None])

    def values(self) -> np.ndarray[Any, Any]:
        """All parameters in the network's order."""
        return np.concatenate([p.detach().numpy().ravel() for p in self.learned.values()])

    def _run(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        if isinstance(layer, Sequential):
            for inner in layer.as_written:
                x = self._run(inner, x)
            return x
        if isinstance(layer, Residual):
            return self._run(layer.body, x) + self._run(layer.shortcut, x)
        if isinstance(layer, Concatenate):
            return torch.cat([self._run(branch, x) for branch in layer.branches], dim=1)
        if isinstance(layer, layers.Dropout):
            return x * self._mask(layer) if self.same_masks else F.dropout(x, layer.share, self.training)
        return self._leaf(layer, x, [self.learned[f"{layer.name}-{p.name}"] for p in layer.parameters])

    def _leaf(self, layer: Any, x: torch.Tensor, p: list[Any]) -> torch.Tensor:
        if isinstance(layer, layers.Conv2d):
            return F.conv2d(x, p[0], p[1] if p[1:] else None, layer.stride, layer.padding, 1, layer.groups)
        if isinstance(layer, layers.ConvTranspose2d):
            (top, bottom), (left, right) = layer.padding
            full = F.conv_transpose2d(x, p[0], p[1], layer.stride)
            return full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]
        if isinstance(layer, layers.Dense):
            return F.linear(x, *p)
        if isinstance(layer, normalization.BatchNorm):
            mean, variance = self.statistics[layer.name]
            return F.batch_norm(x, mean, variance, *p, self.training, layer.momentum, layer.eps)
        if isinstance(layer, pooling.MaxPool):
            return F.max_pool2d(x, layer.size, layer.stride, layer.padding, ceil_mode=layer.ceil)
        if isinstance(layer, pooling.AveragePool):
            return F.avg_pool2d(x, layer.size, layer.stride, layer.padding)
        return _SIMPLE[type(layer)](layer, x)

    def _mask(self, layer: layers.Dropout) -> torch.Tensor:
        mask = layer.mask
        if mask.ndim == 4 and layer.context.layout == "NHWC":
            mask = mask.transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(mask))


_SIMPLE: dict[type[Layer], Any] = {
    layers.Flatten: lambda layer, x: x.flatten(1),
    activations.ReLU: lambda layer, x: F.relu(x),
    activations.ReLU6: lambda layer, x: F.relu6(x),
    activations.LeakyReLU: lambda layer, x: F.leaky_relu(x, layer.slope),
    activations.Sigmoid: lambda layer, x: torch.sigmoid(x),
    activations.Tanh: lambda layer, x: torch.tanh(x),
    pooling.GlobalAverage: lambda layer, x: x.mean(dim=(2, 3)),
    pooling.Upsample: lambda layer, x: F.interpolate(x, scale_factor=layer.factor, mode="nearest"),
}

"""
A PyTorch model
===============

One line swaps a model's convolutions for convkit's, with batch norms, activations and sums fused into them.
"""

import time

import torch
from torch import nn

import convkit.torch

torch.manual_seed(0)


def block(inputs, outputs, stride=1):
    """What most networks are made of."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


model = nn.Sequential(
    block(3, 32, 2), block(32, 64), block(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
)
model = model.eval()
images = torch.rand(1, 3, 96, 96)

# %%
# One line
# --------
#
# The sample input lets convkit check each fused block against the original, and measure.

fast = convkit.torch.optimize(model, images)

# %%
# The same results
# ----------------

with torch.no_grad():
    expected, found = model(images), fast(images)
print("largest difference:", float((expected - found).abs().max()))
assert torch.allclose(expected, found, atol=1e-4)

# %%
# And the time
# ------------


def milliseconds(network):
    """The best of a few runs."""
    times = []
    with torch.no_grad():
        for _ in range(20):
            begin = time.perf_counter()
            network(images)
            times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


print(f"PyTorch {milliseconds(model):.2f} ms, with convkit {milliseconds(fast):.2f} ms")

# %%
# :doc:`The page about PyTorch </torch>` has the other ways in: ``torch.compile``, and ``convkit.torch.enable()`` for
# programs that hide their models.

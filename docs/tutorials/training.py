"""
Training in NumPy
=================

A network of two convolutions learns to tell horizontal stripes from vertical ones. ``TrainingConv2d`` runs a
convolution and its gradients as one pipeline.
"""

import matplotlib.pyplot as plt
import numpy as np

import convkit as ck

rng = np.random.default_rng(0)


def batch(size=32, side=16):
    """Noisy stripes, and whether they are vertical."""
    vertical = rng.integers(0, 2, size)
    phase, period = rng.uniform(0, 6, size), rng.uniform(3, 6, size)
    wave = np.sin(2 * np.pi * np.arange(side) / period[:, None] + phase[:, None])
    images = np.where(vertical[:, None, None], wave[:, None, :], wave[:, :, None])
    noisy = images + rng.normal(0, 0.7, images.shape)
    return noisy[:, None].astype(np.float32), vertical


images, labels = batch()
figure, axes = plt.subplots(1, 4, figsize=(7, 2), layout="constrained")
for axis, image, label in zip(axes, images[:, 0], labels, strict=False):
    axis.imshow(image, cmap="gray")
    axis.set_title("vertical" if label else "horizontal")
    axis.set_axis_off()

# %%
# The network
# -----------
#
# Convolution, ReLU, convolution, the mean of each channel: two numbers for two classes.

w1 = rng.normal(0, 0.3, (8, 1, 5, 5)).astype(np.float32)
w2 = rng.normal(0, 0.1, (2, 8, 3, 3)).astype(np.float32)
first, second = ck.TrainingConv2d(padding=2, input_gradient=False), ck.TrainingConv2d(padding=1)


def step(images, labels, rate=0.5):
    """One step of gradient descent; the loss and the share of right answers."""
    hidden = first.forward(images, w1)
    active = np.maximum(hidden, 0)
    scores = second.forward(active, w2).mean(axis=(2, 3))
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    right = np.eye(2, dtype=np.float32)[labels]
    loss = -np.log((shares * right).sum(axis=1)).mean()
    pixels = hidden.shape[2] * hidden.shape[3]
    gradient = ((shares - right) / (len(labels) * pixels)).astype(np.float32)
    spread = np.ascontiguousarray(np.broadcast_to(gradient[:, :, None, None], (len(labels), 2, *hidden.shape[2:])))
    back, dw2, _ = second.backward(spread)
    _, dw1, _ = first.backward(back * (hidden > 0))
    w1[...] -= rate * dw1
    w2[...] -= rate * dw2
    return float(loss), float((scores.argmax(axis=1) == labels).mean())


# %%
# Learning
# --------

history = [step(*batch()) for _ in range(300)]
losses, rightness = zip(*history, strict=True)
print(f"loss {losses[0]:.2f} -> {np.mean(losses[-20:]):.2f}, right {np.mean(rightness[-20:]):.0%}")
assert np.mean(rightness[-20:]) > 0.9

# %%
# What the first layer has learned: stripes.

figure, axes = plt.subplots(1, 8, figsize=(7, 1.2), layout="constrained")
for axis, kernel in zip(axes, w1[:, 0], strict=True):
    axis.imshow(kernel, cmap="gray")
    axis.set_axis_off()

# %%
# Whole networks that train this way are in ``examples/training``: ``python -m examples.training --help``.

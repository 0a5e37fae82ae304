"""
A filter bank
=============

Six classic filters, one call. The filters are the output channels of a convolution; each colour of the photograph is an
image of its own.
"""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import convkit as ck

photo = plt.imread(matplotlib.get_data_path() + "/sample_data/grace_hopper.jpg").astype(np.float32) / 255
print(photo.shape, photo.dtype)

# %%
# The filters
# -----------
#
# ``conv2d`` takes weights of shape (outputs, inputs, rows, columns). Here each has one input.

blur = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
identity = np.zeros((5, 5))
identity[2, 2] = 1


def in_five(kernel):
    """A 3x3 filter in a 5x5 one."""
    return np.pad(np.asarray(kernel, float), 1)


bank = {
    "blur": blur,
    "sharpen": 2 * identity - blur,
    "Sobel x": in_five([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
    "Sobel y": in_five([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]),
    "Laplacian": in_five([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "emboss": in_five([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]),
}
weights = np.stack(list(bank.values()))[:, None].astype(np.float32)
print(weights.shape)

# %%
# One call
# --------
#
# Colours become the batch: three images of one channel. ``padding="same"`` keeps the size.

x = np.ascontiguousarray(photo.transpose(2, 0, 1)[:, None])
y = ck.conv2d(x, weights, padding="same")
print(x.shape, "->", y.shape)

# %%
# Which kernel was that? ``explain`` takes the call's own arguments.

print(ck.explain(x, weights, padding="same").choice)

# %%
# The pictures
# ------------

figure, axes = plt.subplots(2, 3, figsize=(8, 6.6), layout="constrained")
for place, (axis, name) in enumerate(zip(axes.flat, bank, strict=True)):
    picture = y[:, place].transpose(1, 2, 0)
    if name not in ("blur", "sharpen"):
        picture = 0.5 + picture.mean(axis=2) / (2 * np.quantile(np.abs(picture), 0.995))
    axis.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
    axis.set_title(name)
    axis.set_axis_off()

# %%
# The command ``convkit demo`` does the same with a photograph of yours.

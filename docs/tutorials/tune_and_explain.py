"""
Tune and explain
================

A convolution that nobody has measured runs by a prediction. Measure it once, and see what that changes.
"""

import numpy as np

import convkit as ck

rng = np.random.default_rng(0)
x = rng.standard_normal((1, 32, 15, 15), dtype=np.float32)
w = rng.standard_normal((48, 32, 3, 3), dtype=np.float32)

# %%
# Before
# ------
#
# ``explain`` asks without running anything. "model" and "neighbour" are predictions, "shipped" came with the package.

before = ck.explain(x, w, padding=1, num_threads=1)
print(before)

# %%
# Measure
# -------
#
# Within this block a call measures what it meets for the first time, for two seconds at most. On the command line,
# ``convkit tune --shapes FILE`` or ``--network NAME`` does it for many shapes.

with ck.tuning(mode="tune", budget="2s"):
    ck.conv2d(x, w, padding=1, num_threads=1)

# %%
# After
# -----
#
# Now the user's database answers. Each candidate has its measured time, its error against float64, and the reason why
# it was not chosen.

after = ck.explain(x, w, padding=1, num_threads=1)
print(after)

# %%
# What was it worth?
# ------------------

print("predicted:", before.choice.kernel)
print("measured: ", after.choice.kernel)

# %%
# For whole networks the command line says so. This one has two convolutions; ``convkit tune --network resnet50`` takes
# some minutes.

import subprocess  # noqa: E402
import sys  # noqa: E402


def convkit(*words):
    """Run a command as a terminal would."""
    print("$ convkit", *words)
    print(subprocess.run([sys.executable, "-m", "convkit", *words], capture_output=True, text=True, check=True).stdout)


convkit("tune", "--network", "mnist_cnn", "--layout", "NCHW", "--threads", "1")
convkit("report")

# %%
# ``convkit report --html FILE`` writes a page with a table to sort, a map of the winners and pictures.

"""The published training systems as small NumPy programs on `convkit.TrainingConv2d`.

``python -m examples.training --help`` lists them. Start to read at `network` and `layers`.
"""

import os

# Between convolutions NumPy works in threads of the trainer's own: OpenMP's must not wait on their CPUs in a busy loop.
# The runtime reads it when convkit loads it. docs/systems.md has figures.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

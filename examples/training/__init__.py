"""The published training systems as small NumPy programs on `convkit.TrainingConv2d`.

``python -m examples.training --help`` lists them. Start to read at `network` and `layers`.
"""

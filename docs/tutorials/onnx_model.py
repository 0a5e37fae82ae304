"""
An ONNX model
=============

``convkit.onnx`` has ONNX Runtime's calls and needs no runtime: it runs the model on NumPy.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import convkit.onnx as onnxruntime

# %%
# A small model
# -------------
#
# Usually a file that somebody exported. Here it is made on the spot: convolution, batch norm, ReLU, the mean.

rng = np.random.default_rng(0)
constants = {
    "w": rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
    "scale": np.ones(16, np.float32),
    "shift": np.zeros(16, np.float32),
    "mean": np.zeros(16, np.float32),
    "var": np.ones(16, np.float32),
}
nodes = [
    helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
    helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"]),
    helper.make_node("Relu", ["b"], ["c"]),
    helper.make_node("GlobalAveragePool", ["c"], ["y"]),
]
graph = helper.make_graph(
    nodes,
    "small",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 64, 64])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16, 1, 1])],
    [numpy_helper.from_array(value, name) for name, value in constants.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.checker.check_model(model)

# %%
# Run it
# ------

session = onnxruntime.InferenceSession(model)
x = rng.standard_normal((2, 3, 64, 64)).astype(np.float32)
(y,) = session.run(None, {"x": x})
print(y.shape)

# %%
# What became of it
# -----------------
#
# Batch norm and ReLU went into the convolution. ``describe`` prints the plan with the times of the last run.

print(session.changes)
print(session.describe())

# %%
# Is it right?
# ------------

from onnx.reference import ReferenceEvaluator  # noqa: E402

(expected,) = ReferenceEvaluator(model).run(None, {"x": x})
print("largest difference:", float(np.abs(y - expected).max()))
assert np.allclose(y, expected, atol=1e-4)

"""ONNX's own backend tests through convkit, and its evaluator with our operators."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")

from onnx import helper  # noqa: E402
from onnx.backend.test import BackendTest  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_calls import close, model, node, uniform  # noqa: E402

import convkit.onnx as door  # noqa: E402
import convkit.onnx.backend  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

with warnings.catch_warnings():  # making the cases overflows a float16 on purpose
    warnings.simplefilter("ignore")
    suite = BackendTest(convkit.onnx.backend, __name__)
suite.include("_cpu$")
# What ONNX's reference does not compute, or not as these tests want it: random numbers of another generator, operators
# that it does not have, and loops and branches whose results it wraps differently.
for pattern in (
    "bernoulli", "gradient", "test_scatter_with(out)?_axis", "test_if_opt", "test_loop16_seq_none", "test_scan_sum",
    "test_range_.*_expanded",
):  # fmt: skip
    suite.exclude(pattern)
globals().update({name: case for name, case in suite.test_cases.items() if "Real" not in name})

W = uniform(6, 8, 3, 3)


def test_a_node_and_a_prepared_model() -> None:
    x = uniform(2, 8, 9, 11)
    conv = node("Conv", "x w", "y")
    expected = door.InferenceSession(model([conv], {"w": W})).run(None, {"x": x})
    close(convkit.onnx.backend.run_node(conv, [x, W]), expected)
    close(convkit.onnx.backend.run_model(model([conv], {"w": W}), x), expected)
    assert convkit.onnx.backend.supports_device("CPU:0")
    assert not convkit.onnx.backend.supports_device("CUDA")
    with pytest.raises(ValueError, match="device must be CPU, not CUDA"):
        convkit.onnx.backend.prepare(model([conv], {"w": W}), "CUDA")


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_the_evaluator_of_onnx_takes_our_operators(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (7, 6, 5)[: rank - 2]
    nodes = [
        node("Conv", "x w", "c", pads=[1] * (2 * rank - 4)),
        node("BatchNormalization", "c a b m v", "n"),
        node("HardSwish", "n", "h"),
        node("MaxPool", "h", "y", kernel_shape=[2] * (rank - 2)),
    ]
    moments = dict(
        zip("abmv", (uniform(6), uniform(6, seed=1), uniform(6, seed=2), uniform(6, seed=3) ** 2), strict=True)
    )
    proto = model(nodes, {"w": uniform(6, 8, *(3,) * (rank - 2)), **moments}, shape=(2, 8, *sizes))
    x = uniform(2, 8, *sizes)
    monkeypatch.setattr("onnx.reference.ops.op_conv.Conv._run", lambda *_, **__: pytest.fail("not ours"))
    found = ReferenceEvaluator(proto, new_ops=door.ops()).run(None, {"x": x})
    close(found, door.InferenceSession(proto).run(None, {"x": x}))


def test_other_types_and_local_functions_in_the_evaluator() -> None:
    body = [node("Conv", "a w", "b")]
    link = body[0].attribute.add()
    link.name, link.ref_attr_name, link.type = "dilations", "distance", onnx.AttributeProto.INTS
    versions = [helper.make_opsetid("", 17)]
    function = helper.make_function("here", "Spread", ["a", "w"], ["b"], body, versions, ["distance"])
    proto = model([helper.make_node("Spread", ["x", "w"], ["y"], domain="here", distance=[2, 1])], {"w": W})
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("here", 1))
    x = uniform(2, 8, 9, 11)
    direct = model([node("Conv", "x w", "y", dilations=[2, 1])], {"w": W})
    expected = door.InferenceSession(direct).run(None, {"x": x})
    inner = ReferenceEvaluator(function, new_ops=door.ops())
    close(inner.run(None, {"a": x, "w": W}, attributes={"distance": [2, 1]}), expected)
    close(ReferenceEvaluator(proto, new_ops=door.ops()).run(None, {"x": x}), expected)
    close(door.InferenceSession(proto).run(None, {"x": x}), expected)
    half = model(
        [node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=[2, 2])], inputs={"x": (np.float16, x.shape)}
    )
    (found,) = ReferenceEvaluator(half, new_ops=door.ops()).run(None, {"x": x.astype(np.float16)})
    assert found.dtype == np.float16


def test_every_class_is_an_operator_of_onnx() -> None:
    names: list[Any] = [cls.__name__ for cls in door.ops()]
    assert len(names) == len(set(names)) > 40
    assert all(onnx.defs.has(name) for name in names)

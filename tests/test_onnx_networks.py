"""Whole networks: what rules leave of them, and the same results as ONNX Runtime's."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from onnx_calls import close, ops, runtime, uniform

import convkit.onnx as door
from convkit.onnx.networks import NETWORKS, network

# Operators that are left beside convolutions.
LEFT = {
    "vgg19": {"MaxPool", "GlobalAveragePool", "Flatten", "Gemm", "Identity"},
    "resnet50": {"MaxPool", "GlobalAveragePool", "Flatten", "Gemm", "Identity"},
    "mobilenet_v2": {"GlobalAveragePool", "Flatten", "Gemm", "Identity"},
    "squeezenet": {"MaxPool", "JoinedConv", "Concat", "GlobalAveragePool", "Flatten", "Identity"},
    "unet": {"MaxPool", "Concat", "Resize", "Identity"},
    "esrgan": {"Concat", "Resize", "Add", "Identity"},
    "yolov8n": {"MaxPool", "JoinedConv", "Resize", "Identity"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_results_are_onnx_runtimes(name: str) -> None:
    size = 32 if name == "esrgan" else 64
    proto = network(name, size, 2 * size)
    session = door.InferenceSession(proto)
    assert set(ops(session)) - {"Conv", "FusedConv"} == LEFT[name]
    x = (uniform(1, 3, size, 2 * size) + 1) / 2
    expected = runtime(proto, {"x": x})
    for _ in range(2):
        close(session.run(None, {"x": x}), expected, 1e-4)


def test_a_network_that_nobody_has() -> None:
    with pytest.raises(ValueError, match="no network 'vgg'; there are vgg19"):
        network("vgg")

"""Other libraries as contestants: each computes what convkit computes, or says that it cannot do a layer."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from convkit.contest.contestants import Operands, installed, peer
from convkit.contest.training import Pass, torch_pass
from convkit.contest.turns import relative_error
from convkit.problem import Problem

LAYER = Problem(
    n=2, c=8, h=9, w=10, o=12, kh=3, kw=3, pad_top=1, pad_bottom=1, pad_left=1, pad_right=1, bias=True, epilogue="clamp"
)
LAYERS = {
    "packed": LAYER.replace(packed=True),
    "cold": LAYER.replace(layout="NHWC"),
    "plain": LAYER.replace(bias=False, epilogue="none"),
    "strided": LAYER.replace(stride_h=2, stride_w=2),
    "grouped": LAYER.replace(groups=4, packed=True),
    "depthwise": LAYER.replace(o=8, groups=8),
}


def check(contestant: Any, exact: Any) -> None:
    """A contestant computes the layer; more than once."""
    for _ in range(2):
        largest, rms = relative_error(contestant.result(contestant.call()), exact)
        assert 0 < rms <= largest < 1e-5


@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino", "ncnn"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers(name: str, layer: str) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    operands = Operands(LAYERS[layer])
    contestant = peer(name, operands, 1)
    assert contestant is not None
    check(contestant, operands.exact())


@pytest.mark.parametrize("op", ["input_grad", "weight_grad"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradients_are_pytorch_s_only(op: str, layout: str) -> None:
    operands = Operands(LAYERS["plain"].of_op(op).replace(layout=layout))
    contestant = peer("torch", operands, 1)
    assert contestant is not None
    check(contestant, operands.exact())
    for name in ("onnxruntime", "openvino", "ncnn"):
        assert not installed(name) or peer(name, operands, 1) is None


def test_what_a_library_cannot_do() -> None:
    aside = LAYERS["plain"].replace(pad_left=2)
    assert peer("torch", Operands(aside), 1) is None
    assert torch_pass(Pass(aside), 1) is None
    for name in ("onnxruntime", "openvino", "ncnn"):
        assert not installed(name) or peer(name, Operands(LAYERS["plain"].replace(dtype="float64")), 1) is None


@pytest.mark.parametrize("layer", ["plain", "strided", "grouped"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_pass_of_training(layer: str, layout: str) -> None:
    work = Pass(LAYERS[layer].replace(layout=layout, epilogue="none", packed=False))
    contestant = torch_pass(work, 1)
    assert contestant is not None
    check(contestant, work.exact())

"""What a user's strictly typed program may say: checked by mypy, never run. Each ignored error must be one."""

from __future__ import annotations

from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import convkit as ck
from convkit import ndimage
from convkit.typing import Layout, SupportsDLPack

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def calls(x: F32, w: F32, bias: F32, wide: F64, foreign: SupportsDLPack) -> None:
    assert_type(ck.conv2d(x, w), F32)
    assert_type(ck.conv2d(x, w, bias, (2, 1), ((0, 1), (1, 0)), [1, 1], layout="NHWC", activation="relu", out=x), F32)
    assert_type(ck.conv2d(wide, wide, padding="same", activation=("clip", 0, None), accuracy=1e-6), F64)
    assert_type(ck.conv_transpose2d(x, w, stride=np.int64(2), output_padding=1), F32)
    assert_type(ck.grad.conv2d_input(x.shape, w, x), F32)
    assert_type(ck.grad.conv2d_weight(wide, wide.shape, wide), F64)
    assert_type(ck.grad.conv2d_bias(x, "NHWC"), F32)
    assert_type(ck.conv1d(x, w, bias, [2], ((1, 0),), layout="NWC", activation="relu"), F32)
    assert_type(ck.conv_transpose1d(wide, wide, stride=2), F64)
    assert_type(ck.conv3d(x, w, padding=(0, 1, 1), accuracy="strict"), F32)
    assert_type(ck.transpose(x, (0, 2, 3, 1)), F32)
    assert_type(ck.nchw_to_nhwc(wide), F64)
    ck.conv2d(foreign, w).reshape(-1)
    ck.conv2d([[1.0]], w)  # type: ignore[call-overload]
    ck.conv2d(x, w, activation="softplus")  # type: ignore[call-overload]
    ck.conv1d(x, w, layout="NCHW")  # type: ignore[call-overload]
    ck.conv2d(x, w, layout="CHWN")  # type: ignore[call-overload]
    ck.conv2d(x, w, padding="full")  # type: ignore[arg-type]
    ck.conv_transpose2d(x, w, padding="same")  # type: ignore[arg-type]
    ck.convolve(x, w)  # type: ignore[attr-defined]


def layers(x: F32, w: F32, layout: Layout) -> F32:
    conv = ck.Conv2d(w, padding=1, layout=layout, activation=("leaky_relu", 0.1), num_threads=2)
    up = ck.ConvTranspose2d(w, stride=2)
    assert_type(ck.Conv1d(w, padding="same", dilation=2)(x), F32)
    plan = ck.TrainingConv2d(padding=1, algorithm=("winograd4", None, "direct"), accuracy="fast")
    y = plan.forward(x, w)
    assert_type(y, F32)
    dx, dw, db = plan.backward(y)
    if dx is not None and db is None:
        print(dx.shape, dw.shape)
    y, step = plan.begin(x, w)
    assert_type(y, F32)
    step.backward(y, retain=True)
    conv.update(w, scale=0.5)
    conv.joined((x, x), residual=y)
    conv.joined((x,), out=y)  # type: ignore[call-arg]
    conv = ck.Conv2d(w, weight_scale=w[:, 0, 0, 0], copy=False, memory="low", shift=1, residual_after=True)
    ck.Conv2d(w, memory="tiny")  # type: ignore[arg-type]
    return up(conv(x, residual=x))


def tuner(x: F32, w: F32) -> None:
    with ck.tuning(mode="tune", budget="30s", accuracy="strict"), ck.profile() as p:
        ck.conv2d(x, w, algorithm=ck.explain(x.shape, w.shape, bias=True, dtype=np.float32).choice)
    explanation = ck.explain(x, w, op="input_grad", accuracy=0.5)
    assert_type(explanation.choice.kernel, str)
    assert_type([row.seconds for row in explanation.rows], list[float])
    assert_type(p.records[0].problem.flops, int)
    ck.tuning(mode="fastest")  # type: ignore[arg-type]
    ck.explain(x, w, op="backward")  # type: ignore[arg-type]


def rest(x: F32) -> None:
    best = ck.BestOf("sums", [("numpy", np.sum), ("python", sum)], store=True)
    print(best(x), best.settled(x), best.report().problems[0].lost)
    layer = ck.networks.get("vgg19").layers[0]
    assert_type(layer.problem(8, layout="NHWC").y_shape, tuple[int, int, int, int])
    assert_type(ck.reference.activate(x, "relu6"), F64)
    try:
        ck.clear_workspaces()
    except (ck.NotMeasuredError, ck.UnsupportedAlgorithmError):
        ck.reload()


def filters(image: F32, bytes_: NDArray[np.uint8]) -> None:
    smooth = ndimage.gaussian_filter(image, (1.5, 2), mode=["reflect", "wrap"], output=np.float64, axes=(0, 1))
    ndimage.correlate(bytes_, [[0, 1], [1, 0]], output=bytes_, origin=(0, -1), accuracy="strict", num_threads=2)
    ndimage.correlate_bank(smooth, np.ones((4, 5, 5)), "float32").reshape(-1)
    ndimage.uniform_filter(image, 5, cval=1j)
    ndimage.sobel(image, axis=0, mode="edge")  # type: ignore[arg-type]
    ndimage.correlate1d(image, [1, 2], origin="left")  # type: ignore[arg-type]

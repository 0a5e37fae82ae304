"""conv2d_weight and conv2d_bias: values, arguments, errors. Single kernels are test_properties.py's business."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calls import normal
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import convkit as ck
from convkit import reference

Array = NDArray[Any]
LAYOUTS = ("NCHW", "NHWC")


def image(layout: str, n: int, c: int, h: int, w: int, dtype: str = "float32", seed: int = 0) -> Array:
    """A normal tensor of these sizes, dense in `layout`."""
    return (
        normal(n, c, h, w, dtype=dtype, seed=seed) if layout == "NCHW" else normal(n, h, w, c, dtype=dtype, seed=seed)
    )


@st.composite
def gradients(draw: st.DrawFn) -> tuple[Array, tuple[int, ...], Array, dict[str, Any]]:
    """Arguments of conv2d_weight."""
    dtype, layout = draw(st.sampled_from(["float32", "float64"])), draw(st.sampled_from(LAYOUTS))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    n, c, o = draw(st.integers(1, 3)), groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 6))
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    least = [max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(kernel, dilation, pads, strict=True)]
    h, w = (size + draw(st.integers(0, 9)) for size in least)
    oh, ow = reference.output_size((h, w), kernel, stride, pads, dilation)
    keywords = {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups, "layout": layout}
    x, dy = image(layout, n, c, h, w, dtype), image(layout, n, o, oh, ow, dtype, seed=1)
    return x, (o, c // groups, *kernel), dy, keywords


def tolerance(x: Array, dy: Array) -> float:
    """Rounding errors of a sum over all pixels, of normal numbers."""
    return float(16 * np.finfo(x.dtype).eps * (4 + dy.size // min(dy.shape[1], dy.shape[-1])))


@given(gradients())
def test_agrees_with_the_oracle(call: Any) -> None:
    x, size, dy, keywords = call
    dw = ck.grad.conv2d_weight(x, size, dy, **keywords)
    assert dw.shape == size
    assert dw.dtype == x.dtype
    np.testing.assert_allclose(dw, reference.conv2d_weight(x, size, dy, **keywords), rtol=0, atol=tolerance(x, dy))


@given(gradients())
def test_is_the_adjoint_of_the_convolution(call: Any) -> None:
    x, size, dy, keywords = call
    w = normal(*size, dtype=x.dtype.name, seed=2)
    dw = ck.grad.conv2d_weight(x, size, dy, **keywords)
    forward = np.vdot(ck.conv2d(x, w, **keywords).astype(np.float64), dy.astype(np.float64))
    backward = np.vdot(w.astype(np.float64), dw.astype(np.float64))
    assert abs(forward - backward) <= tolerance(x, dy) * (1 + np.abs(w).sum() + np.abs(dy).sum())


def test_numerical_differentiation() -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((6, 2, 3, 2))
    keywords: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "groups": 2}
    dy = rng.standard_normal(ck.conv2d(x, w, **keywords).shape)
    dw = ck.grad.conv2d_weight(x, w.shape, dy, **keywords)
    for index in [(0, 0, 0, 0), (5, 1, 2, 1), (2, 1, 1, 0), (3, 0, 2, 1)]:
        step = np.zeros_like(w)
        step[index] = 0.5  # linear in w: any step is exact
        difference = ck.conv2d(x, w + step, **keywords) - ck.conv2d(x, w - step, **keywords)
        np.testing.assert_allclose(np.vdot(difference, dy), dw[index], rtol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding", ["valid", "same", "same_upper", "same_lower", 1, (1, 0)])
def test_padding_spellings(layout: str, padding: Any) -> None:
    x = image(layout, 2, 3, 9, 8)
    dy = np.ones_like(ck.conv2d(x, normal(4, 3, 3, 3), padding=padding, layout=layout))
    expected = reference.conv2d_weight(x, (4, 3, 3, 3), dy, padding=padding, layout=layout)
    dw = ck.grad.conv2d_weight(x, (4, 3, 3, 3), dy, padding=padding, layout=layout)
    np.testing.assert_allclose(dw, expected, rtol=0, atol=1e-4)


def test_memory_orders_and_strides() -> None:
    x, dy = normal(2, 8, 9, 9), normal(2, 16, 9, 9, seed=1)
    expected = ck.grad.conv2d_weight(x, (16, 8, 3, 3), dy, padding=1)
    last = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, dy)]
    reversed_ = [np.ascontiguousarray(a[:, :, ::-1])[:, :, ::-1] for a in (x, dy)]
    for x_, dy_ in [last, (last[0], dy), (x, last[1]), reversed_, (x, np.broadcast_to(dy, dy.shape))]:
        dw = ck.grad.conv2d_weight(x_, (16, 8, 3, 3), dy_, padding=1)
        np.testing.assert_allclose(dw, expected, rtol=0, atol=1e-4)
    misaligned = np.frombuffer(b"0" + x.tobytes(), dtype=np.uint8)[1:].view(np.float32).reshape(x.shape)
    dw = ck.grad.conv2d_weight(misaligned, (16, 8, 3, 3), dy, padding=1)
    np.testing.assert_allclose(dw, expected, rtol=0, atol=1e-4)


def test_without_a_batch() -> None:
    x, dy = normal(3, 9, 9), normal(4, 7, 7, seed=1)
    np.testing.assert_array_equal(
        ck.grad.conv2d_weight(x, (4, 3, 3, 3), dy), ck.grad.conv2d_weight(x[None], (4, 3, 3, 3), dy[None])
    )


@pytest.mark.parametrize("strided", [False, True])
def test_an_empty_batch_has_no_gradient(strided: bool) -> None:
    x, dy = np.zeros((0, 3, 9, 9), np.float32), np.zeros((0, 4, 7, 7), np.float32)
    out = np.full((4, 3, 3, 6), 7, np.float32)[..., ::2] if strided else None
    dw = ck.grad.conv2d_weight(x, (4, 3, 3, 3), dy, out=out)
    np.testing.assert_array_equal(dw, np.zeros((4, 3, 3, 3)))
    assert out is None or dw is out


def test_out() -> None:
    x, dy = normal(2, 3, 9, 9), normal(2, 4, 7, 7, seed=1)
    expected = ck.grad.conv2d_weight(x, (4, 3, 3, 3), dy)
    for out in (np.empty((4, 3, 3, 3), np.float32), np.empty((3, 3, 3, 4), np.float32).transpose(3, 2, 0, 1)):
        assert ck.grad.conv2d_weight(x, (4, 3, 3, 3), dy, out=out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weight_size": (4, 3, 3)}, "weight_size must have 4 numbers"),
        ({"weight_size": (5, 3, 3, 3)}, r"weight_size \(5, 3, 3, 3\) does not go with input of shape \(2, 3, 9, 9\)"),
        ({"weight_size": (4, 2, 3, 3)}, "weight_size"),
        ({"weight_size": (4, 3, 0, 3)}, "weight_size must be at least 1"),
        ({"weight_size": (4, 3, 5, 5)}, r"input of shape \(2, 3, 9, 9\) and grad_output of shape \(2, 4, 7, 7\)"),
        ({"grad_output": np.zeros((1, 4, 7, 7), np.float32)}, "batches differ"),
        ({"grad_output": np.zeros((4, 7, 7), np.float32)}, "batches differ"),
        ({"input": np.zeros((9, 9), np.float32)}, r"expected \(N, C, H, W\)"),
        ({"stride": 0}, "stride"),
        ({"groups": 2}, "groups=2"),
        ({"layout": "CHWN"}, "layout"),
        ({"out": np.zeros((4, 3, 3, 4), np.float32)}, "out has shape"),
        ({"algorithm": "nothing"}, "nothing"),
    ],
)
def test_value_errors(change: dict[str, Any], text: str) -> None:
    arguments: dict[str, Any] = {
        "input": normal(2, 3, 9, 9),
        "weight_size": (4, 3, 3, 3),
        "grad_output": normal(2, 4, 7, 7),
    }
    with pytest.raises(ValueError, match=text):
        ck.grad.conv2d_weight(**(arguments | change))


def test_type_errors() -> None:
    x, dy = normal(2, 3, 9, 9), normal(2, 4, 7, 7)
    with pytest.raises(TypeError, match="input has dtype float32 and grad_output has dtype float64"):
        ck.grad.conv2d_weight(x, (4, 3, 3, 3), dy.astype(np.float64))
    with pytest.raises(TypeError, match="weight_size"):
        ck.grad.conv2d_weight(x, 7, dy)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ck.grad.conv2d_weight(x, (4, 3, 3, 3), dy.astype(np.int32))


def test_strict_accuracy_and_named_algorithms() -> None:
    x, dy = normal(4, 32, 12, 12), normal(4, 32, 12, 12, seed=1)
    expected = reference.conv2d_weight(x, (32, 32, 3, 3), dy, padding=1)
    for keywords in ({"accuracy": "strict"}, {"algorithm": "winograd4"}, {"algorithm": "direct"}):
        dw = ck.grad.conv2d_weight(x, (32, 32, 3, 3), dy, padding=1, **keywords)
        np.testing.assert_allclose(dw, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(3, 5, 6, 7), (2, 4, 40, 33), (5, 6, 7), (0, 3, 4, 4)])
def test_bias(dtype: str, layout: str, size: tuple[int, ...]) -> None:
    dy = normal(*size, dtype=dtype)
    channel = len(size) - (3 if layout == "NCHW" else 1)
    db = ck.grad.conv2d_bias(dy, layout=layout)
    assert db.dtype == dy.dtype
    expected = dy.astype(np.float64).sum(axis=tuple(axis for axis in range(dy.ndim) if axis != channel))
    np.testing.assert_allclose(db, expected, rtol=0, atol=1e-4)


def test_bias_errors() -> None:
    with pytest.raises(ValueError, match="layout"):
        ck.grad.conv2d_bias(np.zeros((1, 2, 3, 4), np.float32), layout="HWC")
    with pytest.raises(ValueError, match="dimensions"):
        ck.grad.conv2d_bias(np.zeros((1, 2), np.float32))
    with pytest.raises(TypeError, match="float32"):
        ck.grad.conv2d_bias(np.zeros((1, 2, 3, 4), np.int32))
    with pytest.raises(TypeError, match=r"grad_output must be a NumPy array, .* not list"):
        ck.grad.conv2d_bias([[[1.0]]])
    with pytest.raises(TypeError, match="grad_output is a masked array"):
        ck.grad.conv2d_bias(np.ma.zeros((1, 2, 3, 4), np.float32))


def test_bias_refuses_a_dtype_that_numpy_lacks() -> None:
    """bfloat16 comes to NumPy by DLPack, whose word for it NumPy does not know."""

    class BFloat16:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

        def __dlpack__(self, **keywords: object) -> object:
            raise RuntimeError("Unsupported dtype in DLTensor.")

    with pytest.raises(TypeError, match="grad_output"):
        ck.grad.conv2d_bias(BFloat16())


def test_bias_of_whatever_has_dlpack() -> None:
    class Exported:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

        def __dlpack__(self, **keywords: Any) -> Any:
            return self.array.__dlpack__(**keywords)

    dy = normal(2, 4, 5, 6)
    np.testing.assert_array_equal(ck.grad.conv2d_bias(Exported(dy)), ck.grad.conv2d_bias(dy))

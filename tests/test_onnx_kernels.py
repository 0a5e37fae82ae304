"""Every operator of our own beside ONNX Runtime: forms of several operator sets, both memory orders, odd corners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from onnx_calls import close, model, node, plain, runtime, uniform  # noqa: E402

import convkit.onnx as door  # noqa: E402
from convkit.onnx.call import OWN  # noqa: E402

X = 3 * uniform(2, 8, 9, 11)
BEFORE = node("Conv", "x identity", "last")  # leaves its result in channels-last memory
IDENTITY = np.eye(8, dtype=np.float32)[:, :, None, None]


def check(
    op: str, inputs: str = "x", constants: Any = None, x: Any = X, *, opset: int = 17, tolerance: float = 1e-5,
    outputs: str = "y", **attributes: Any,
) -> None:  # fmt: skip
    """Our result is ONNX Runtime's, from either memory order."""
    constants = constants or {}
    proto = model([node(op, inputs, outputs, **attributes)], constants, shape=x.shape, opset=opset, outputs=outputs)
    expected = runtime(proto, {"x": x})
    close(door.InferenceSession(proto, plain()).run(None, {"x": x}), expected, tolerance)
    if x.ndim == 4 and x.shape[1] == 8:
        nodes = [
            BEFORE,
            node(op, " ".join("last" if name == "x" else name for name in inputs.split()), outputs, **attributes),
        ]
        proto = model(nodes, {**constants, "identity": IDENTITY}, shape=x.shape, opset=opset, outputs=outputs)
        close(door.InferenceSession(proto, plain()).run(None, {"x": x}), expected, tolerance)


@pytest.mark.parametrize(
    "padding", [{"pads": [1, 0, 2, 1]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"}]
)
@pytest.mark.parametrize("more", [{}, {"strides": [2, 3]}, {"group": 4}, {"dilations": [2, 1]}])
def test_conv(padding: dict[str, Any], more: dict[str, Any]) -> None:
    if padding.get("auto_pad", "").startswith("SAME") and "dilations" in more:
        pytest.skip("ONNX Runtime knows no dilation beside auto_pad")
    w = uniform(12, 8 // more.get("group", 1), 3, 4)
    check("Conv", "x w b", {"w": w, "b": uniform(12)}, **padding, **more)


def test_images_lie_in_channels_last_memory_from_the_first_convolution_on() -> None:
    from convkit.onnx.kernels.memory import channels_last

    seen = []

    def watched(build: Any) -> Any:
        def made(call: Any) -> Any:
            compute = build(call)

            def run(*operands: Any) -> Any:
                y = compute(*operands)
                seen.append((call.op, channels_last(y)))
                return y

            return run

        return made

    nodes = [
        BEFORE, node("MaxPool", "last", "a", kernel_shape=[2, 2]), node("Sigmoid", "a", "b"), node("Mul", "b a", "c"),
        node("Concat", "c b", "d", axis=1), node("Resize", "d - s", "e"), node("ConvTranspose", "e w", "y"),
    ]  # fmt: skip
    constants = {"identity": IDENTITY, "s": np.float32([1, 1, 2, 2]), "w": uniform(16, 5, 3, 3)}
    proto = model(nodes, constants)
    before = dict(OWN)
    try:
        OWN.update({op: watched(build) for op, build in before.items()})
        found = door.InferenceSession(proto, plain()).run(None, {"x": X})
    finally:
        OWN.update(before)
    assert seen == [(one.op_type, True) for one in nodes]
    close(found, runtime(proto, {"x": X}))


def test_conv_of_signals_and_volumes() -> None:
    check("Conv", "x w", {"w": uniform(6, 8, 3)}, uniform(2, 8, 20), strides=[2], pads=[2, 1])
    check(
        "Conv", "x w b", {"w": uniform(6, 4, 3, 2, 3), "b": uniform(6)}, uniform(2, 8, 5, 6, 7), group=2, pads=[1] * 6
    )


def test_conv_whose_weights_are_computed() -> None:
    nodes = [node("Mul", "x half", "w"), node("Conv", "image w", "y")]
    proto = model(nodes, {"half": np.float32(0.5), "image": X}, shape=(4, 8, 3, 3))
    session = door.InferenceSession(proto)
    for seed in (0, 1):
        w = uniform(4, 8, 3, 3, seed=seed)
        close(session.run(None, {"x": w}), runtime(proto, {"x": w}))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize(
    "more",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "pads": [2, 0, 0, 1]},
        {"kernel_shape": [3, 3], "strides": [3, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 3], "strides": [1, 2], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [1, 1], "strides": [4, 4]},
        {"kernel_shape": [9, 11]},
        {"kernel_shape": [2, 3], "dilations": [3, 2]},
    ],
)
def test_pools(op: str, ceil: int, more: dict[str, Any]) -> None:
    check(op, ceil_mode=ceil, opset=19, **more)
    if op == "AveragePool":
        check(op, ceil_mode=ceil, count_include_pad=1, opset=19, **more)


def test_pools_of_signals_and_volumes() -> None:
    check("MaxPool", x=uniform(2, 3, 20), kernel_shape=[3], strides=[2])
    check("AveragePool", x=uniform(2, 3, 7, 8, 9), kernel_shape=[3, 2, 2], pads=[1, 0, 0, 1, 0, 1])
    check("MaxPool", outputs="y i", kernel_shape=[2, 2])
    check("MaxPool", outputs="y i", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 0, 0], ceil_mode=1)
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        check(op)
        check(op, x=uniform(2, 3, 20))


@pytest.mark.parametrize("opset", [8, 9, 12, 14, 17])
def test_batch_normalization(opset: int) -> None:
    constants = {"a": uniform(8), "b": uniform(8, seed=1), "m": uniform(8, seed=2), "v": uniform(8, seed=3) ** 2}
    check("BatchNormalization", "x a b m v", constants, opset=opset, epsilon=1e-3)
    check("BatchNormalization", "x a b m v", constants, uniform(5, 8), opset=opset)


def test_normalizations() -> None:
    channel = {"a": uniform(8), "b": uniform(8, seed=1)}
    check("InstanceNormalization", "x a b", channel, epsilon=1e-3)
    check("GroupNormalization", "x a b", channel, opset=21, num_groups=4)
    check("LayerNormalization", "x a b", {"a": uniform(11), "b": uniform(11, seed=1)})
    check("LayerNormalization", "x a", {"a": uniform(9, 11)}, axis=2, epsilon=1e-2)
    check("LayerNormalization", "x a", {"a": uniform(11)}, outputs="y m d")


def test_a_layer_norm_s_factors_may_be_fewer_than_what_it_normalizes() -> None:
    for axis, factors in ((-1, (1,)), (2, (9, 1))):
        constants = {"a": uniform(*factors), "b": uniform(*factors, seed=1)}
        for names in ("x a", "x a b"):
            proto = model([node("LayerNormalization", names, "y", axis=axis, epsilon=1e-2)], constants)
            x = X.astype(np.float64)
            axes = tuple(range(axis % 4, 4))
            wanted = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-2) * constants["a"]
            wanted = wanted + constants["b"] if "b" in names else wanted
            close(door.InferenceSession(proto, plain()).run(None, {"x": X}), [wanted.astype(np.float32)])


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("axis", [1, 3, -2])
def test_softmax(opset: int, axis: int) -> None:
    check("Softmax", opset=opset, axis=axis, x=50 * X)


def test_activations() -> None:
    for op in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Mish", "Erf", "LeakyRelu", "HardSigmoid", "Exp"):
        check(op, x=X, opset=18)
        check(op, x=30 * uniform(3, 100000), opset=18)
    check("LeakyRelu", alpha=0.3)
    check("HardSigmoid", alpha=0.3, beta=0.1)
    for approximate in ("none", "tanh"):
        check("Gelu", opset=20, approximate=approximate)
    check("Clip", opset=6, min=-0.5, max=1.0)
    check("Clip", "x - hi", {"hi": np.float32(0.5)})
    check("Clip", "x lo", {"lo": np.float32(0.5)})


def test_the_error_function_is_exact_at_its_ends() -> None:
    x = np.float32([0, 1e-20, -1e-6, 3.9, 4.1, -8, np.inf, -np.inf])
    check("Erf", x=x, tolerance=5e-7)
    ours = door.InferenceSession(model([node("Erf", "x", "y")], inputs={"x": (np.float64, (5,))}))
    assert np.allclose(
        ours.run(None, {"x": np.linspace(-3, 3, 5)})[0], [-0.99997791, -0.96610515, 0, 0.96610515, 0.99997791]
    )


def test_arithmetic() -> None:
    for op in ("Add", "Sub", "Mul", "Div"):
        check(op, "x r", {"r": uniform(8, 1, 1)})
        check(op, "r x", {"r": uniform(11) + 2})
    check("Pow", "x two", {"two": np.float32(2)})
    nodes = [node("Div", "x k", "y")]  # of whole numbers: towards zero
    proto = model(nodes, {"k": np.array([2, -2, 3])}, inputs={"x": (np.int64, (3,))})
    x = np.array([-7, 7, -8])
    close(door.InferenceSession(proto).run(None, {"x": x}), runtime(proto, {"x": x}))


RESIZES = [
    (mode, coordinates, rounding)
    for mode in ("nearest", "linear")
    for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    for rounding in (("round_prefer_floor", "round_prefer_ceil", "floor", "ceil") if mode == "nearest" else ("floor",))
]


@pytest.mark.parametrize(("mode", "coordinates", "rounding"), RESIZES)
def test_resize(mode: str, coordinates: str, rounding: str) -> None:
    words = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    for scales in ([1, 1, 2, 2], [1, 1, 0.6, 2.5], [1, 1, 3, 1]):
        # Where the sizes of aligned corners are no whole numbers, ONNX Runtime is not what the standard says.
        if coordinates != "align_corners" or scales[3] == 2 or scales[2] == 3:
            check("Resize", "x - s", {"s": np.float32(scales)}, **words)
    for sizes in ([2, 8, 18, 22], [2, 8, 4, 25]):
        check("Resize", "x - - s", {"s": np.array(sizes)}, **words)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_what_is_no_image(mode: str) -> None:
    words = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    signal = uniform(2, 8, 9)
    check("Resize", "x - s", {"s": np.float32([1, 1, 2])}, signal, **words)  # whole pixels, repeated
    check("Resize", "x - s", {"s": np.float32([1, 1, 2.5])}, signal, **words)
    check("Resize", "x - - s", {"s": np.array([2, 8, 4])}, signal, **words)
    # Along channels, which ONNX Runtime resizes by nearest neighbours only; the last dimension stays.
    if mode == "nearest":
        check("Resize", "x - s", {"s": np.float32([1, 2, 1.5, 1])}, **words)
    volume = uniform(1, 2, 3, 4, 5)
    check("Resize", "x - s", {"s": np.float32([1, 1, 2, 1, 3])}, volume, **words)


def test_resize_to_the_same_size_and_whole_numbers() -> None:
    check("Resize", "x - s", {"s": np.float32([1, 1, 1, 1])}, mode="nearest")
    for dtype in (np.int32, np.uint8):
        x = np.arange(24, dtype=dtype).reshape(1, 2, 3, 4)
        nodes = [node("Resize", "x - s", "y", mode="nearest")]
        proto = model(nodes, {"s": np.float32([1, 1, 2, 2])}, inputs={"x": (dtype, x.shape)})
        close(door.InferenceSession(proto, plain()).run(None, {"x": x}), runtime(proto, {"x": x}))


def test_upsample_and_cubic() -> None:
    for mode in ("nearest", "linear"):
        check("Upsample", "x s", {"s": np.float32([1, 1, 2, 3])}, opset=9, mode=mode)
        check("Resize", "x s", {"s": np.float32([1, 1, 2, 2])}, opset=10, mode=mode)
    check("Resize", "x - s", {"s": np.float32([1, 1, 2, 2])}, x=X[:1, :3, :5, :5], mode="cubic", tolerance=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        {"strides": [2, 2]},
        {"strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 2]},
        {"group": 2, "pads": [1, 1, 1, 1]},
        {"dilations": [2, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "output_shape": [19, 23]},
        {"strides": [2, 2], "pads": [3, 4, 0, 3]},
    ],
)
def test_conv_transpose(more: dict[str, Any]) -> None:
    check("ConvTranspose", "x w b", {"w": uniform(8, 6, 3, 3), "b": uniform(6 * more.get("group", 1))}, **more)


def test_conv_transpose_of_signals() -> None:
    check("ConvTranspose", "x w", {"w": uniform(8, 6, 4)}, uniform(2, 8, 20), strides=[2], pads=[1, 1])


def test_products() -> None:
    check("MatMul", "x w", {"w": uniform(11, 5)})
    check("MatMul", "x w", {"w": uniform(11)})
    check("MatMul", "x w", {"w": uniform(2, 8, 11, 5)})
    check("MatMul", "x x", x=uniform(7, 7))
    a, b, c = uniform(6, 11), uniform(11, 5), uniform(5)
    check("Gemm", "x w c", {"w": b, "c": c}, a)
    check("Gemm", "x w c", {"w": b.T.copy(), "c": c}, a, transB=1)
    check("Gemm", "x w c", {"w": b, "c": c[None]}, a, alpha=0.5, beta=2.0)
    check("Gemm", "x w c", {"w": uniform(6, 5), "c": uniform(11, 1)}, a, transA=1)
    check("Gemm", "x w", {"w": b}, a)


def test_what_only_moves_elements() -> None:
    check("Concat", "x x", axis=1)
    check("Transpose", perm=[0, 2, 3, 1])
    check("Transpose")
    check("Flatten", axis=2)
    check("Flatten", axis=0)
    check("Reshape", "x n", {"n": np.array([0, 4, -1])})
    check("Shape", start=1, end=-1)
    check("Expand", "x n", {"n": np.array([3, 1, 1, 1, 1])})
    check("Tile", "x n", {"n": np.array([1, 2, 1, 3])})
    for mode in ("constant", "edge", "reflect"):
        check("Pad", "x n", {"n": np.array([0, 0, 1, 2, 0, 0, 3, 0])}, mode=mode)
    check("Pad", "x n v", {"n": np.array([0, 1, -1, 2, 0, 0, 3, -2]), "v": np.float32(7)})
    check("Pad", opset=2, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=2.0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_whole_numbers_are_exact(groups: int, kind: type) -> None:
    """Sums of more than 2**24: a float32 would round them."""
    rng = np.random.default_rng(0)
    x = rng.integers(100, 128, (1, 256, 7, 7)).astype(kind)
    w = rng.integers(100, 128, (8, 256 // groups, 5, 5)).astype(kind)
    zero, scale = kind(3), np.float32(0.02)
    attributes = {"group": groups, "pads": [1, 0, 2, 1], "strides": [1, 2]}
    proto = model(
        [node("ConvInteger", "x w z -", "y", **attributes)], {"w": w, "z": zero}, inputs={"x": (kind, x.shape)}
    )
    exact = np.zeros((1, 8, 6, 3), np.int64)
    centred = np.pad(x.astype(np.int64) - 3, [(0, 0), (0, 0), (1, 2), (0, 1)])
    for o in range(8):
        channels = slice(o // (8 // groups) * (256 // groups), (o // (8 // groups) + 1) * (256 // groups))
        for i in range(6):
            for j in range(2 + 0):
                window = centred[0, channels, i : i + 5, 2 * j : 2 * j + 5]
                exact[0, o, i, j] = (window * w[o].astype(np.int64)).sum()
    (found,) = door.InferenceSession(proto).run(None, {"x": x})
    assert found.dtype == np.int32
    assert found.shape == (1, 8, 6, 2)
    assert np.array_equal(found, exact[..., :2])
    constants = {"xs": scale, "xz": zero, "w": w, "ws": np.full(8, 0.01, np.float32), "wz": np.zeros(8, kind),
                 "ys": np.float32(30), "yz": zero, "b": np.arange(8, dtype=np.int32)}  # fmt: skip
    proto = model(
        [node("QLinearConv", "x xs xz w ws wz ys yz b", "y", **attributes)], constants, inputs={"x": (kind, x.shape)}
    )
    ours, theirs = door.InferenceSession(proto).run(None, {"x": x})[0], runtime(proto, {"x": x})[0]
    assert ours.dtype == theirs.dtype
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("channels", [518, 519])
def test_whole_numbers_are_exact_at_the_end_of_float32(channels: int) -> None:
    x = np.full((1, channels, 3, 3), 255, np.uint8)
    x[0, 0, 1] = 254
    w = np.full((4, channels, 1, 1), 127, np.uint8)
    w[:, -1] -= np.arange(4, dtype=np.uint8)[:, None, None]
    proto = model([node("ConvInteger", "x w", "y")], {"w": w}, inputs={"x": (np.uint8, x.shape)})
    session = door.InferenceSession(proto)
    for feed in (x, x // 2):
        exact = np.einsum("nchw,oc->nohw", feed.astype(np.int64), w[:, :, 0, 0].astype(np.int64))
        np.testing.assert_array_equal(session.run(None, {"x": feed})[0], exact)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_quantizing_and_back(kind: Any, axis: int | None) -> None:
    places = 1 if axis is None else X.shape[axis]
    scale, zero = np.abs(uniform(places)) / 50 + 0.01, np.arange(places).astype(kind)
    if axis is None:
        scale, zero = scale[0], zero[0] + kind(3)
    more = {} if axis is None else {"axis": axis}
    constants = {"s": scale, "z": zero}
    check("QuantizeLinear", "x s z", constants, **more)
    nodes = [node("QuantizeLinear", "x s z", "q", **more), node("DequantizeLinear", "q s z", "y", **more)]
    proto = model(nodes, constants)
    close(door.InferenceSession(proto).run(None, {"x": X}), runtime(proto, {"x": X}))
    if axis is None and kind is np.uint8:
        check("QuantizeLinear", "x s", constants)


def test_other_types_are_the_references() -> None:
    for dtype in (np.float16, np.float64):
        x = X.astype(dtype)
        for op in ("Relu", "Sigmoid", "MaxPool", "Softmax"):
            words = {"kernel_shape": [2, 2]} if op == "MaxPool" else {}
            proto = model([node(op, "x", "y", **words)], inputs={"x": (dtype, x.shape)})
            exact = model([node(op, "x", "y", **words)], shape=x.shape)
            (found,) = door.InferenceSession(proto).run(None, {"x": x})
            assert found.dtype == dtype
            np.testing.assert_allclose(found, runtime(exact, {"x": X})[0], atol=3e-3)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
def test_reductions(op: str) -> None:
    for more in ({"axes": [2, 3]}, {"axes": [-1], "keepdims": 0}, {"axes": [0, -2]}, {"keepdims": 0}, {"axes": [1]}):
        check(op, opset=11, **more)
    check(op, "x axes", {"axes": np.array([3, 2])}, opset=18, keepdims=0)
    check(op, "x", opset=18, noop_with_empty_axes=1)
    check(op, x=uniform(5, 7), axes=[-1], opset=11)


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [-1], None, None),
        ([0, 2], [2**62, 5], [1, 3], None),
        ([-3, 7], [100, 2], [2, -1], [1, -2]),
        ([-1], [-(2**62)], [1], [-1]),
        ([-100], [-2], [1], [3]),
        ([100], [0], [2], [-3]),
        ([3], [3], [1], None),
        ([-100], [-200], [1], [-1]),
    ],
)
def test_slices(starts: list[int], ends: list[int], axes: Any, steps: Any) -> None:
    given = {"s": starts, "e": ends, "a": axes, "t": steps}
    constants = {name: np.array(value) for name, value in given.items() if value is not None}
    inputs = " ".join(["x", *(name if value is not None else "-" for name, value in given.items())])
    check("Slice", inputs, constants)


def test_dimensions_of_size_one() -> None:
    x = uniform(1, 4, 1, 5)
    for opset in (11, 17):
        for axes in ([0], [-2, 0]):
            given = ("x", {}, {"axes": axes}) if opset == 11 else ("x axes", {"axes": np.array(axes)}, {})
            check("Squeeze", given[0], given[1], x, opset=opset, **given[2])
            check("Unsqueeze", given[0], given[1], opset=opset, **given[2])
    check("Squeeze", x=x)
    nodes = [node("Unsqueeze", "x one", "u"), node("Squeeze", "u one", "y")]  # as the standard's own functions write it
    close(door.InferenceSession(model(nodes, {"one": np.array(1)}, shape=x.shape)).run(None, {"x": x}), [x])


def test_large_images_in_both_memory_orders() -> None:
    x = uniform(1, 8, 60, 70)
    gate = np.abs(uniform(1, 8, 1, 1))
    for op in ("Add", "Mul", "Sub", "Div"):
        for other in (gate, uniform(1, 8, 60, 70, seed=2), uniform(70), np.float32(3), uniform(1, 1, 60, 70)):
            check(op, "x o", {"o": other}, x)
            check(op, "o x", {"o": other}, np.abs(x) + 1)
    nodes = [BEFORE, node("Sigmoid", "g", "s"), node("Mul", "s last", "m"), node("Add", "last m", "y")]
    for shape in ((1, 8, 1, 1), (1, 1, 1, 1), (1, 8, 60, 70)):
        proto = model(nodes, {"identity": IDENTITY}, inputs={"x": (np.float32, x.shape), "g": (np.float32, shape)})
        feed = {"x": x, "g": uniform(*shape)}
        close(door.InferenceSession(proto).run(None, feed), runtime(proto, feed))


def test_every_operator_of_ours_is_tried_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    made_by_rules = {
        "FusedConv",
        "FusedConvTranspose",
        "JoinedConv",
        "MulAdd",
        "Silu",
        "Identity",
        "Dropout",
        "ConstantOfShape",
        "Constant",
    }
    others = {"Log", "Sqrt", "Neg", "Abs", "Floor", "Ceil"}
    assert {op for op in OWN if f'"{op}"' not in text} <= made_by_rules | others

"""What rules make of a graph: before and after, and the same results as the graph that they began with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")

from onnx_calls import close, model, node, ops, plain, uniform  # noqa: E402

import convkit.onnx as door  # noqa: E402

W = uniform(8, 8, 3, 3) / 8
B = uniform(8, seed=1)
CONV = node("Conv", "x w b", "c", pads=[1, 1, 1, 1])
NORM = {
    "gamma": uniform(8, seed=2),
    "beta": uniform(8, seed=3),
    "mean": uniform(8, seed=4),
    "var": uniform(8, seed=5) ** 2,
}
SIX = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "sixth": np.float32(1 / 6)}


def check(nodes: list[Any], constants: dict[str, Any], expected: list[str], **keywords: Any) -> Any:
    """The rules leave the operators that are expected, and nobody can tell from the results."""
    proto = model(nodes, constants, **keywords)
    session, before = door.InferenceSession(proto), door.InferenceSession(proto, plain())
    assert ops(before) == [n.op_type for n in nodes]
    assert ops(session) == expected
    x = 4 * uniform(2, 8, 9, 11, seed=9)
    wanted = before.run(None, {"x": x})
    for _ in range(2):  # the plan for any shape, and that for this one
        close(session.run(None, {"x": x}), wanted)
    return session


def test_constants_are_computed_once() -> None:
    nodes = [
        node("Constant", "", "a", value=onnx.numpy_helper.from_array(uniform(8, 1, 1))),
        node("Exp", "a", "e"),
        node("Mul", "x e", "y"),
    ]
    check(nodes, {}, ["Mul"])


def test_large_results_of_few_numbers_are_not_kept() -> None:
    nodes = [node("ConstantOfShape", "n", "a"), node("ReduceSum", "a", "s", keepdims=0), node("Add", "x s", "y")]
    check(nodes, {"n": np.array([3000, 3000])}, ["ConstantOfShape", "ReduceSum", "Add"])
    check(nodes, {"n": np.array([3, 3])}, ["Add"])


def test_what_does_nothing_is_removed() -> None:
    check([node("Identity", "x", "a"), node("Dropout", "a", "b"), node("Relu", "b", "y")], {}, ["Relu"])
    # A dropped mask that somebody reads, and an output of the graph, stay.
    check([node("Relu", "x", "a"), node("Identity", "a", "y")], {}, ["Relu", "Identity"])
    nodes = [node("Dropout", "x", "a mask"), node("Cast", "mask", "m", to=1), node("Add", "a m", "y")]
    check(nodes, {}, ["Dropout", "Cast", "Add"])


@pytest.mark.parametrize("opset", [9, 14, 17])
def test_batch_norm_goes_into_a_convolution(opset: int) -> None:
    norm = node("BatchNormalization", "c gamma beta mean var", "y", epsilon=1e-3)
    check([CONV, norm], {"w": W, "b": B, **NORM}, ["Conv"], opset=opset)
    check([node("Conv", "x w", "c"), norm], {"w": W, **NORM}, ["Conv"], opset=opset)
    check([node("ConvTranspose", "x w", "c"), norm], {"w": W, **NORM}, ["ConvTranspose"], opset=opset)
    # Somebody else reads the convolution's result.
    nodes = [CONV, node("BatchNormalization", "c gamma beta mean var", "n"), node("Mul", "c n", "y")]
    check(nodes, {"w": W, "b": B, **NORM}, ["Conv", "BatchNormalization", "Mul"], opset=opset)


def test_factors_of_one_are_removed() -> None:
    for shape in ((), (1,), (1, 1, 1, 1)):
        one = {"w": W, "b": B, "one": np.ones(shape, np.float32)}
        check([node("Mul", "x one", "a"), node("Relu", "a", "y")], one, ["Relu"])
    pool = node("MaxPool", "x", "p", kernel_shape=[2, 2])
    for shape, left in (((1,), []), ((1, 1, 1), ["Div"])):  # nothing tells of which rank the pool's result is
        nodes = [pool, node("Div", "p one", "a"), node("Erf", "a", "y")]
        check(nodes, {"one": np.ones(shape, np.float32)}, ["MaxPool", *left, "Erf"])
    nodes = [CONV, node("Mul", "one c", "a"), node("Sigmoid", "a", "s"), node("Mul", "a s", "y")]
    check(nodes, {"w": W, "b": B, "one": np.ones(1, np.float32)}, ["FusedConv"])
    # A factor that is not one, one that is divided, one that adds a dimension, and an output of the graph stay.
    check([node("Mul", "x two", "a"), node("Relu", "a", "y")], {"two": np.float32(2)}, ["Mul", "Relu"])
    check([node("Div", "one x", "a"), node("Relu", "a", "y")], {"one": np.float32(1)}, ["Div", "Relu"])
    check([node("Mul", "x one", "a"), node("Relu", "a", "y")], {"one": np.ones((1,) * 5, np.float32)}, ["Mul", "Relu"])
    check([node("Relu", "x", "a"), node("Mul", "a one", "y")], {"one": np.float32(1)}, ["Relu", "Mul"])


def layer_norm(square: str = "Pow", axes: Any = (-1,), **more: Any) -> list[Any]:
    return [
        node("ReduceMean", "x", "m", axes=axes, **more), node("Sub", "x m", "d"),
        node(square, "d two" if square == "Pow" else "d d", "q"), node("ReduceMean", "q", "v", axes=axes, **more),
        node("Add", "v epsilon", "e"), node("Sqrt", "e", "r"), node("Div", "d r", "n"), node("Mul", "n gain", "g"),
        node("Add", "g offset", "y"),
    ]  # fmt: skip


def test_layer_normalization_written_as_a_chain() -> None:
    constants = {
        "two": np.float32(2), "epsilon": np.float32(1e-3), "gain": uniform(11, seed=6), "offset": uniform(11, seed=7),
    }  # fmt: skip
    for square in ("Pow", "Mul"):
        for axes in ((-1,), (3,)):
            check(layer_norm(square, axes), constants, ["LayerNormalization"])
    # Another exponent, other dimensions, and somebody who reads what the chain computes on its way.
    other = [n.op_type for n in layer_norm()]
    check(layer_norm(), {**constants, "two": np.float32(4)}, other)
    check(layer_norm(axes=(2, 3)), constants, other)
    seen = [*layer_norm()[:-1], node("Add", "g offset", "z"), node("Add", "z m", "y")]
    check(seen, constants, [*other, "Add"])
    numbers = {**constants, "gain": np.float32(2), "offset": np.float32(1)}
    check(layer_norm(), numbers, other)


def test_a_gate_and_a_sum_are_one_node() -> None:
    gate = [node("GlobalAveragePool", "x", "p"), node("HardSigmoid", "p", "s")]
    for inputs in ("x s", "s x"):
        for other in ("m x", "x m"):
            nodes = [*gate, node("Mul", inputs, "m"), node("Add", other, "y")]
            check(nodes, {}, ["GlobalAveragePool", "HardSigmoid", "MulAdd"])
    nodes = [*gate, node("Mul", "x s", "m"), node("Add", "m m", "y")]
    check(nodes, {}, [n.op_type for n in nodes])
    nodes = [*gate, node("Mul", "x s", "m"), node("Add", "m b", "y")]
    check(nodes, {"b": uniform(8, 1, 1)}, [n.op_type for n in nodes])


def test_an_added_constant_is_a_bias() -> None:
    channel = uniform(8, 1, 1, seed=7)
    for op in ("Conv", "ConvTranspose"):
        conv, add = node(op, "x w", "c", group=2, strides=[2, 2]), node("Add", "channel c", "a")
        norm = node("BatchNormalization", "a gamma beta mean var", "y")
        w = W[:, :4]
        check([node(op, "x w", "c", group=2), node("Add", "c channel", "y")], {"w": w, "channel": channel}, [op])
        check(
            [conv, add, norm],
            {"w": w, "channel": channel, **NORM},
            [op] if op == "Conv" else [op, "BatchNormalization"],
        )
        check([node(op, "x w b", "c"), add, norm], {"w": W, "b": B, "channel": channel, **NORM}, [op])
    check([CONV, node("Add", "c row", "y")], {"w": W, "b": B, "row": uniform(11)}, ["Conv", "Add"])


def test_transposed_convolutions_have_epilogues_too() -> None:
    conv = node("ConvTranspose", "x w b", "c", strides=[2, 2], group=2, pads=[1, 0, 0, 1], output_padding=[1, 1])
    constants = {"w": uniform(8, 3, 3, 3), "b": uniform(6), "channel": uniform(6, 1, 1, seed=7), **SIX}
    check([conv, node("Relu", "c", "y")], constants, ["FusedConvTranspose"])
    nodes = [conv, node("Sigmoid", "c", "a"), node("Mul", "a channel", "m"), node("Add", "m three", "y")]
    check(nodes, constants, ["FusedConvTranspose"])
    check([conv, node("Mul", "c channel", "m"), node("Relu", "m", "y")], constants, ["FusedConvTranspose", "Relu"])
    large = node("ConvTranspose", "x w b", "c", strides=[2, 2], group=2, pads=[3, 3, 0, 0])
    check([large, node("Relu", "c", "y")], constants, ["ConvTranspose", "Relu"])


def test_zeros_around_go_into_a_convolution() -> None:
    pads = np.array([0, 0, 1, 2, 0, 0, 0, 3])
    conv = node("Conv", "p w b", "y", pads=[1, 0, 1, 0])
    for inputs in ("x pads", "x pads zero"):
        check([node("Pad", inputs, "p"), conv], {"w": W, "b": B, "pads": pads, "zero": np.float32(0)}, ["Conv"])
    constants = {"w": W, "b": B, "pads": pads, "one": np.float32(1)}
    check([node("Pad", "x pads one", "p"), conv], constants, ["Pad", "Conv"])
    check([node("Pad", "x pads", "p", mode="edge"), conv], constants, ["Pad", "Conv"])
    check(
        [node("Pad", "x pads", "p"), conv], {**constants, "pads": np.array([0, 1, 0, 0, 0, -1, 0, 0])}, ["Pad", "Conv"]
    )


CHAINS = {
    "silu": [node("Sigmoid", "c", "s"), node("Mul", "c s", "y")],
    "silu, other order": [node("Sigmoid", "c", "s"), node("Mul", "s c", "y")],
    "hard_swish, divided last": [
        node("Add", "three c", "s"), node("Clip", "s zero six", "k"), node("Mul", "c k", "m"),
        node("Div", "m six", "y"),
    ],
    "hard_swish, divided first": [
        node("Add", "c three", "s"), node("Clip", "s zero six", "k"), node("Mul", "k sixth", "d"),
        node("Mul", "d c", "y"),
    ],
    "hard_swish, by the gate": [node("HardSigmoid", "c", "h", alpha=1 / 6), node("Mul", "c h", "y")],
    "gelu": [
        node("Div", "c root", "d"), node("Erf", "d", "e"), node("Add", "e one", "a"), node("Mul", "c a", "m"),
        node("Mul", "m half", "y"),
    ],
    "gelu, halved first": [
        node("Mul", "c half", "h"), node("Div", "c root", "d"), node("Erf", "d", "e"), node("Add", "e one", "a"),
        node("Mul", "h a", "y"),
    ],
}  # fmt: skip
NUMBERS = {**SIX, "root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}


@pytest.mark.parametrize("chain", CHAINS)
def test_activations_written_as_chains(chain: str) -> None:
    nodes = CHAINS[chain]
    check([CONV, *nodes], {"w": W, "b": B, **NUMBERS}, ["FusedConv"])
    alone = {"s": "Silu", "h": "HardSwish", "g": "Gelu"}[chain[0]]
    check([node("Neg", "x", "c"), *nodes], NUMBERS, ["Neg", alone])


def test_a_chain_that_somebody_looks_into_stays() -> None:
    nodes = [node("Neg", "x", "c"), *CHAINS["silu"]]
    check(nodes, {}, ["Neg", "Sigmoid", "Mul"], outputs="y s")


EPILOGUES = {
    "relu": [node("Relu", "c", "y")],
    "clip": [node("Clip", "c zero six", "y")],
    "leaky_relu": [node("LeakyRelu", "c", "y", alpha=0.2)],
    "hard_swish": [node("HardSwish", "c", "y")],
    "hard_sigmoid": [node("HardSigmoid", "c", "y")],
    "multiplied, hard_sigmoid": [node("Mul", "c channel", "a"), node("HardSigmoid", "a", "y", alpha=0.3, beta=0.4)],
    "sigmoid": [node("Sigmoid", "c", "y")],
    "tanh": [node("Tanh", "c", "y")],
    "residual": [node("Add", "x c", "y")],
    "residual, relu": [node("Add", "c x", "a"), node("Relu", "a", "y")],
    "relu, residual": [node("Relu", "c", "a"), node("Add", "a x", "y")],
    "multiplied, relu": [node("Mul", "c channel", "a"), node("Relu", "a", "y")],
    "divided, subtracted": [node("Div", "c six", "a"), node("Sub", "a channel", "y")],
    "relu, scale, shift": [node("Relu", "c", "a"), node("Mul", "a channel", "m"), node("Add", "m three", "y")],
    "relu, shift, scale, residual": [
        node("Relu", "c", "a"), node("Add", "channel a", "m"), node("Mul", "m three", "n"), node("Add", "n x", "y"),
    ],
    "residual, scale": [node("Add", "c x", "a"), node("Mul", "a channel", "y")],
}  # fmt: skip


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("groups", [1, 8])
def test_epilogues(name: str, groups: int) -> None:
    conv = node("Conv", "x w b", "c", pads=[1, 1, 1, 1], group=groups)
    constants = {"w": W if groups == 1 else W[:, :1], "b": B, "channel": uniform(8, 1, 1, seed=7), **SIX}
    check([conv, *EPILOGUES[name]], constants, ["FusedConv"])
    check([node("Conv", "x w", "c", pads=[1, 1, 1, 1], group=groups), *EPILOGUES[name]], constants, ["FusedConv"])


def test_what_is_no_epilogue_stays() -> None:
    constants = {"w": W, "b": B, "row": uniform(11), "channel": uniform(8, 1, 1, seed=7), "zero": np.float32(0)}
    check([CONV, node("Relu", "c", "a"), node("Tanh", "a", "y")], constants, ["FusedConv", "Tanh"])
    check([CONV, node("Sub", "channel c", "y")], constants, ["Conv", "Sub"])
    check([CONV, node("Div", "c zero", "y")], constants, ["Conv", "Div"])
    check([CONV, node("Relu", "c", "y")], constants, ["Conv", "Relu"], outputs="y c")
    nodes = [CONV, node("Relu", "c", "a"), node("Add", "a x", "r"), node("Relu", "r", "y")]
    check(nodes, constants, ["FusedConv", "Relu"])
    check([CONV, node("Add", "c c", "y")], constants, ["Conv", "Add"])
    nodes = [CONV, node("Add", "c x", "r"), node("HardSigmoid", "r", "y")]  # its line is not the residual's
    check(nodes, constants, ["FusedConv", "HardSigmoid"])


def test_bounds_that_are_attributes() -> None:
    clip = node("Clip", "c", "y", min=-0.5, max=1.0)
    check([CONV, clip], {"w": W, "b": B}, ["FusedConv"], opset=6)
    check([CONV, node("Clip", "c", "y", min=-0.5)], {"w": W, "b": B}, ["Conv", "Clip"], opset=6)


@pytest.mark.parametrize("act", [[], ["Relu"]])
def test_an_addition_that_turns_out_to_be_broadcast(act: list[str]) -> None:
    """Shapes are not known when rules run: a mean over pixels is no residual of the convolution's shape."""
    nodes = [CONV, node("GlobalAveragePool", "x", "g"), *(node(op, "c", "a") for op in act)]
    nodes += [node("Add", ("a" if act else "c") + " g", "y")]
    check(nodes, {"w": W, "b": B}, ["GlobalAveragePool", "FusedConv"])


def test_signals_have_epilogues_too() -> None:
    proto = model(
        [node("Conv", "x w b", "c", pads=[1, 1]), node("Relu", "c", "a"), node("Add", "a x", "y")],
        {"w": W[..., 0], "b": B},
        shape=(2, 8, 50),
    )
    session, before = door.InferenceSession(proto), door.InferenceSession(proto, plain())
    assert ops(session) == ["FusedConv"]
    x = uniform(2, 8, 50)
    close(session.run(None, {"x": x}), before.run(None, {"x": x}))


ENLARGED = [
    node("Resize", "a - twice", "r", mode="nearest", coordinate_transformation_mode="asymmetric"),
    node("Concat", "x r x", "j", axis=1),
]


def enlarged_constants(seed: int = 0) -> dict[str, Any]:
    return {
        "v": uniform(20, 8, 3, 3, seed=seed) / 8, "w": uniform(8, 36, 1, 1, seed=seed + 1) / 6, "b": B,
        "twice": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip


# Half of x's size, whatever that is.
HALF = node("Conv", "x v", "a", strides=[2, 2], pads=[1, 1, 1, 1])


def check_even(nodes: list[Any], constants: dict[str, Any], expected: list[str], **keywords: Any) -> None:
    proto = model(nodes, constants, shape=(2, 8, 10, 12), **keywords)
    session, before = door.InferenceSession(proto), door.InferenceSession(proto, plain())
    assert ops(session) == expected
    x = uniform(2, 8, 10, 12, seed=3)
    for _ in range(2):
        close(session.run(None, {"x": x}), before.run(None, {"x": x}))


def test_pointwise_convolutions_come_before_enlarging() -> None:
    conv, act = node("Conv", "j w b", "c"), node("Relu", "c", "y")
    moved = ["Conv", "Conv", "Resize", "JoinedConv"]
    check_even([HALF, *ENLARGED, conv, act], enlarged_constants(), moved)
    check_even([HALF, *ENLARGED, node("Conv", "j w", "y")], enlarged_constants(), moved)
    # The other image alone is not joined, and the number of channels is found before an activation.
    pair = [
        node("Relu", "a", "p"),
        node("Resize", "p - twice", "r", mode="nearest"),
        node("Concat", "r x", "j", axis=-3),
    ]
    pair_constants = {**enlarged_constants(), "w": uniform(8, 28, 1, 1) / 6}
    silu = [node("Sigmoid", "c", "s"), node("Mul", "c s", "y")]
    check_even([HALF, *pair, conv, *silu], pair_constants, ["FusedConv", "Conv", "Resize", "FusedConv"])
    # Two convolutions read the joined image, as in YOLOv5.
    two = [conv, node("Conv", "j w", "d"), node("Mul", "c d", "y")]
    both = ["Conv", *(["Conv", "Resize", "JoinedConv"] * 2), "Mul"]
    check_even([HALF, *ENLARGED, *two], enlarged_constants(), both)


def test_enlarging_stays_where_it_is() -> None:
    conv = node("Conv", "j w b", "y")
    constants = enlarged_constants()
    stays, read = ["Conv", "Resize", "Concat", "Conv"], ["Conv", "Resize", "JoinedConv"]
    linear = node("Resize", "a - twice", "r", mode="linear", coordinate_transformation_mode="asymmetric")
    check_even([HALF, linear, ENLARGED[1], conv], constants, read)
    wide = {**constants, "w": uniform(8, 36, 3, 3) / 18}
    check_even([HALF, *ENLARGED, node("Conv", "j w b", "y", pads=[1, 1, 1, 1])], wide, stays)
    check_even([HALF, *ENLARGED, node("Conv", "j w b", "y", strides=[2, 2])], constants, stays)
    # Others see the enlarged image, the joined one, or the sizes are not constants.
    check_even([HALF, *ENLARGED, conv], constants, read, outputs="y r")
    check_even([HALF, *ENLARGED, conv], constants, stays, outputs="y j")
    sizes = np.array([2, 20, 10, 12])
    by_sizes = node("Resize", "a - - sizes", "r", mode="nearest")
    check_even([HALF, by_sizes, ENLARGED[1], conv], {**constants, "sizes": sizes}, read)
    # Few channels are enlarged for less than the sum would cost.
    few = {**constants, "v": uniform(4, 8, 3, 3) / 8, "w": uniform(8, 20, 1, 1) / 6}
    check_even([HALF, *ENLARGED, conv], few, read)


def test_pointwise_convolutions_read_the_parts_of_a_joined_image() -> None:
    parts = [node("Relu", "x", "p"), node("MaxPool", "x", "q", kernel_shape=[3, 3], pads=[1] * 4)]
    join, conv = node("Concat", "p x q", "j", axis=1), node("Conv", "j w b", "c")
    constants = {"w": uniform(8, 24, 1, 1) / 5, "b": B, "channel": uniform(8, 1, 1, seed=7), **SIX}
    before = ["Relu", "MaxPool"]
    check([*parts, join, node("Conv", "j w", "y")], constants, [*before, "JoinedConv"])
    for chain in EPILOGUES.values():
        check([*parts, join, conv, *chain], constants, [*before, "JoinedConv"])
    # Two of them, or somebody else who reads the joined image.
    two = [conv, node("Conv", "j w", "d"), node("Mul", "c d", "y")]
    check([*parts, join, *two], constants, [*before, "JoinedConv", "JoinedConv", "Mul"])
    other = [conv, node("Tanh", "j", "t"), node("Concat", "c t", "y", axis=1)]
    check([*parts, join, *other], constants, [*before, "Concat", "Conv", "Tanh", "Concat"])
    # Windows of several pixels, groups, strides, and images side by side along another dimension.
    stays = [*before, "Concat", "Conv"]
    for shape, attributes in (((8, 24, 3, 3), {}), ((8, 12, 1, 1), {"group": 2}), ((8, 24, 1, 1), {"strides": [2, 1]})):
        check([*parts, join, node("Conv", "j v", "y", **attributes)], {"v": uniform(*shape) / 9}, stays)
    rows = [node("Concat", "p x q", "j", axis=2), node("Conv", "j v", "y")]
    check([*parts, *rows], {"v": uniform(8, 8, 1, 1)}, stays)


def test_joined_convolutions_of_what_is_no_dense_image() -> None:
    """Planes, a residual that is broadcast, and another type."""
    join, conv = node("Concat", "x s", "j", axis=1), node("Conv", "j w", "c")
    split = [node("Slice", "x from to axes", "s"), node("GlobalAveragePool", "x", "g")]
    bounds = {"from": np.array([2]), "to": np.array([6]), "axes": np.array([1])}
    constants = {"w": uniform(8, 12, 1, 1) / 4, **bounds}
    check([*split, join, conv, node("Add", "c g", "y")], constants, ["Slice", "GlobalAveragePool", "JoinedConv"])
    proto = model(
        [node("Cast", "x", "d", to=11), node("Concat", "d d", "j", axis=1), node("Conv", "j w", "y")],
        {"w": uniform(8, 16, 1, 1).astype(np.float64)},
    )
    session, before = door.InferenceSession(proto), door.InferenceSession(proto, plain())
    assert ops(session) == ["Cast", "JoinedConv"]
    x = uniform(2, 8, 9, 11)
    close(session.run(None, {"x": x}), before.run(None, {"x": x}))


def test_what_a_branch_reads_stays() -> None:
    """Rules change the graph itself, and no node of a branch of it."""

    def branches(op: str, inputs: list[str]) -> Any:
        def graph(kind: str, read: list[str], name: str) -> Any:
            made = onnx.helper.make_node(kind, read, [name])
            return onnx.helper.make_graph([made], name, [], [onnx.helper.make_empty_tensor_value_info(name)])

        return onnx.helper.make_node(
            "If", ["yes"], ["y"], then_branch=graph(op, inputs, "t"), else_branch=graph("Neg", ["x"], "e")
        )

    constants = {"w": W, "v": uniform(8, 16, 1, 1), "yes": np.array(True)}
    check([CONV, branches("Relu", ["c"])], {**constants, "b": B}, ["Conv", "If"])
    join = node("Concat", "x x", "j", axis=1)
    check([join, branches("Conv", ["j", "v"])], constants, ["Concat", "If"])
    zeros = {**constants, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    check([node("Pad", "x pads", "p"), branches("Conv", ["p", "w"])], zeros, ["Pad", "If"])

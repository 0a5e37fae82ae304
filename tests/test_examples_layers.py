"""The examples' layers: gradients against differences, layouts against each other, threads and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from examples.training import losses, models, optimizers, schedules, workers
from examples.training.layers import Context
from examples.training.network import KINDS, Network, assemble, leaves

LAYOUTS = ("NCHW", "NHWC")

TABLES: dict[str, Any] = {
    "conv": (("conv", 5, 3, {"stride": 2}),),
    "conv without bias": (("conv", 4, (1, 3), {"bias": False, "groups": 2}),),
    "depthwise": (("depthwise", 3),),
    "deconv": (("deconv", 3, 3),),
    "deconv that touches": (("deconv", 3, 2),),
    "deconv of four": (("deconv", 2, 4),),
    "dense": (("flatten",), ("dense", 7)),
    "flatten": (("flatten",),),
    "dropout": (("dropout", 0.3),),
    "relu": (("relu",),),
    "relu in place": (("conv", 4, 1), ("relu",), ("conv", 3, 1)),
    "relu6": (("relu6",),),
    "leaky relu": (("leaky_relu", 0.2),),
    "sigmoid": (("sigmoid",),),
    "tanh": (("tanh",),),
    "pool": (("pool", 2),),
    "pool of three": (("pool", 3, 2),),
    "pool at the edge": (("pool", 3, 1, {"padding": 1}),),
    "pool beyond the edge": (("pool", 3, 2, {"ceil": True}),),
    "pool that leaves pixels out": (("pool", 4),),
    "pool of one pixel": (("pool", 1, 2),),
    "average": (("average", 2),),
    "average at the edge": (("average", 3, 1, {"padding": 1}),),
    "global average": (("global_average",),),
    "upsample": (("upsample", 3),),
    "norm": (("norm",),),
    "relu after norm": (("norm",), ("relu",)),
    "relu before pool": (("conv", 4, 3), ("relu",), ("pool", 2)),
    "residual": (("residual", (("conv", 4, 3), ("norm",)), (("conv", 4, 1),)),),
    "residual around nothing": (("residual", (("norm",), ("relu",)), ()), ("relu",)),
    "concatenate": (("concatenate", (("conv", 3, 3), ("relu",)), (("pool", 3, 1, {"padding": 1}),), ()),),
    "dense block": (
        ("concatenate", (), (("norm",), ("relu",), ("conv", 3, 3))),
        ("concatenate", (), (("norm",), ("relu",), ("conv", 3, 3))),
    ),
}  # fmt: skip


def build(table: Any, layout: str = "NCHW", image: tuple[int, ...] = (4, 6, 7), **context: Any) -> Network:
    network = Network(table, image, Context(layout, "float64", threads=1, **context), input_gradient=True)
    rng = np.random.default_rng(5)
    network.values += 0.3 * rng.standard_normal(network.values.shape)  # scales and shifts other than one and zero
    return network


def in_layout(x: Any, layout: str) -> Any:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if layout == "NHWC" and x.ndim == 4 else x


def in_nchw(x: Any, layout: str) -> Any:
    return x.transpose(0, 3, 1, 2) if layout == "NHWC" and x.ndim == 4 else x


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    workers.set_threads(1)


def test_every_kind_of_layer_is_in_a_table() -> None:
    used = {row[0] for table in TABLES.values() for row in table}
    assert set(KINDS) | {"residual", "concatenate"} == used


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TABLES)
def test_gradients_are_what_differences_say(name: str, layout: str) -> None:
    network = build(TABLES[name], layout)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 4, 6, 7))
    weights = rng.standard_normal(network.context.image(3, network.out))

    def value(images: Any) -> float:
        network.context.step = 1
        return float((network.forward(network.images(images), training=True) * weights).sum())

    value(x)
    dx = in_nchw(network.backward(weights.copy()), layout)
    assert dx.shape == x.shape
    assert network.gradients.shape == network.values.shape
    gradients, step = network.gradients.copy(), 1e-6
    for _ in range(12):
        change = np.zeros_like(x)
        change.flat[rng.integers(x.size)] = step
        expected = (value(x + change) - value(x - change)) / (2 * step)
        assert (dx * change).sum() / step == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for i in rng.integers(max(network.values.size, 1), size=12 if network.values.size else 0):
        before = network.values[i]
        network.values[i] = before + step
        above = value(x)
        network.values[i] = before - step
        below = value(x)
        network.values[i] = before
        assert gradients[i] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", TABLES)
def test_both_layouts_and_any_number_of_threads_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PART", 512)  # parts of less than an image's worth
    rng = np.random.default_rng(4)
    x = rng.standard_normal((5, 4, 6, 7))
    results: dict[tuple[str, int], list[Any]] = {}
    for layout in LAYOUTS:
        for threads in (1, 3):
            workers.set_threads(threads)
            network = build(TABLES[name], layout)
            y = network.forward(network.images(x), training=True)
            dy = in_layout(np.cos(np.arange(in_nchw(y, layout).size)).reshape(in_nchw(y, layout).shape), layout)
            dx = network.backward(dy)
            results[layout, threads] = [in_nchw(y, layout), in_nchw(dx, layout), network.gradients]
    for layout in LAYOUTS:
        for one, three in zip(results[layout, 1], results[layout, 3], strict=True):
            np.testing.assert_array_equal(one, three)
    for one, other in zip(results["NCHW", 1], results["NHWC", 1], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_gradients_of_the_caller_stay_as_they_are(layout: str) -> None:
    for name, table in TABLES.items():
        network = build(table, layout)
        x = network.images(np.random.default_rng(6).standard_normal((2, 4, 6, 7)))
        for training in (False, True):
            kept = x.copy()
            y = network.forward(x, training)
            np.testing.assert_array_equal(x, kept, err_msg=name)
        dy = np.ones_like(y)
        network.backward(dy)
        np.testing.assert_array_equal(dy, 1, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_normalisation_keeps_its_digits_far_from_zero(layout: str) -> None:
    network = Network((("norm",),), (3, 16, 16), Context(layout, "float32", threads=1))
    x = np.random.default_rng(0).standard_normal((8, 3, 16, 16)) + 1000.0
    y = in_nchw(network.forward(network.images(x.astype(np.float32)), training=True), layout)
    exact = x.astype(np.float32).astype(float)
    mean, deviation = exact.mean(axis=(0, 2, 3), keepdims=True), exact.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, (exact - mean) / deviation, atol=2e-3)
    buffers = network.buffers()
    np.testing.assert_allclose(buffers["norm1.mean"], 0.1 * mean.ravel(), rtol=1e-6)
    np.testing.assert_allclose(buffers["norm1.variance"], 0.9 + 0.1 * exact.var(axis=(0, 2, 3), ddof=1), rtol=1e-5)


def test_frozen_normalisation_is_a_line() -> None:
    network = build((("norm",),))
    (layer,) = network.layers
    layer.buffers["mean"][:], layer.buffers["variance"][:] = 0.5, 4.0
    layer.frozen = True  # type: ignore[attr-defined]
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 7))
    y = network.forward(x, training=True)
    np.testing.assert_array_equal(y, network.forward(x))
    dx = network.backward(np.ones_like(y))
    slope = layer.parameters[0].value / np.sqrt(4.0 + 1e-5)
    np.testing.assert_allclose(dx, np.broadcast_to(slope[:, None, None], dx.shape))
    np.testing.assert_array_equal(layer.buffers["mean"], 0.5)


def test_dropout_is_drawn_for_the_joined_batch_and_off_in_inference() -> None:
    network = build((("dropout", 0.25),), seed=9)
    x = np.ones((8, 4, 6, 7))
    whole = network.forward(x, training=True).copy()
    assert set(np.unique(whole)) == {0.0, 1 / 0.75}
    assert 0.2 < (whole == 0).mean() < 0.3
    network.context.first, network.context.total = 3, 8
    np.testing.assert_array_equal(network.forward(x[:2], training=True), whole[3:5])
    network.context.first, network.context.total, network.context.step = 0, 0, 1
    assert (network.forward(x, training=True) != whole).any()
    np.testing.assert_array_equal(network.forward(x), x)


def test_memory_is_used_again_only_when_nobody_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_blocks", [])
    first = workers.empty((300, 300), np.float32)
    address = first.ctypes.data
    view = first[5:]
    second = workers.empty((300, 300), np.float32)
    assert second.ctypes.data != address
    del first
    third = workers.empty((300, 300), np.float32)
    assert third.ctypes.data not in (address, second.ctypes.data)
    view[...] = 1.0
    del view
    fourth = workers.empty((300, 300), np.float32)
    assert fourth.ctypes.data == address
    assert workers.empty((3,), np.float64).nbytes == 24


def test_parts_cover_everything_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PART", 64)
    for threads in (1, 2, 5):
        workers.set_threads(threads)
        found = workers.over_parts(lambda part: list(range(100))[part], np.zeros((100, 2)))
        assert [i for part in found for i in part] == list(range(100))
    assert workers.over_parts(lambda part: part, np.zeros((0, 2))) == []
    with pytest.raises(ValueError, match="threads must be at least 1"):
        workers.set_threads(0)

    def fail(part: slice) -> None:
        raise RuntimeError("in a part")

    with pytest.raises(RuntimeError, match="in a part"):
        workers.over_parts(fail, np.zeros((100, 2)))


def test_losses_are_what_their_differences_say() -> None:
    rng = np.random.default_rng(0)
    y, labels, images = rng.standard_normal((4, 5)), np.array([0, 4, 2, 2]), rng.standard_normal((4, 5))
    for loss, target in ((losses.softmax_cross_entropy, labels), (losses.mean_squared_error, images)):
        value, gradient = loss(y, target, 4)
        for i in range(y.size):
            change = np.zeros_like(y)
            change.flat[i] = 1e-6
            slope = (loss(y + change, target, 4)[0] - loss(y - change, target, 4)[0]) / 2e-6
            assert gradient.flat[i] == pytest.approx(slope, rel=1e-6, abs=1e-9)
        # Shares of a joined batch add up to the whole.
        parts = [loss(y[part], target[part], 4) for part in (slice(0, 1), slice(1, 4))]
        assert sum(part for part, _ in parts) == pytest.approx(value)
        np.testing.assert_allclose(np.concatenate([g for _, g in parts]), gradient)
    assert losses.softmax_cross_entropy(np.array([[1e4, 0.0]]), np.array([1]), 1)[0] == pytest.approx(1e4)


def test_schedules() -> None:
    assert [schedules.constant(0.1)(step) for step in (0, 99)] == [0.1, 0.1]
    assert [schedules.staircase(1.0, 10)(step) for step in (9, 10, 20)] == pytest.approx([1.0, 0.1, 0.01])
    assert [schedules.exponential(1.0, 10, 0.01)(step) for step in (0, 5, 10, 99)] == pytest.approx(
        [1, 0.1, 0.01, 0.01]
    )
    assert [schedules.cosine(1.0, 10, 0.2)(step) for step in (0, 5, 10, 11)] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert [schedules.warmup(4, schedules.constant(1.0))(step) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]


def test_optimizers_step_as_their_formulas_say() -> None:
    network = build((("flatten",), ("dense", 3)))
    span = network.spans["dense1"]
    gradient = np.random.default_rng(1).standard_normal(network.values.shape)
    w, v = network.values.copy(), np.zeros_like(gradient)
    sgd = optimizers.SGD(network, 0.9, 0.01)
    for _ in range(3):
        network.gradients[...] = gradient
        sgd.steps += 1
        sgd.update(span, 0.1)
        v = 0.9 * v + gradient + 0.01 * w
        w = w - 0.1 * v
    np.testing.assert_allclose(network.values, w, rtol=1e-12)
    mean, square = np.zeros_like(w), np.zeros_like(w)
    adam = optimizers.Adam(network)
    for step in range(1, 4):
        adam.steps += 1
        adam.update(span, 0.01)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        w = w - 0.01 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(network.values, w, rtol=1e-10)


def test_tables_that_cannot_be() -> None:
    context = Context()
    with pytest.raises(ValueError, match=r"unknown kind of layer 'convolution'; known are residual.*conv"):
        Network((("convolution", 3),), (1, 8, 8), context)
    with pytest.raises(ValueError, match="cannot be added"):
        Network((("residual", (("conv", 3, 3),), ()),), (1, 8, 8), context)
    with pytest.raises(ValueError, match="images of different sizes"):
        Network((("concatenate", (("pool", 2),), ()),), (1, 8, 8), context)
    with pytest.raises(ValueError, match="does not fit an image of 2x8"):
        Network((("pool", 3),), (1, 2, 8), context)
    with pytest.raises(ValueError, match="at least its stride"):
        Network((("deconv", 3, 1),), (1, 2, 8), context)
    with pytest.raises(ValueError, match="unknown model 'vgg12'"):
        models.get("vgg12")


@pytest.mark.parametrize("name", [name for name in models.MODELS if models.get(name).layers])
def test_tables_have_the_convolutions_of_the_publications(name: str) -> None:
    from convkit import networks
    from examples.training.layers import Conv2d, ConvTranspose2d

    model = models.get(name)
    published = networks.get(model.layers)
    body, _ = assemble(model.table, model.image, Context())
    assert sum(p.size for layer in leaves(body) for p in layer.parameters) == published.parameters
    found = [layer for layer in leaves(body) if isinstance(layer, Conv2d | ConvTranspose2d)]
    assert sum(layer.count for layer in published.layers) == len(found)
    sizes = sorted(
        (layer.o, layer.c // layer.groups, layer.kh, layer.kw, layer.stride[0])
        for layer in published.layers for _ in range(layer.count)
    )  # fmt: skip
    assert sorted((*layer.parameters[0].shape, layer.stride) for layer in found) == sizes


@pytest.mark.parametrize("shape", [(0, 3, 5), (1, 1, 1), (7, 300, 5000), (5000, 40, 3), (129, 735, 128)])
def test_products_are_those_of_numpy_with_the_same_bits_for_any_number_of_threads(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((rows, inner)), rng.standard_normal((columns, inner)).T
    found = []
    for threads in (1, 2, 3):
        workers.set_threads(threads)
        found.append(workers.product(a, b, out=np.full((rows, columns), np.nan)))
    workers.set_threads(1)
    assert all(np.array_equal(one, found[0]) for one in found)
    np.testing.assert_allclose(found[0], a @ b, rtol=1e-12, atol=1e-12 * inner)

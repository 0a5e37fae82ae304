"""Layers that borrow weights, scale them when they are packed, or keep no packing, with every kernel there is."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from calls import Array, check, normal

import convkit as ck
from convkit import _core, reference

SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 6, 9, 10), (5, 6, 3, 3), {"padding": 1}),
    ((1, 16, 6, 6), (24, 16, 1, 1), {}),
    ((2, 4, 9, 9), (6, 2, 3, 3), {"stride": 2, "padding": 1, "groups": 2}),
    ((1, 8, 8, 7), (8, 1, 3, 3), {"padding": 1, "groups": 8}),
    ((1, 3, 12, 12), (8, 3, 5, 5), {"stride": 2, "padding": 2}),
)


def orders(w: Array) -> Iterator[Array]:
    """The same filters, as different programs hold them."""
    yield w
    yield np.ascontiguousarray(w.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    yield np.ascontiguousarray(w[::-1, :, :, ::-1])[::-1, :, :, ::-1]
    yield np.repeat(w, 2, axis=0)[::2]


def kernels_for(x: Array, w: Array, op: str = "forward", **options: Any) -> list[str]:
    """Names of all kernels that take a layer's problem."""
    if op == "forward":
        problem = _core.problem_of(x, w, **options)[0]
    else:
        problem = ck.explain(x, w, op=op, **options).problem.to_core()
    return [k["name"] for k in _core.kernels() if _core.applies(k["index"], problem)]


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), SHAPES)
def test_any_kernel_reads_borrowed_weights(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], layout: str, memory: str
) -> None:
    x, w, bias = normal(*x_shape), normal(*w_shape), normal(w_shape[0])
    scale = normal(w_shape[0], seed=1)
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    asked: dict[str, Any] = {**options, "layout": layout}
    expected = {False: w, True: w * scale[:, None, None, None]}
    for name in kernels_for(x, w, **asked):
        for i, held in enumerate(orders(w)):
            for scaled in (False, True):
                conv = ck.Conv2d(
                    held, bias, weight_scale=scale if scaled else None, copy=False, memory=memory,
                    algorithm=name, num_threads=1 + i % 2, **asked,
                )  # fmt: skip
                assert np.shares_memory(conv.weight, held)
                for _ in range(2):
                    check(conv(x), x, expected[scaled], bias, **asked)
                assert conv.nbytes == bias.nbytes + scaled * scale.nbytes + conv.packed_nbytes
                if memory == "low":
                    assert conv.packed_nbytes == 0


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_any_kernel_of_a_transposed_convolution_reads_borrowed_weights(layout: str, memory: str) -> None:
    options: dict[str, Any] = {"stride": 2, "padding": 1, "groups": 2}
    x, w, bias, scale = normal(2, 6, 5, 6), normal(6, 4, 4, 4), normal(8), normal(8, seed=1)
    factors = np.repeat(scale.reshape(2, 1, 4), 3, axis=1).reshape(6, 4)[:, :, None, None]
    expected = reference.conv_transpose2d(x, w * factors, bias, **options)
    if layout == "NHWC":
        x, expected = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, expected))
    y_shape = (2, 8, 10, 12) if layout == "NCHW" else (2, 10, 12, 8)
    for name in kernels_for(np.zeros(y_shape, np.float32), w, op="input_grad", layout=layout, **options):
        for held in orders(w):
            up = ck.ConvTranspose2d(
                held, bias, weight_scale=scale, copy=False, memory=memory, algorithm=name, layout=layout, **options
            )
            for _ in range(2):
                np.testing.assert_allclose(up(x), expected, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_is_scaled_at_once(dtype: str) -> None:
    x, w, scale = normal(1, 3, 8, 8, dtype=dtype), normal(4, 3, 3, 3, dtype=dtype), normal(4, dtype=dtype)
    expected = w * scale[:, None, None, None]
    conv = ck.Conv2d(w, weight_scale=scale)
    assert np.array_equal(conv.weight, expected)
    for layer in (conv, copy.copy(conv), copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        check(layer(x), x, expected)
        assert layer.nbytes == w.nbytes + layer.packed_nbytes
    conv.update(w, weight_scale=2)
    check(conv(x), x, 2 * w)
    conv.update(w)
    check(conv(x), x, w)


def test_copies_and_pickles_of_a_layer_that_borrows() -> None:
    x, w, scale = normal(1, 3, 8, 8), normal(4, 3, 3, 3), normal(4)
    conv = ck.Conv2d(w, weight_scale=scale, copy=False, memory="low", padding=1)
    expected = w * scale[:, None, None, None]
    for layer in (conv, copy.copy(conv), copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        check(layer(x), x, expected, padding=1)
        assert layer.nbytes == scale.nbytes
        assert "weight_scale, copy=False, memory='low'" in repr(layer)


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_an_update_may_bring_another_order_or_scale(memory: str) -> None:
    x, (dense, last, *_) = normal(1, 6, 8, 8), list(orders(normal(8, 6, 3, 3)))
    conv = ck.Conv2d(dense, copy=False, memory=memory)
    check(conv(x), x, dense)
    for w, scale in ((2 * last, None), (dense, 3.0), (last, None), (-last, -1.0)):
        held = np.asarray(w).copy(order="K")
        conv.update(held, weight_scale=scale)
        assert np.shares_memory(conv.weight, held)
        check(conv(x), x, w * (1 if scale is None else scale))


def test_what_kernels_cannot_read_is_copied() -> None:
    x = normal(1, 3, 8, 8)
    memory = np.zeros(4 * 3 * 9 * 4 + 1, np.uint8)
    odd = memory[1:].view(np.float32).reshape(4, 3, 3, 3)
    odd[...] = normal(4, 3, 3, 3)
    records = np.zeros((4, 3, 3, 3), dtype=[("pad", "u1"), ("w", "f4")])
    records["w"] = odd
    for w in (odd, records["w"]):
        conv = ck.Conv2d(w, copy=False)
        assert not np.shares_memory(conv.weight, w)
        check(conv(x), x, np.ascontiguousarray(w))


def test_borrowed_weights_live_as_long_as_the_layer() -> None:
    x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
    kept, references = w.copy(), sys.getrefcount(w)
    conv = ck.Conv2d(w, copy=False)
    assert sys.getrefcount(w) == references + 1
    conv(x)
    conv.update(w)
    assert sys.getrefcount(w) == references + 1
    del conv
    assert sys.getrefcount(w) == references
    conv = ck.Conv2d(w, copy=False)
    del w
    gc.collect()
    check(conv(x), x, kept)


def test_infinite_weights_meet_the_padding() -> None:
    x = normal(1, 2, 5, 5)
    w = normal(3, 2, 3, 3)
    w[1, 0, 0, 0] = np.inf
    scale = np.array([1, 2, np.inf], np.float32)
    for weights, factor in ((w, None), (normal(3, 2, 3, 3), scale), (w, np.float32(2))):
        scaled = weights if factor is None else weights * np.reshape(factor, (-1, 1, 1, 1))
        expected = ck.conv2d(x, scaled, padding=1, accuracy="strict")
        for memory in ("fast", "low"):
            for borrowed in (False, True):
                conv = ck.Conv2d(
                    weights, weight_scale=factor, copy=not borrowed, memory=memory, padding=1, accuracy="strict"
                )
                np.testing.assert_array_equal(np.isnan(conv(x)), np.isnan(expected))


def test_refusals() -> None:
    w = normal(4, 3, 3, 3)
    for value in ("slow", 1, None, b"low"):
        with pytest.raises(ValueError, match="memory must be 'fast' or 'low', not"):
            ck.Conv2d(w, memory=value)
    for value in (1, None, "no"):
        with pytest.raises(TypeError, match="copy must be True or False, not"):
            ck.Conv2d(w, copy=value)
    with pytest.raises(ValueError, match=r"weight_scale has shape \(3,\), w of shape .* needs a number or \(4,\)"):
        ck.Conv2d(w, weight_scale=normal(3))
    with pytest.raises(TypeError, match="w has dtype float32 and weight_scale has dtype float64"):
        ck.Conv2d(w, weight_scale=np.ones(4))

"""Conv2d: its own weights, packings, copies and signatures."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
from calls import check, normal

import convkit as ck
from convkit import _core


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_many_signatures_of_one_layer(layout: str, dtype: str) -> None:
    w, bias = normal(6, 2, 3, 3, dtype=dtype), normal(6, dtype=dtype)
    options: dict[str, Any] = {
        "stride": (1, 2), "padding": "same_upper", "groups": 2, "layout": layout, "activation": "relu6",
    }  # fmt: skip
    conv = ck.Conv2d(w, bias, **options)
    shapes = [(2, 4, 9, 8), (1, 4, 5, 5), (0, 4, 5, 5), (3, 4, 9, 8)]
    for _ in range(2):
        for n, c, h, width in shapes:
            x = normal(n, c, h, width, dtype=dtype) if layout == "NCHW" else normal(n, h, width, c, dtype=dtype)
            check(conv(x), x, w, bias, **options)
            other = np.asfortranarray(x)
            check(conv(other), x, w, bias, **options)


def test_out_and_residual() -> None:
    x, w = normal(2, 3, 8, 7), normal(4, 3, 3, 3)
    conv = ck.Conv2d(w, padding=1)
    y = conv(x)
    residual = normal(2, 4, 8, 7)
    out = np.empty_like(y)
    assert conv(x, out) is out
    assert np.array_equal(out, y)
    check(conv(x, None, residual), x, w, padding=1, residual=residual)
    check(conv(x=x, residual=residual, out=out), x, w, padding=1, residual=residual)
    kept = residual.copy()
    assert conv(x, residual, residual) is residual
    check(residual, x, w, padding=1, residual=kept)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_layer_has_factors_of_its_own(layout: str) -> None:
    x = normal(2, 3, 8, 7) if layout == "NCHW" else normal(2, 8, 7, 3)
    w, bias, scale = normal(4, 3, 3, 3), normal(4), normal(4)
    options: dict[str, Any] = {"padding": 1, "layout": layout, "activation": "gelu"}
    residual = normal(2, 4, 8, 7) if layout == "NCHW" else normal(2, 8, 7, 4)
    kept = scale.copy()
    conv = ck.Conv2d(w, bias, scale=scale, shift=0.5, residual_after=True, **options)
    scale[...] = 0
    asked = {"scale": kept, "shift": 0.5, "residual_after": True, **options}
    for layer in (conv, copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        check(layer(x), x, w, bias, **asked)
        check(layer(x, residual=residual), x, w, bias, residual=residual, **asked)
        out = residual.copy()
        check(layer(x, out=out, residual=out), x, w, bias, residual=residual, **asked)
    assert "scale, shift, residual_after=True" in repr(conv)
    assert conv.nbytes - conv.packed_nbytes == w.nbytes + 3 * bias.nbytes
    conv.update(w, bias)
    check(conv(x), x, w, bias, **asked)
    conv.update(w, bias, shift=kept, scale=2)
    asked.update(scale=2, shift=kept)
    for layer in (conv, copy.copy(conv)):
        check(layer(x), x, w, bias, **asked)
    plain = ck.Conv2d(w, bias)
    for name in ("scale", "shift"):
        with pytest.raises(ValueError, match=f"this Conv2d was made without a {name}"):
            plain.update(w, bias, **{name: 1})
        with pytest.raises(
            ValueError, match=rf"{name} has shape \(3,\), w of shape \(4, 3, 3, 3\) needs a number or \(4,\)"
        ):
            ck.Conv2d(w, **{name: normal(3)})
        with pytest.raises(TypeError, match=f"w has dtype float32 and {name} has dtype float64"):
            ck.Conv2d(w, **{name: np.ones(4)})


def test_it_owns_its_weights() -> None:
    x, w, bias = normal(1, 3, 8, 8), normal(4, 3, 3, 3), normal(4)
    conv = ck.Conv2d(w, bias)
    kept = w.copy(), bias.copy()
    w[...] = 0
    bias[...] = 0
    check(conv(x), x, *kept)
    assert np.array_equal(conv.weight, kept[0])
    assert np.array_equal(conv.bias, kept[1])
    assert not conv.weight.flags.writeable
    assert conv.weight.flags.c_contiguous
    assert ck.Conv2d(w).bias is None


def test_update_replaces_packings() -> None:
    x, bias = normal(1, 8, 12, 12), normal(16)
    first, second = normal(16, 8, 3, 3), normal(16, 8, 3, 3, seed=1)
    conv = ck.Conv2d(first, bias)
    check(conv(x), x, first, bias)
    before, nbytes = _core.counters()["plan_misses"], conv.nbytes
    conv.update(second, bias * 2)
    check(conv(x), x, second, bias * 2)
    assert _core.counters()["plan_misses"] == before, "an update asks nobody again"
    assert conv.nbytes == nbytes


def test_nbytes_counts_packings_once() -> None:
    w = normal(16, 8, 3, 3)
    conv = ck.Conv2d(w, normal(16))
    assert conv.nbytes == w.nbytes + 64
    assert conv.packed_nbytes == 0
    conv(normal(1, 8, 12, 12))
    packed = conv.packed_nbytes
    for _ in range(3):
        conv(normal(1, 8, 12, 12))
    assert conv.packed_nbytes == packed
    assert conv.nbytes == w.nbytes + 64 + packed


def test_packings_of_losers_are_dropped() -> None:
    x, w = normal(1, 8, 12, 12), normal(16, 8, 3, 3)
    problem, threads = _core.problem_of(x, w)
    problem = (*problem[:-1], 1)
    kernels = [k["index"] for k in _core.kernels() if k["direct"] and _core.applies(k["index"], problem)]
    packings = {index: _core.packing(index, problem, _core.candidates(index, problem, threads)[0]) for index in kernels}
    asked = iter(kernels)

    def choose(problem: Any, threads: int, *_: Any) -> Any:
        index = next(asked, kernels[0])
        return index, _core.candidates(index, problem, threads)[0], None if index == last else (lambda _: None), False

    last = next(index for index in reversed(kernels) if packings[index][0])
    from convkit.tuner.modes import chooser

    _core.set_chooser(choose)
    try:
        conv = ck.Conv2d(w)
        for _ in range(len(kernels)):
            check(conv(x), x, w)
        assert conv.packed_nbytes > 0
        assert conv.packed_nbytes < packings[last][1] + 8192, "one packing, in whole pages"
    finally:
        _core.set_chooser(chooser)


def test_copies_and_pickles_carry_weights_not_packings() -> None:
    x, w, bias = normal(1, 3, 8, 8), normal(4, 3, 3, 3), normal(4)
    options: dict[str, Any] = {
        "stride": 2,
        "padding": ((1, 0), (0, 1)),
        "activation": ("clip", -1.0, 1.0),
        "num_threads": 2,
    }
    conv = ck.Conv2d(w, bias, **options)
    y = conv(x)
    for other in (copy.copy(conv), copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert type(other) is ck.Conv2d
        assert other.packed_nbytes == 0
        assert other.weight.ctypes.data != conv.weight.ctypes.data
        assert np.array_equal(other(x), y)
        assert repr(other).split(";")[0] == repr(conv).split(";")[0]
    assert len(pickle.dumps(conv)) < w.nbytes + 2000
    bare = pickle.loads(pickle.dumps(ck.Conv2d(w)))
    assert bare.bias is None


def test_repr_says_what_it_is() -> None:
    text = repr(ck.Conv2d(normal(64, 3, 7, 5), normal(64), stride=2, padding=(3, 2), activation="relu"))
    assert text.startswith("<convkit.Conv2d 3 -> 64, 7x5, float32, bias, stride=2, padding=(3, 2), activation='relu'; ")
    assert "Conv2d 8 -> 4" in repr(ck.Conv2d(normal(4, 4, 1, 1, dtype="float64"), groups=2))


def test_subclasses_work() -> None:
    class Scaled(ck.Conv2d):  # type: ignore[misc]
        """Twice the result."""

        def __call__(self, x: Any) -> Any:
            return 2 * super().__call__(x)

    x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
    assert np.array_equal(Scaled(w)(x), 2 * ck.Conv2d(w)(x))
    assert np.array_equal(pickle.loads(pickle.dumps(ck.Conv2d(w)))(x), ck.Conv2d(w)(x))


def test_memory_is_given_back() -> None:
    conv = ck.Conv2d(normal(4, 3, 3, 3), normal(4), accuracy="strict")
    conv(normal(1, 3, 8, 8))
    reference = weakref.ref(conv)
    weight = conv.weight
    kept = weight.copy()
    del conv
    gc.collect()
    assert reference() is None
    assert np.array_equal(weight, kept), "a view of the weights outlives the layer"

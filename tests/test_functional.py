"""conv2d: arguments, memory orders, strides, outputs, plans. Which kernel answers is not this file's business."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from calls import Array, check, check_call, normal
from hypothesis import given
from hypothesis import strategies as st

import convkit as ck
from convkit import _core

LAYOUTS = ("NCHW", "NHWC")


def image(layout: str, n: int, c: int, h: int, w: int, dtype: str = "float32") -> Array:
    """A normal tensor of these sizes, dense in `layout`."""
    return normal(n, c, h, w, dtype=dtype) if layout == "NCHW" else normal(n, h, w, c, dtype=dtype)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Array, Array, Array | None, dict[str, Any]]:
    """Arguments of conv2d, with memory orders and strides of all kinds."""
    dtype = draw(st.sampled_from(["float32", "float64"]))
    layout = draw(st.sampled_from(LAYOUTS))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    n, c, o = draw(st.integers(1, 3)), groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 6))
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    least = [max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(kernel, dilation, pads, strict=True)]
    h, w = (size + draw(st.integers(0, 9)) for size in least)
    x = strided(draw, image(layout, n, c, h, w, dtype))
    weights = strided(draw, normal(o, c // groups, *kernel, dtype=dtype, seed=1))
    bias = strided(draw, normal(o, dtype=dtype, seed=2)) if draw(st.booleans()) else None
    activation = draw(st.sampled_from([None, "relu", "relu6", ("clip", -0.25, 0.5), "tanh", ("leaky_relu", 0.1)]))
    return (
        x,
        weights,
        bias,
        {
            "stride": stride,
            "padding": pads,
            "dilation": dilation,
            "groups": groups,
            "layout": layout,
            "activation": activation,
        },
    )


def strided(draw: st.DrawFn, array: Array) -> Array:
    """The same values behind other strides."""
    kind = draw(st.sampled_from(["dense", "permuted", "reversed", "sliced", "offset"]))
    if kind == "permuted":
        order = draw(st.permutations(range(array.ndim)))
        return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    if kind == "reversed":
        axis = draw(st.integers(0, array.ndim - 1))
        return np.flip(np.flip(array, axis).copy(), axis)
    if kind == "sliced":
        axis = draw(st.integers(0, array.ndim - 1))
        wide = np.full([2 * size if i == axis else size for i, size in enumerate(array.shape)], np.nan, array.dtype)
        part = wide[tuple(slice(None, None, 2) if i == axis else slice(None) for i in range(array.ndim))]
        part[...] = array
        return part
    if kind == "offset":
        memory = np.zeros(array.nbytes + 1, np.uint8)
        part = memory[1:].view(array.dtype).reshape(array.shape)
        part[...] = array
        return part
    return array


@given(calls())
def test_any_call(call: tuple[Array, Array, Array | None, dict[str, Any]]) -> None:
    x, w, bias, keywords = call
    check_call(x, w, bias, **keywords)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_defaults(layout: str, dtype: str) -> None:
    y = check_call(image(layout, 2, 3, 9, 8, dtype), normal(4, 3, 3, 3, dtype=dtype), layout=layout)
    assert y.flags.c_contiguous
    assert y.flags.writeable


def test_signature_is_the_documented_one() -> None:
    names = list(inspect.signature(ck.conv2d).parameters)
    assert names[:7] == ["x", "w", "bias", "stride", "padding", "dilation", "groups"]
    assert set(names[7:]) == {
        "layout", "activation", "residual", "scale", "shift", "residual_after", "out", "algorithm", "num_threads",
        "accuracy", "workspace_limit",
    }  # fmt: skip
    assert "Winograd" in inspect.getdoc(ck.conv2d).split("Parameters")[0]


def test_positional_and_named_arguments_agree() -> None:
    x, w, bias = normal(1, 4, 9, 9), normal(6, 2, 3, 3), normal(6)
    named = ck.conv2d(x=x, w=w, bias=bias, stride=2, padding=1, dilation=2, groups=2)
    assert np.array_equal(named, ck.conv2d(x, w, bias, 2, 1, 2, 2))
    # Names that are not interned compare by their text.
    assert np.array_equal(named, ck.conv2d(x, w, bias, **{"".join(["str", "ide"]): 2}, padding=1, dilation=2, groups=2))


@pytest.mark.parametrize(
    "padding", [0, 2, (1, 2), [1, 2], ((0, 1), (2, 3)), "valid", "same", "same_upper", "same_lower"]
)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 1)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_padding(padding: Any, kernel: tuple[int, int], dilation: int) -> None:
    y = check_call(normal(1, 3, 9, 10), normal(4, 3, *kernel), padding=padding, dilation=dilation)
    if isinstance(padding, str) and padding != "valid":
        assert y.shape[2:] == (9, 10)


@pytest.mark.parametrize("padding", ["same_upper", "same_lower"])
@pytest.mark.parametrize("size", [7, 8, 9])
def test_same_padding_with_strides(padding: str, size: int) -> None:
    y = check_call(normal(1, 3, size, size), normal(4, 3, 4, 2), stride=(2, 3), padding=padding)
    assert y.shape[2:] == (-(-size // 2), -(-size // 3))


def test_integers_of_other_types() -> None:
    x, w = normal(1, 3, 9, 9), normal(4, 3, 3, 3)
    y = ck.conv2d(x, w, stride=np.int64(2), padding=(np.uint8(1), 1), dilation=[1, np.int32(1)], groups=np.int16(1))
    assert np.array_equal(y, ck.conv2d(x, w, stride=2, padding=1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_batch_dimension(layout: str) -> None:
    x, w, residual = image(layout, 1, 3, 9, 8), normal(4, 3, 3, 3), image(layout, 1, 4, 9, 8)
    y = ck.conv2d(x[0], w, padding=1, layout=layout, residual=residual[0])
    assert y.ndim == 3
    check(y[None], x, w, padding=1, layout=layout, residual=residual)
    out = np.empty_like(y)
    assert ck.conv2d(x[0], w, padding=1, layout=layout, residual=residual[0], out=out) is out
    assert np.array_equal(out, y)


@pytest.mark.parametrize(
    "activation",
    [None, "relu", "relu6", ("clip", -0.5, 0.5), ("clip", -np.inf, 1), "silu", "hardswish", "sigmoid", "tanh",
     "gelu", "gelu_tanh", ("leaky_relu", 0.2)],
)  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS)
def test_activations_follow_bias_and_residual(layout: str, activation: Any) -> None:
    x, w = image(layout, 2, 5, 7, 6), normal(9, 5, 3, 3)
    check_call(x, w, normal(9), padding=1, layout=layout, activation=activation, residual=image(layout, 2, 9, 7, 6))


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scale_shift_and_residual_follow_the_activation(layout: str, activation: Any, dtype: str) -> None:
    x, w, residual = image(layout, 2, 5, 7, 6, dtype), normal(9, 5, 3, 3, dtype=dtype), image(layout, 2, 9, 7, 6, dtype)
    channels = normal(9, dtype=dtype), normal(9, dtype=dtype, seed=1)
    for scale, shift in ((0.2, None), (None, -1.5), channels, (channels[0], 3), (np.float32(-2), channels[1][::-1])):
        options: dict[str, Any] = {"padding": 1, "layout": layout, "activation": activation}
        check_call(x, w, channels[0], scale=scale, shift=shift, **options)
        for after in (False, True):
            check_call(x, w, scale=scale, shift=shift, residual=residual, residual_after=after, **options)
    check_call(x, w, residual=residual, residual_after=True, **options)


def test_factors_are_not_remembered_with_the_plan() -> None:
    x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
    for scale in (1.0, -2.0, normal(4), normal(4, seed=1), normal(8)[::2], np.array(0.5), np.ones((), "float64")):
        check(ck.conv2d(x, w, scale=scale, shift=1), x, w, scale=scale, shift=1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_transposed_convolution_has_the_same_epilogue(layout: str) -> None:
    x, w, residual = image(layout, 2, 4, 5, 6), normal(4, 3, 4, 4), image(layout, 2, 3, 10, 12)
    options: dict[str, Any] = {"stride": 2, "padding": 1, "layout": layout, "activation": "gelu_tanh"}
    for scale, after in ((normal(3), True), (0.25, False)):
        keywords = {"scale": scale, "shift": normal(3), "residual_after": after, **options}
        expected = ck.reference.conv_transpose2d(x, w, normal(3), residual=residual, **keywords)
        layer = ck.ConvTranspose2d(w, normal(3), **keywords)
        for y in (ck.conv_transpose2d(x, w, normal(3), residual=residual, **keywords), layer(x, residual=residual)):
            np.testing.assert_allclose(y, expected, atol=1e-5)


def test_clip_values_are_not_remembered_with_the_plan() -> None:
    x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
    y = ck.conv2d(x, w, activation=("clip", -1e9, 1e9))
    for lo, hi in [(-1.0, 1.0), (0.0, 2.0), (-0.5, 0.25)]:
        assert np.array_equal(ck.conv2d(x, w, activation=("clip", lo, hi)), np.clip(y, np.float32(lo), np.float32(hi)))


@pytest.mark.parametrize(("lo", "hi"), [(None, 0.5), (-0.25, None), (None, None)])
def test_a_clip_may_have_one_side_only(lo: float | None, hi: float | None) -> None:
    x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
    expected = np.clip(ck.conv2d(x, w), -np.inf if lo is None else lo, np.inf if hi is None else hi)
    for y in (ck.conv2d(x, w, activation=("clip", lo, hi)), ck.Conv2d(w, activation=("clip", lo, hi))(x)):
        np.testing.assert_allclose(y, expected, atol=1e-5)


def test_nan_survives_activations() -> None:
    x, w = normal(1, 2, 4, 4), normal(3, 2, 1, 1)
    x[0, 0, 1, 2] = np.nan
    for activation in (None, "relu", "relu6", ("clip", -1, 1)):
        y = ck.conv2d(x, w, activation=activation, accuracy="strict")
        assert np.isnan(y[0, :, 1, 2]).all()
        assert np.isnan(y).sum() == 3


class TestMemory:
    def test_channels_last_view_gives_a_channels_last_result(self) -> None:
        x = normal(2, 7, 6, 5).transpose(0, 3, 1, 2)  # NCHW-shaped
        y = check_call(x, normal(4, 5, 3, 3))
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous

    def test_channels_first_view_gives_a_channels_first_result(self) -> None:
        x = normal(2, 5, 7, 6).transpose(0, 2, 3, 1)  # NHWC-shaped
        y = check_call(x, normal(4, 5, 3, 3), layout="NHWC")
        assert y.transpose(0, 3, 1, 2).flags.c_contiguous

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_ambiguous_memory_is_read_as_declared(self, layout: str) -> None:
        y = check_call(image(layout, 2, 1, 6, 5), normal(4, 1, 3, 3), layout=layout)
        assert y.flags.c_contiguous
        y = check_call(image(layout, 2, 5, 1, 1), normal(4, 5, 1, 1), layout=layout)
        assert y.flags.c_contiguous

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_strides_of_single_elements_do_not_matter(self, layout: str) -> None:
        x = image(layout, 1, 3, 1, 6)
        strides = [stride if size > 1 else 1234567 for size, stride in zip(x.shape, x.strides, strict=True)]
        odd = np.lib.stride_tricks.as_strided(x, x.shape, strides)
        w = normal(4, 3, 1, 3)
        odd_w = np.lib.stride_tricks.as_strided(w, w.shape, (w.strides[0], w.strides[1], -77, w.strides[3]))
        y = ck.conv2d(odd, odd_w, layout=layout)
        assert np.array_equal(y, ck.conv2d(x, w, layout=layout))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_negative_zero_and_partial_strides(self, layout: str) -> None:
        w = normal(4, 3, 3, 3)
        x = image(layout, 2, 3, 9, 8)
        check_call(x[::-1, ::-1, ::-1, ::-1], w[::-1, ::-1, ::-1, ::-1], layout=layout)
        check_call(np.broadcast_to(x[:1], x.shape), np.broadcast_to(w[:1], w.shape), layout=layout)
        check_call(np.broadcast_to(np.float32(0.5), x.shape), w, np.broadcast_to(np.float32(2), 4), layout=layout)
        fields = np.zeros(x.shape, dtype=[("tag", "i1"), ("value", "f4")])  # strides are no multiples of 4
        fields["value"] = x
        check_call(fields["value"], w, layout=layout)
        weights = np.zeros(w.shape, dtype=[("tag", "i1"), ("value", "f4")])
        weights["value"] = w
        check_call(x, weights["value"], layout=layout)

    @pytest.mark.parametrize("order", ["hwio", "ohwi"])
    def test_views_of_weights(self, order: str) -> None:
        hwio = order == "hwio"
        w = normal(3, 3, 5, 8).transpose(3, 2, 0, 1) if hwio else normal(8, 3, 3, 5).transpose(0, 3, 1, 2)
        check_call(normal(1, 5, 8, 8), w)

    def test_large_strided_copies_by_a_team(self) -> None:
        x = normal(2, 64, 70, 66)
        w = normal(3, 64, 1, 1)
        for view in (
            np.asfortranarray(x),
            x[:, :, ::-1],
            x[:, :, :, ::2],
            np.ascontiguousarray(x.swapaxes(1, 3)).swapaxes(1, 3),
        ):
            check(ck.conv2d(view, w, num_threads=3), view, w)

    def test_read_only_inputs(self) -> None:
        arrays = normal(1, 3, 8, 8), normal(4, 3, 3, 3), normal(4)
        for array in arrays:
            array.flags.writeable = False
        check_call(*arrays, residual=np.broadcast_to(np.float32(1), (1, 4, 6, 6)))

    def test_results_are_aligned_to_a_cache_line(self) -> None:
        w = normal(3, 2, 1, 1)
        for size in (1, 2, 3, 5, 9, 40):
            results = [ck.conv2d(normal(1, 2, size, size), w) for _ in range(5)]
            assert all(y.ctypes.data % 64 == 0 for y in results)

    def test_subclasses_of_ndarray_are_read_as_arrays(self, tmp_path: Any) -> None:
        x = normal(1, 3, 8, 8)
        mapped = np.memmap(tmp_path / "x", dtype=np.float32, mode="w+", shape=x.shape)
        mapped[...] = x
        y = ck.conv2d(mapped, normal(4, 3, 3, 3))
        assert type(y) is np.ndarray
        assert np.array_equal(y, ck.conv2d(x, normal(4, 3, 3, 3)))

    def test_memory_of_large_results_is_used_again(self) -> None:
        ck.clear_workspaces()
        x, w = normal(1, 1, 2048, 2112), normal(2, 1, 1, 1)
        first = ck.conv2d(x, w)
        kept, exact = first[0, 0, :4, :4].copy(), first[0, :, ::97, ::89].copy()
        view = first[0, 1]
        del first
        before = _core.counters()["outputs_recycled"]
        second = ck.conv2d(x, w)
        assert _core.counters()["outputs_recycled"] == before, "a view still holds the first result's memory"
        del view
        third = ck.conv2d(x, w)
        assert _core.counters()["outputs_recycled"] == before + 1
        for y in (second, third):
            assert np.array_equal(y[0, 0, :4, :4], kept)
            assert np.array_equal(y[0, :, ::97, ::89], exact)
        del second, third, y
        assert _core.counters()["free_output_bytes"] > 0

    def test_a_small_result_does_not_hold_a_large_block(self) -> None:
        ck.clear_workspaces()
        w = normal(2, 1, 1, 1)
        ck.conv2d(normal(1, 1, 1024, 1024), w)
        free = _core.counters()["free_output_bytes"]
        assert free >= 2 * 1024 * 1024 * 4
        x = normal(1, 1, 160, 160)
        y = ck.conv2d(x, w)
        assert _core.counters()["free_output_bytes"] == free
        del y
        recycled = _core.counters()["outputs_recycled"]
        ck.conv2d(x, w)
        assert _core.counters()["outputs_recycled"] == recycled + 1
        ck.clear_workspaces()
        assert _core.counters()["free_output_bytes"] == 0
        assert _core.counters()["free_workspace_bytes"] == 0

    def test_a_workspace_gives_way_to_a_larger_one(self) -> None:
        def kept(*sizes: int) -> int:
            ck.clear_workspaces()
            for size in sizes:
                ck.conv2d(normal(1, 8, size, size), normal(8, 8, 3, 3), algorithm="im2col", num_threads=1)
            return int(_core.counters()["free_workspace_bytes"])

        assert kept(96, 128, 160) == kept(160)
        assert kept(160, 128, 96) == kept(160)
        assert kept(24, 160) > kept(160), "a far larger one is not for small calls"


class TestOut:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_out_of_any_strides(self, layout: str) -> None:
        x, w, bias = image(layout, 2, 3, 8, 7), normal(4, 3, 3, 3), normal(4)
        y = ck.conv2d(x, w, bias, padding=1, layout=layout)
        outs = [
            np.empty_like(y),
            np.empty(y.shape[::-1], np.float32).T,
            np.empty_like(y)[:, ::-1, :, ::-1],
            np.empty((*y.shape[:3], 2 * y.shape[3]), np.float32)[..., 1::2],
            np.empty(y.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(y.shape),
        ]
        for out in outs:
            out[...] = np.nan
            assert ck.conv2d(x, w, bias, padding=1, layout=layout, out=out) is out
            assert np.array_equal(out, y)

    def test_neighbours_of_out_stay_as_they_are(self) -> None:
        memory = np.full((2, 8, 10, 10), 7, np.float32)
        x, w = normal(2, 3, 8, 8), normal(4, 3, 3, 3)
        out = memory[:, 2:6, 1:9, 1:9]
        ck.conv2d(x, w, padding=1, out=out)
        check(out, x, w, padding=1)
        memory[:, 2:6, 1:9, 1:9] = 7
        assert np.all(memory == 7)

    @pytest.mark.parametrize("strided_out", [False, True])
    def test_out_may_be_the_residual(self, strided_out: bool) -> None:
        x, w = normal(2, 3, 8, 7), normal(4, 3, 3, 3)
        out = normal(2, 4, 8, 14)[..., ::2] if strided_out else normal(2, 4, 8, 7)
        residual = out.copy()
        y = ck.conv2d(x, w, padding=1, residual=out, out=out, activation="relu")
        assert y is out
        check(y, x, w, padding=1, residual=residual, activation="relu")
        out[...] = residual
        options = {"padding": 1, "activation": "silu", "scale": 0.5, "residual_after": True}
        # The same plan key but for where `out` lies.
        check(ck.conv2d(x, w, residual=residual, out=np.empty_like(out), **options), x, w, residual=residual, **options)
        assert ck.conv2d(x, w, residual=out, out=out, **options) is out
        check(out, x, w, residual=residual, **options)

    def test_interleaved_memory_is_no_overlap(self) -> None:
        memory = normal(2, 8, 6, 6)
        x, out = memory[:, :4], memory[:, 4:]
        kept = x.copy()
        ck.conv2d(x, normal(4, 4, 1, 1), out=out)
        check(out, kept, normal(4, 4, 1, 1))
        assert np.array_equal(x, kept)


class Exporter:
    """Something that is no array but speaks DLPack."""

    def __init__(self, array: Array, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def test_objects_with_dlpack() -> None:
    x, w, bias, residual = normal(1, 3, 8, 8), normal(4, 3, 3, 3), normal(4), normal(1, 4, 6, 6)
    y = ck.conv2d(Exporter(x), Exporter(w), Exporter(bias), residual=Exporter(residual))
    assert np.array_equal(y, ck.conv2d(x, w, bias, residual=residual))
    out = Exporter(np.empty_like(y))
    if np.from_dlpack(out).flags.writeable:
        assert ck.conv2d(x, w, bias, residual=residual, out=out) is out
        assert np.array_equal(out.array, y)
    else:  # NumPy before 2.1 does not learn from an exporter whether its memory may be written
        with pytest.raises(ValueError, match="out is read-only"):
            ck.conv2d(x, w, bias, residual=residual, out=out)
    conv = ck.Conv2d(Exporter(w), Exporter(bias))
    check(conv(Exporter(x), residual=Exporter(residual)), x, w, bias, residual=residual)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_batch(layout: str) -> None:
    x, w = image(layout, 0, 3, 8, 7), normal(4, 3, 3, 3)
    y = check_call(x, w, normal(4), padding=1, layout=layout, residual=image(layout, 0, 4, 8, 7), activation="relu")
    assert y.size == 0
    out = np.empty_like(y)
    assert ck.conv2d(x, w, padding=1, layout=layout, out=out) is out


def test_more_padding_than_input() -> None:
    check_call(normal(1, 2, 2, 1), normal(3, 2, 3, 3), padding=((5, 4), (3, 7)))


def test_sizes_of_broadcast_inputs_beyond_32_bits() -> None:
    # 2**32 elements that are all one: the result is a single window of them.
    x = np.broadcast_to(np.float32(1), (1, 1, 65536, 65536))
    y = ck.conv2d(x[:, :, :3, :3], np.ones((2, 1, 3, 3), np.float32))
    assert np.array_equal(y.ravel(), [9, 9])


class TestPlans:
    @pytest.fixture(autouse=True)
    def _own_chooser(self) -> Iterator[None]:
        from convkit.tuner.modes import chooser

        yield
        _core.set_chooser(chooser)

    @staticmethod
    def answer(problem: tuple[int, ...], threads: int) -> tuple[int, tuple[int, ...]]:
        """A direct kernel that applies, with its defaults."""
        kernel = next(k for k in _core.kernels() if k["direct"] and _core.applies(k["index"], problem))
        return kernel["index"], _core.candidates(kernel["index"], problem, threads)[0]

    def test_a_call_seen_before_asks_nobody(self) -> None:
        asked = []

        def choose(problem: Any, threads: int, *options: Any) -> Any:
            asked.append((problem, threads, *options))
            return *self.answer(problem, threads), None, False

        _core.set_chooser(choose)
        x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
        variants: list[dict[str, Any]] = [
            {}, {"stride": 2}, {"padding": 1}, {"dilation": 2}, {"activation": "relu"}, {"num_threads": 3},
            {"accuracy": "strict"}, {"accuracy": 0.5}, {"accuracy": 0.25}, {"algorithm": "some name"},
            {"workspace_limit": 10**6}, {"out": np.empty((1, 4, 6, 6), np.float32)},
            {"residual": np.ones((1, 4, 6, 6), np.float32)}, {"bias": np.ones(4, np.float32)},
        ]  # fmt: skip
        for _ in range(3):
            for variant in variants:
                ck.conv2d(x, w, **variant)
        assert len(asked) == len(variants)
        assert _core.plan_count() == len(variants)
        ck.conv2d(x, w, algorithm="".join(["some", " name"]))
        ck.conv2d(x, w, workspace_limit=np.int64(10**6))
        assert len(asked) == len(variants)
        assert asked[0][2:] == (None, None, _core.workspace_limit())
        assert asked[9][2] == "some name"
        assert asked[10][4] == 10**6
        problem, threads = _core.problem_of(x, w, stride=2)
        assert asked[1][:2] == (problem, threads)
        _core.clear_plans()
        assert _core.plan_count() == 0
        ck.conv2d(x, w)
        assert len(asked) == len(variants) + 1

    def test_a_chooser_that_learns_is_asked_each_time_and_told_the_seconds(self) -> None:
        told: list[float] = []
        asked = []

        def choose(problem: Any, threads: int, *options: Any) -> Any:
            asked.append(problem)
            return *self.answer(problem, threads), told.append if len(asked) < 4 else None, False

        _core.set_chooser(choose)
        x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
        conv = ck.Conv2d(w)
        for call in (lambda: ck.conv2d(x, w), lambda: conv(x)):
            asked.clear()
            told.clear()
            for _ in range(6):
                check(call(), x, w)
            assert len(asked) == 4
            assert len(told) == 3
            assert all(seconds >= 0 for seconds in told)

    def test_what_a_chooser_raises_reaches_the_caller(self) -> None:
        def choose(*_: Any) -> Any:
            raise ck.UnsupportedAlgorithmError("not this one")

        _core.set_chooser(choose)
        with pytest.raises(ck.UnsupportedAlgorithmError, match="not this one"):
            ck.conv2d(normal(1, 3, 8, 8), normal(4, 3, 3, 3))
        with pytest.raises(ck.UnsupportedAlgorithmError, match="not this one"):
            ck.Conv2d(normal(4, 3, 3, 3))(normal(1, 3, 8, 8))

    def test_wrong_answers_are_refused(self) -> None:
        x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
        problem, threads = _core.problem_of(x, w)
        index, parameters = self.answer(problem, threads)
        other = next(k["index"] for k in _core.kernels() if not _core.applies(k["index"], problem))
        wrong: list[tuple[Any, type[Exception]]] = [
            (None, TypeError),
            ((index, parameters), TypeError),
            ((10**6, parameters, None, False), ValueError),
            ((-1, parameters, None, False), ValueError),
            ((index, (*parameters, 1), None, False), ValueError),
            ((other, tuple(least for _, least, _ in _core.kernels()[other]["parameters"]), None, False), ValueError),
        ]
        for answer, error in wrong:
            _core.set_chooser(lambda *_, answer=answer: answer)
            with pytest.raises(error):
                ck.conv2d(x, w)

    def test_tokens_of_tuning_contexts_keep_plans_apart(self) -> None:
        asked = []

        def choose(problem: Any, threads: int, *options: Any) -> Any:
            asked.append(_core.context())
            return *self.answer(problem, threads), None, False

        _core.set_chooser(choose)
        x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
        conv = ck.Conv2d(w)
        for call in (lambda: ck.conv2d(x, w), lambda: conv(x)):
            asked.clear()
            call()
            _core.context_entered()
            try:
                _core.set_context(5)
                call()
                call()
                _core.set_context(0)
                call()
            finally:
                _core.context_left()
            assert asked == [0, 5]

    def test_without_a_chooser_the_core_answers_by_itself(self) -> None:
        _core.set_chooser(None)
        check_call(normal(1, 3, 8, 8), normal(4, 3, 3, 3), normal(4), padding=1)

    def test_the_cache_is_bounded(self) -> None:
        _core.set_chooser(lambda problem, threads, *_: (*self.answer(problem, threads), None, False))
        x, w = normal(1, 1, 1, 1), normal(1, 1, 1, 1)
        for padding in range(70):
            for stride in range(1, 70):
                ck.conv2d(x, w, padding=((padding, 0), (0, 0)), stride=(1, stride))
        assert 0 < _core.plan_count() <= 4096


def test_counters() -> None:
    before = _core.counters()
    x, w = normal(1, 3, 8, 8), normal(4, 3, 3, 3)
    ck.conv2d(x, w)
    ck.conv2d(x, w)
    after = _core.counters()
    assert after["calls"] == before["calls"] + 2
    assert after["plan_hits"] >= before["plan_hits"] + 1


def test_the_default_workspace_limit_reaches_the_chooser() -> None:
    limit = _core.workspace_limit()
    assert 0 < limit < 2**40
    try:
        _core.set_workspace_limit(123456)
        assert _core.workspace_limit() == 123456
        with pytest.raises(ValueError, match="at least 0"):
            _core.set_workspace_limit(-1)
    finally:
        _core.set_workspace_limit(limit)

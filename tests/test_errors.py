"""What is refused, with which exception and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calls import normal

import convkit as ck

X = normal(1, 3, 8, 8)
W = normal(4, 3, 3, 3)


def refused(error: type[Exception], words: str, *arguments: Any, **keywords: Any) -> None:
    """Fail unless the call raises exactly this."""
    with pytest.raises(error, match=words) as caught:
        ck.conv2d(*arguments, **keywords)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "dtype", [">f4", ">f8", "float16", "int32", "uint8", "complex64", "bool", "longdouble", "object"]
)
def test_dtypes(dtype: str) -> None:
    other = np.ones(X.shape, dtype)
    for arguments in [(other, W), (X, np.ones(W.shape, dtype)), (X, W, np.ones(4, dtype))]:
        refused(TypeError, "supports float32 and float64", *arguments)
    refused(TypeError, "residual has dtype", X, W, residual=np.ones((1, 4, 6, 6), dtype))
    refused(TypeError, "out has dtype", X, W, out=np.ones((1, 4, 6, 6), dtype))


def test_dtypes_are_not_mixed() -> None:
    double = {"bias": np.ones(4), "residual": np.ones((1, 4, 6, 6)), "out": np.ones((1, 4, 6, 6))}
    refused(TypeError, "x has dtype float32 and w has dtype float64; convkit never casts", X, W.astype(float))
    refused(TypeError, "x has dtype float64 and w has dtype float32", X.astype(float), W)
    for name, array in double.items():
        refused(TypeError, f"and {name} has dtype float64", X, W, **{name: array})


def test_masked_arrays() -> None:
    masked = np.ma.masked_array(X, X > 1)
    refused(TypeError, r"x is a masked array.*x\.filled\(value\)", masked, W)
    refused(TypeError, "w is a masked array", X, np.ma.masked_array(W))
    refused(TypeError, "out is a masked array", X, W, out=np.ma.masked_array(np.ones((1, 4, 6, 6), "f")))
    with pytest.raises(TypeError, match="masked"):
        ck.Conv2d(np.ma.masked_array(W))


@pytest.mark.parametrize("thing", [None, 3, "x", [[1.0]], object()])
def test_what_is_no_array(thing: Any) -> None:
    refused(TypeError, "x must be a NumPy array, or an object with __dlpack__", thing, W)
    refused(TypeError, "w must be a NumPy array", X, thing)


def test_arrays_on_other_devices() -> None:
    class OnGpu:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, **_: Any) -> Any:
            raise AssertionError("not to be called")

    refused(TypeError, "x is on another device than the CPU", OnGpu(), W)


def test_what_dlpack_exporters_and_numpy_raise() -> None:
    class Exporter:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

        def __dlpack__(self, **_: Any) -> Any:
            raise self.error

    # NumPy raises RuntimeError for a dtype that it has not; what the exporter means by one is not ours to interpret.
    unknown = RuntimeError("Unsupported dtype in DLTensor.")
    with pytest.raises(TypeError, match="x has a dtype that NumPy does not know; convkit supports float32") as caught:
        ck.conv2d(Exporter(unknown), W)
    assert caught.value.__cause__ is unknown
    refused(RuntimeError, "the tensor was freed", Exporter(RuntimeError("the tensor was freed")), W)
    refused(BufferError, "requires grad", Exporter(BufferError("requires grad")), W)


def test_counts_and_names_of_arguments() -> None:
    refused(TypeError, "missing its argument 'x'")
    refused(TypeError, "missing its argument 'w'", X)
    refused(TypeError, "at most 7 positional arguments, 8 were given", X, W, None, 1, 0, 1, 1, "NCHW")
    refused(TypeError, "unexpected keyword argument 'strides'", X, W, strides=1)
    refused(TypeError, "multiple values for argument 'stride'", X, W, None, 1, stride=1)


def test_shapes_are_told() -> None:
    both = r"x of shape \(1, 3, 8, 8\) and w of shape \({}\) do not go together: {}"
    refused(ValueError, both.format("4, 2, 3, 3", "with groups=1 w takes 2 input channels, x has 3"), X, W[:, :2])
    refused(ValueError, both.format("4, 3, 3, 3", "with groups=2 w takes 6"), X, W, groups=2)
    refused(ValueError, both.format("4, 1, 3, 3", "the 4 output channels of w are not div"), X, W[:, :1], groups=3)
    refused(ValueError, both.format("4, 3, 9, 1", "the dilated filter is larger"), X, normal(4, 3, 9, 1))
    refused(ValueError, both.format("4, 3, 3, 3", "the dilated filter is larger"), X, W, dilation=4)
    refused(ValueError, r"x has shape \(8, 8\), expected \(N, C, H, W\) or \(C, H, W\)", X[0, 0], W)
    refused(ValueError, r"x has shape \(8, 8\), expected \(N, H, W, C\)", X[0, 0], W, layout="NHWC")
    refused(ValueError, r"x has shape \(1, 1, 3, 8, 8\)", X[None], W)
    refused(ValueError, r"w has shape \(3, 3\), expected \(O, C/groups, KH, KW\)", X, W[0, 0])
    refused(ValueError, r"bias has shape \(3,\), w of shape \(4, 3, 3, 3\) needs \(4,\)", X, W, normal(3))
    refused(ValueError, r"bias has shape \(4, 1\)", X, W, normal(4, 1))
    refused(ValueError, r"bias has shape \(\)", X, W, np.ones((), "f"))
    refused(ValueError, r"residual has shape \(4, 6, 6\), the result has shape \(1, 4, 6, 6\)", X, W,
            residual=normal(4, 6, 6))  # fmt: skip
    refused(
        ValueError, r"out has shape \(1, 4, 6, 7\), the result has shape \(1, 4, 6, 6\)", X, W, out=normal(1, 4, 6, 7)
    )


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((1, 0, 8, 8), (4, 0, 3, 3)),
        ((1, 3, 0, 8), (4, 3, 3, 3)),
        ((1, 3, 8, 8), (0, 3, 3, 3)),
        ((1, 3, 8, 8), (4, 3, 0, 3)),
    ],
)
def test_only_the_batch_may_be_empty(x: tuple[int, ...], w: tuple[int, ...]) -> None:
    refused(ValueError, "only the batch may be empty", np.ones(x, "f"), np.ones(w, "f"), padding=3)


@pytest.mark.parametrize("name", ["stride", "dilation", "groups", "num_threads"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 2**63, -(2**70)])
def test_numbers_out_of_range(name: str, value: int) -> None:
    refused(ValueError, rf"{name} must be at least 1 and below 2\*\*31, not {value}", X, W, **{name: value})
    if name in ("stride", "dilation"):
        refused(ValueError, rf"{name} must be at least 1", X, W, **{name: (1, value)})


@pytest.mark.parametrize("value", [-1, 2**31, (0, -1), ((0, 0), (-1, 0))])
def test_pads_out_of_range(value: Any) -> None:
    refused(ValueError, "padding must be at least 0", X, W, padding=value)


@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [1.0, "1", None, (1,), (1, 2, 3), (1.5, 1), {1: 1}])
def test_types_of_pairs(name: str, value: Any) -> None:
    refused(TypeError, f"{name} must be an int", X, W, **{name: value})


def test_types_of_other_options() -> None:
    refused(TypeError, "groups must be an int, not 1.0", X, W, groups=1.0)
    refused(TypeError, "num_threads must be an int", X, W, num_threads="2")
    refused(TypeError, "padding must be an int, a pair", X, W, padding=0.5)
    refused(TypeError, "padding must be an int, a pair", X, W, padding=(1, 2, 3, 4))
    refused(TypeError, "padding must be an int", X, W, padding=((1, 2), 3))
    refused(TypeError, "workspace_limit must be an int, in bytes", X, W, workspace_limit=1.5)
    refused(ValueError, "workspace_limit must be at least 0", X, W, workspace_limit=-1)
    refused(ValueError, "workspace_limit must be at least 0", X, W, workspace_limit=2**64)
    refused(ValueError, "layout must be 'NCHW' or 'NHWC', not 'nchw'", X, W, layout="nchw")
    refused(ValueError, "layout must be", X, W, layout=None)
    refused(ValueError, "padding must be .*'same_lower', not 'full'", X, W, padding="full")
    refused(ValueError, r"'same' needs stride 1, not \(2, 1\); 'same_upper' and 'same_lower' take any stride", X, W,
            padding="same", stride=(2, 1))  # fmt: skip


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("gelu_erf", ValueError),
        (3, TypeError),
        (("clip", 1), ValueError),
        (("clip", 2, 1), ValueError),
        (("clip", float("nan"), 1), ValueError),
        (("clip", "a", 1), TypeError),
        (("clip", 0, [6]), TypeError),
        (("leaky_relu", None), TypeError),
        (("leaky_relu",), ValueError),
        (("relu", 1), ValueError),
        ((), ValueError),
    ],
)
def test_activations(value: Any, error: type[Exception]) -> None:
    refused(error, "activation", X, W, activation=value)


@pytest.mark.parametrize("name", ["scale", "shift"])
def test_factors(name: str) -> None:
    channels = "the result has 4 channels: pass a number or an array of shape"
    for shape in ((3,), (1,), (4, 1, 1), (1, 4)):
        refused(ValueError, f"{name} has shape .*{channels}", X, W, **{name: np.ones(shape, X.dtype)})
    refused(TypeError, f"x has dtype float32 and {name} has dtype float64", X, W, **{name: np.ones(4)})
    refused(TypeError, f"{name} .*int64", X, W, **{name: np.ones(4, "int64")})
    for value in ("2", [1.0] * 4, {}, 2j):
        refused(TypeError, f"{name} must be a number or an array", X, W, **{name: value})
    refused(ValueError, f"{name} is NaN", X, W, **{name: float("nan")})
    memory = np.ones(4 * 6 * 6 + 4, X.dtype)
    refused(
        ValueError, f"out shares memory with {name}", X, W, out=memory[:-4].reshape(1, 4, 6, 6), **{name: memory[:4]}
    )
    for value in (1, None, "yes"):
        refused(TypeError, "residual_after must be True or False", X, W, residual_after=value)


def test_outputs_that_cannot_be_written() -> None:
    out = np.empty((1, 4, 6, 6), np.float32)
    out.flags.writeable = False
    refused(ValueError, "out is read-only", X, W, out=out)
    itself = np.lib.stride_tricks.as_strided(np.empty(1000, np.float32), (1, 4, 6, 6), (0, 16, 24, 4))
    refused(ValueError, "out has elements that overlap each other", X, W, out=itself)


def test_overlapping_outputs() -> None:
    memory = np.zeros(4096, np.float32)

    def view(start: int, *shape: int) -> Any:
        return memory[start : start + int(np.prod(shape))].reshape(shape)

    x, w, bias = view(0, 1, 4, 8, 8), view(1000, 4, 4, 1, 1), view(2000, 4)
    free = view(3000, 1, 4, 8, 8)
    assert ck.conv2d(x, w, bias, out=free) is free
    refused(ValueError, "out shares memory with x, which is read while out is written", x, w, out=x)
    refused(ValueError, "out shares memory with x", x, w, out=view(255, 1, 4, 8, 8))
    refused(ValueError, "out shares memory with w", x, w, out=view(900, 1, 4, 8, 8))
    refused(ValueError, "out shares memory with bias", x, w, bias, out=view(1900, 1, 4, 8, 8))
    refused(ValueError, "out shares memory with residual without being the same tensor", x, w,
            residual=view(3001, 1, 4, 8, 8), out=free)  # fmt: skip
    square = view(3000, 1, 4, 8, 8).transpose(0, 1, 3, 2)
    refused(ValueError, "out shares memory with residual", x, w, residual=square, out=free)
    conv = ck.Conv2d(w, bias)
    with pytest.raises(ValueError, match="out shares memory with x"):
        conv(x, out=x)


class TestHugeSizes:
    """Broadcast arrays of any size take no memory: their sizes must not be trusted."""

    @staticmethod
    def huge(*shape: int) -> Any:
        return np.broadcast_to(np.float32(1), shape)

    @pytest.mark.parametrize(
        ("x", "w", "keywords"),
        [
            ((1, 1, 2**31, 1), (1, 1, 1, 1), {}),
            ((2**40, 1, 1, 1), (1, 1, 1, 1), {}),
            ((2**30, 2**20, 2**10, 1), (1, 2**20, 1, 1), {}),
            ((1, 2**31 - 1, 2**30, 1), (1, 2**31 - 1, 1, 1), {}),
            ((1, 1, 2**30, 2**30), (64, 1, 1, 1), {}),
            ((1, 1, 1, 1), (2**31 - 1, 1, 2**30, 1), {"padding": 2**30}),
            ((1, 1, 1, 1), (1, 1, 1, 1), {"padding": 2**31 - 1}),
            ((1, 2**30, 1, 1), (1, 2**30, 1, 1), {"groups": 2**30}),
        ],
    )
    def test_are_refused(self, x: Any, w: Any, keywords: dict[str, Any]) -> None:
        with pytest.raises((ValueError, MemoryError)):
            ck.conv2d(self.huge(*x), self.huge(*w), **keywords)

    def test_memory_that_cannot_be_had(self) -> None:
        # A result of 2**48 bytes, from an input of one element.
        with pytest.raises(MemoryError):
            ck.conv2d(self.huge(1, 1, 1, 1), self.huge(2**14, 1, 1, 1), padding=2**15 - 1)
        y = ck.conv2d(X, W)
        assert y.shape == (1, 4, 6, 6)


class TestLayers:
    def test_torch_arguments_are_explained(self) -> None:
        words = r"takes the weights themselves, unlike torch\.nn\.Conv2d"
        for arguments, keywords in [((3, 64, 3), {}), ((3, 64), {"kernel_size": 3}), ((), {"in_channels": 3})]:
            with pytest.raises(TypeError, match=words):
                ck.Conv2d(*arguments, **keywords)

    def test_arguments(self) -> None:
        wrong: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
            (TypeError, "missing its argument 'w'", (), {}),
            (TypeError, "unexpected keyword argument 'stride_h'", (W,), {"stride_h": 1}),
            (ValueError, r"w has shape \(3, 3\)", (W[0, 0],), {}),
            (ValueError, "no size may be 0", (W[:0],), {}),
            (ValueError, r"bias has shape \(3,\)", (W, normal(3)), {}),
            (TypeError, "bias has dtype float64", (W, np.ones(4)), {}),
            (ValueError, "not divisible by groups=3", (W,), {"groups": 3}),
            (ValueError, "stride must be", (W,), {"stride": 0}),
            (ValueError, "'same' needs stride 1", (W,), {"stride": 2, "padding": "same"}),
        ]
        for error, words, arguments, keywords in wrong:
            with pytest.raises(error, match=words):
                ck.Conv2d(*arguments, **keywords)

    def test_calls(self) -> None:
        conv = ck.Conv2d(W)
        wrong: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
            (TypeError, "missing its argument 'x'", (), {}),
            (TypeError, "at most 3 positional", (X, None, None, None), {}),
            (TypeError, "unexpected keyword argument 'bias'", (X,), {"bias": None}),
            (TypeError, "x has dtype float64 and w has dtype float32", (X.astype(float),), {}),
            (ValueError, "w takes 3 input channels, x has 2", (X[:, :2],), {}),
            (ValueError, "out has shape", (X, X.copy()), {}),
        ]
        for error, words, arguments, keywords in wrong:
            with pytest.raises(error, match=words):
                conv(*arguments, **keywords)

    def test_updates(self) -> None:
        conv = ck.Conv2d(W, normal(4))
        for error, words, arguments in [
            (ValueError, "this Conv2d has a bias", (W,)),
            (ValueError, r"w has shape \(4, 3, 3, 2\), this Conv2d has \(4, 3, 3, 3\)", (W[..., :2], normal(4))),
            (TypeError, "this Conv2d has float32", (W.astype(float), np.ones(4))),
        ]:
            with pytest.raises(error, match=words):
                conv.update(*arguments)
        with pytest.raises(ValueError, match="without a bias"):
            ck.Conv2d(W).update(W, normal(4))


def test_algorithms_that_do_not_apply() -> None:
    for name in ("no such family", "pointwise"):
        with pytest.raises(ck.UnsupportedAlgorithmError, match="im2col") as caught:
            ck.conv2d(X, W, algorithm=name)
        assert isinstance(caught.value, ValueError)


def test_a_bad_number_of_threads_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "two", "-1", "1.5"):
        monkeypatch.setenv("CONVKIT_NUM_THREADS", value)
        ck.reload()
        with pytest.raises(ValueError, match=f"CONVKIT_NUM_THREADS must be an integer of at least 1, not '{value}'"):
            ck.conv2d(X, W)
    monkeypatch.setenv("CONVKIT_NUM_THREADS", "3")
    ck.reload()
    from convkit import _core

    assert _core.default_threads() == 3
    ck.conv2d(X, W)
    monkeypatch.undo()
    ck.reload()

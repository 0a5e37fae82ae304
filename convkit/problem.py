"""Problem: the key of a convolution, what the selector chooses for and the tuning database stores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

Op = Literal["forward", "input_grad", "weight_grad"]
Dtype = Literal["float32", "float64"]
Layout = Literal["NCHW", "NHWC"]
Epilogue = Literal["none", "clamp", "other"]

OPS: tuple[str, ...] = get_args(Op)
DTYPES: tuple[str, ...] = get_args(Dtype)
LAYOUTS: tuple[str, ...] = get_args(Layout)
EPILOGUES: tuple[str, ...] = get_args(Epilogue)

_SIZE_LIMIT = 2**31

_TEXT = (
    r"(?P<op>forward|input_grad|weight_grad)-(?P<dtype>float32|float64)-(?P<layout>NCHW|NHWC)"
    r"-n(?P<n>\d+)c(?P<c>\d+)h(?P<h>\d+)w(?P<w>\d+)-o(?P<o>\d+)k(?P<kh>\d+)x(?P<kw>\d+)"
    r"-s(?P<stride_h>\d+)x(?P<stride_w>\d+)"
    r"-p(?P<pad_top>\d+),(?P<pad_bottom>\d+),(?P<pad_left>\d+),(?P<pad_right>\d+)"
    r"-d(?P<dilation_h>\d+)x(?P<dilation_w>\d+)-g(?P<groups>\d+)"
    r"-(?P<epilogue>none|clamp|other)(?P<bias>\+bias)?(?P<residual>\+residual)?-(?P<packed>packed|cold)"
)


class _Fields(NamedTuple):
    n: int
    c: int
    h: int
    w: int
    o: int
    kh: int
    kw: int
    op: Op = "forward"
    dtype: Dtype = "float32"
    layout: Layout = "NCHW"
    stride_h: int = 1
    stride_w: int = 1
    pad_top: int = 0
    pad_bottom: int = 0
    pad_left: int = 0
    pad_right: int = 0
    dilation_h: int = 1
    dilation_w: int = 1
    groups: int = 1
    epilogue: Epilogue = "none"
    bias: bool = False
    residual: bool = False
    packed: bool = True


class Problem(_Fields):
    """One convolution as the tuner sees it: sizes and classes, no data and no strides of a particular array.

    Sizes are those of the forward convolution, whatever `op`: x is (n, c, h, w), the filter (o, c // groups, kh, kw).
    ``str(problem)`` is a compact text that `parse` reads back; it is the key of the tuning database.

    Attributes
    ----------
    epilogue : {"none", "clamp", "other"}
        What happens to an output before it is stored. Clip values are not part of a problem.
    packed : bool
        True where the weights were packed beforehand, so that packing is not part of the call.
    """

    __slots__ = ()

    def __new__(cls, *values: Any, **fields: Any) -> Problem:
        """Check the fields."""
        problem = super().__new__(cls, *values, **fields)
        problem._check()
        return problem

    def _check(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < _SIZE_LIMIT:
                raise ValueError(f"problem: {name} must be an int in [0, 2**31), got {value!r}")
        for name in ("c", "o", "kh", "kw", "stride_h", "stride_w", "dilation_h", "dilation_w", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"problem: {name} must be at least 1, got {getattr(self, name)}")
        if self.op not in OPS or self.dtype not in DTYPES or self.layout not in LAYOUTS:
            raise ValueError(f"problem: unknown op, dtype or layout: {self.op!r}, {self.dtype!r}, {self.layout!r}")
        if self.epilogue not in EPILOGUES:
            raise ValueError(f"problem: unknown epilogue class {self.epilogue!r}")
        if self.c % self.groups or self.o % self.groups:
            raise ValueError(f"problem: groups={self.groups} must divide the channels {self.c} and {self.o}")
        if self.oh < 1 or self.ow < 1:
            raise ValueError(
                f"problem: the padded input ({self.h + self.pad_top + self.pad_bottom}, "
                f"{self.w + self.pad_left + self.pad_right}) is smaller than the dilated filter "
                f"({self.dilation_h * (self.kh - 1) + 1}, {self.dilation_w * (self.kw - 1) + 1})"
            )

    @property
    def oh(self) -> int:
        """Rows of the output."""
        return (self.h + self.pad_top + self.pad_bottom - self.dilation_h * (self.kh - 1) - 1) // self.stride_h + 1

    @property
    def ow(self) -> int:
        """Columns of the output."""
        return (self.w + self.pad_left + self.pad_right - self.dilation_w * (self.kw - 1) - 1) // self.stride_w + 1

    @property
    def multiply_adds(self) -> int:
        """Useful multiply-adds: what direct summation would do with no padding skipped."""
        return self.n * self.o * self.oh * self.ow * (self.c // self.groups) * self.kh * self.kw

    @property
    def flops(self) -> int:
        """Floating-point operations, two for each multiply-add."""
        return 2 * self.multiply_adds

    @property
    def reduction(self) -> int:
        """Terms in the sum behind one element of the result."""
        if self.op == "forward":
            return (self.c // self.groups) * self.kh * self.kw
        if self.op == "input_grad":
            return (self.o // self.groups) * self.kh * self.kw
        return self.n * self.oh * self.ow

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 4 if self.dtype == "float32" else 8

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of the input in the problem's layout."""
        return self._image(self.c, self.h, self.w)

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weights, OIHW in both layouts."""
        return self.o, self.c // self.groups, self.kh, self.kw

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the forward output in the problem's layout."""
        return self._image(self.o, self.oh, self.ow)

    def _image(self, channels: int, rows: int, columns: int) -> tuple[int, int, int, int]:
        if self.layout == "NCHW":
            return self.n, channels, rows, columns
        return self.n, rows, columns, channels

    def replace(self, **changes: Any) -> Problem:
        """A copy with some fields changed."""
        return Problem(**{**self._asdict(), **changes})

    def of_op(self, op: Op) -> Problem:
        """Return this convolution or a gradient of it: no epilogue there, and nothing to pack for the weights' one."""
        if op not in OPS:
            raise ValueError(f"op must be one of {', '.join(OPS)}, got {op!r}")
        if op == "forward":
            return self.replace(op=op)
        packed = self.packed and op == "input_grad"
        return self.replace(op=op, epilogue="none", bias=False, residual=False, packed=packed)

    def to_core(self) -> tuple[int, ...]:
        """The tuple that `_core` takes: the fields of ConvProblem in src/cpp/problem.hpp, without oh and ow."""
        return (
            OPS.index(self.op),
            DTYPES.index(self.dtype),
            LAYOUTS.index(self.layout),
            *(getattr(self, name) for name in _SIZES),
            EPILOGUES.index(self.epilogue),
            int(self.bias),
            int(self.residual),
            int(self.packed),
        )

    @classmethod
    def from_core(cls, values: Sequence[int]) -> Problem:
        """The problem behind a tuple of `_core`."""
        if len(values) != len(_SIZES) + 7:
            raise ValueError(f"problem: expected {len(_SIZES) + 7} integers, got {len(values)}")
        sizes: dict[str, Any] = dict(zip(_SIZES, values[3:-4], strict=True))
        epilogue, bias, residual, packed = values[-4:]
        return cls(
            op=OPS[values[0]],
            dtype=DTYPES[values[1]],
            layout=LAYOUTS[values[2]],
            epilogue=EPILOGUES[epilogue],
            bias=bool(bias),
            residual=bool(residual),
            packed=bool(packed),
            **sizes,
        )

    def __str__(self) -> str:
        return (
            f"{self.op}-{self.dtype}-{self.layout}-n{self.n}c{self.c}h{self.h}w{self.w}-o{self.o}k{self.kh}x{self.kw}"
            f"-s{self.stride_h}x{self.stride_w}-p{self.pad_top},{self.pad_bottom},{self.pad_left},{self.pad_right}"
            f"-d{self.dilation_h}x{self.dilation_w}-g{self.groups}"
            f"-{self.epilogue}{'+bias' if self.bias else ''}{'+residual' if self.residual else ''}"
            f"-{'packed' if self.packed else 'cold'}"
        )

    @classmethod
    def parse(cls, text: str) -> Problem:
        """Read what ``str(problem)`` wrote; ValueError for anything else."""
        match = re.fullmatch(_TEXT, text, re.ASCII) if len(text) <= 400 else None
        if match is None:
            raise ValueError(f"not a problem: {text[:400]!r}")
        values: dict[str, Any] = match.groupdict()
        for name in _SIZES:
            values[name] = int(values[name])
        for name in ("bias", "residual"):
            values[name] = values[name] is not None
        values["packed"] = values["packed"] == "packed"
        problem = cls(**values)
        if str(problem) != text:
            raise ValueError(f"not a problem in its canonical form: {text!r}")
        return problem

    @classmethod
    def from_call(
        cls,
        x: Any,
        w: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        layout: str = "NCHW",
        activation: Any = None,
        residual: Any = None,
        dtype: Any = None,
        packed: bool = False,
    ) -> Problem:
        """The problem of a call to `conv2d` with these arguments.

        Parameters
        ----------
        x, w : array or shape
            Arrays, or tuples of sizes; then `dtype` says the element type (float32 if it is left out).
        bias, residual : array, bool or None
            Only whether they are there matters.
        packed : bool
            True for what `Conv2d` runs, False for the function.

        Returns
        -------
        Problem
        """
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        x_shape, w_shape = _shape(x), _shape(w)
        if len(x_shape) == 3:
            x_shape = (1, *x_shape)
        if len(x_shape) != 4 or len(w_shape) != 4:
            raise ValueError(f"x must have 4 (or 3) dimensions and w 4, got shapes {_shape(x)} and {w_shape}")
        n, c, h, width = x_shape if layout == "NCHW" else (x_shape[0], x_shape[3], x_shape[1], x_shape[2])
        if layout == "NCHW" and _is_channels_last(x):
            layout = "NHWC"
        o, cg, kh, kw = w_shape
        if cg * groups != c:
            raise ValueError(
                f"x of shape {_shape(x)} has {c} channels, w of shape {w_shape} with groups={groups} "
                f"takes {cg * groups}"
            )
        stride_h, stride_w = _pair("stride", stride)
        dilation_h, dilation_w = _pair("dilation", dilation)
        pads = _pads(padding, (h, width), (kh, kw), (stride_h, stride_w), (dilation_h, dilation_w))
        return cls(
            dtype=_dtype_name(x, dtype),
            layout=layout,
            n=n, c=c, h=h, w=width, o=o, kh=kh, kw=kw,
            stride_h=stride_h, stride_w=stride_w,
            pad_top=pads[0], pad_bottom=pads[1], pad_left=pads[2], pad_right=pads[3],
            dilation_h=dilation_h, dilation_w=dilation_w, groups=groups,
            epilogue=epilogue_class(activation),
            bias=bias is not None and bias is not False,
            residual=residual is not None and residual is not False,
            packed=packed,
        )  # fmt: skip


_SIZES: tuple[str, ...] = (
    "n", "c", "h", "w", "o", "kh", "kw", "stride_h", "stride_w", "pad_top", "pad_bottom", "pad_left", "pad_right",
    "dilation_h", "dilation_w", "groups",
)  # fmt: skip
assert len(_SIZES) + 7 == len(Problem._fields)


def epilogue_class(activation: Any) -> Epilogue:
    """The epilogue class of `conv2d`'s `activation` argument."""
    if activation is None:
        return "none"
    name = activation[0] if isinstance(activation, tuple) and activation else activation
    if name in ("relu", "relu6", "clip"):
        return "clamp"
    if name in ("silu", "hardswish", "sigmoid", "tanh", "leaky_relu"):
        return "other"
    raise ValueError(f"unknown activation {activation!r}")


def _shape(value: Any) -> tuple[int, ...]:
    shape = getattr(value, "shape", value)
    return tuple(int(size) for size in shape)


def _is_channels_last(x: Any) -> bool:
    strides: Any = getattr(x, "strides", None)
    shape: Any = getattr(x, "shape", ())
    if strides is None or len(shape) != 4 or shape[1] == 1:
        return False
    itemsize = x.dtype.itemsize
    expected = (shape[1] * shape[2] * shape[3], 1, shape[1] * shape[3], shape[1])
    return bool(tuple(strides) == tuple(size * itemsize for size in expected))


def _dtype_name(x: Any, dtype: Any) -> Dtype:
    name = str(getattr(x, "dtype", "float32")) if dtype is None else getattr(dtype, "__name__", str(dtype))
    if name not in DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(DTYPES)}, got {name}")
    return name  # type: ignore[return-value]


def _pair(name: str, value: Any) -> tuple[int, int]:
    if hasattr(value, "__index__"):
        return int(value), int(value)
    pair = tuple(int(v) for v in value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be an int or a pair, got {value!r}")
    return pair


def _pads(
    padding: Any, image: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        if padding not in ("same", "same_upper", "same_lower"):
            raise ValueError(f"padding must be valid, same, same_upper or same_lower, got {padding!r}")
        if padding == "same" and stride != (1, 1):
            raise ValueError('padding="same" needs stride 1; use "same_upper" or "same_lower"')
        pads: list[int] = []
        for size, k, s, d in zip(image, kernel, stride, dilation, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            less = total // 2
            pads += [total - less, less] if padding == "same_lower" else [less, total - less]
        return pads[0], pads[1], pads[2], pads[3]
    if hasattr(padding, "__index__"):
        return (int(padding),) * 4
    pair = tuple(padding)
    if len(pair) != 2:
        raise ValueError(f"padding must be an int, a pair, ((top, bottom), (left, right)) or a name, got {padding!r}")
    if all(hasattr(v, "__index__") for v in pair):
        return int(pair[0]), int(pair[0]), int(pair[1]), int(pair[1])
    (top, bottom), (left, right) = pair
    return int(top), int(bottom), int(left), int(right)

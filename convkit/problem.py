"""Problem: the key of a convolution, what the selector chooses for and the tuning database stores."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from convkit import _core
from convkit.typing import Dtype, Layout, Op

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from convkit.typing import Activation, Shape, SupportsDLPack

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
    A stride that leads beyond the padded input and the dilation of a single tap change nothing: they are kept as small
    as that allows, so that equal convolutions are equal problems.

    Attributes
    ----------
    epilogue : {"none", "clamp", "other"}
        What happens to an output before it is stored. Clip values are not part of a problem.
    packed : bool
        True if the weights were packed beforehand, so that packing is not part of the call.
    """

    __slots__ = ()

    def __new__(cls, *values: Any, **fields: Any) -> Problem:
        """Check the fields."""
        problem = super().__new__(cls, *values, **fields)
        problem._check()
        return problem._replace(
            stride_h=min(problem.stride_h, problem.h + problem.pad_top + problem.pad_bottom),
            stride_w=min(problem.stride_w, problem.w + problem.pad_left + problem.pad_right),
            dilation_h=problem.dilation_h if problem.kh > 1 else 1,
            dilation_w=problem.dilation_w if problem.kw > 1 else 1,
        )

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

    def of_op(self, op: str) -> Problem:
        """Return this call's problem, or that of a gradient of it: without an epilogue, for gradients have none.

        Parameters
        ----------
        op : str
            "forward" for the call itself, "input_grad" and "weight_grad", or "input" and "weight" for short. The call
            may be a transposed convolution, which is the input gradient of one: then its own is a convolution.
        """
        name = op if op in OPS else f"{op}_grad"
        if name not in OPS:
            raise ValueError(f"op must be one of {', '.join(OPS)}, got {op!r}")
        if op == "forward":
            return self
        turned: Any = "forward" if self.op == name == "input_grad" else name
        packed = self.packed and turned != "weight_grad"
        return self.replace(op=turned, epilogue="none", bias=False, residual=False, packed=packed)

    def to_core(self) -> tuple[int, ...]:
        """The tuple that `_core` takes: the fields of ConvProblem in src/cpp/problem.hpp, without oh and ow."""
        return (
            OPS.index(self.op),
            DTYPES.index(self.dtype),
            LAYOUTS.index(self.layout),
            *self[:7],
            *self[10:19],
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

    @property
    def epilogue_text(self) -> str:
        """Epilogue, bias and residual as the problem's text has them."""
        return f"{self.epilogue}{'+bias' if self.bias else ''}{'+residual' if self.residual else ''}"

    def __str__(self) -> str:
        return self._text(self.epilogue_text)

    def _text(self, epilogue: str) -> str:
        return (
            f"{self.op}-{self.dtype}-{self.layout}-n{self.n}c{self.c}h{self.h}w{self.w}-o{self.o}k{self.kh}x{self.kw}"
            f"-s{self.stride_h}x{self.stride_w}-p{self.pad_top},{self.pad_bottom},{self.pad_left},{self.pad_right}"
            f"-d{self.dilation_h}x{self.dilation_w}-g{self.groups}-{epilogue}-{'packed' if self.packed else 'cold'}"
        )

    def bare(self) -> Problem:
        """The problem without an epilogue: what problems share that answer for each other."""
        return self._replace(epilogue="none", bias=False, residual=False)

    def texts(self) -> list[str]:
        """The texts of this problem with every epilogue, its own first."""
        epilogues = dict.fromkeys([self.epilogue_text, *(_EPILOGUE_TEXTS if self.op != "weight_grad" else ())])
        head, tail = self._text("|").split("|")
        return [f"{head}{epilogue}{tail}" for epilogue in epilogues]

    @classmethod
    def parse(cls, text: str) -> Problem:
        """Read what ``str(problem)`` wrote; ValueError for anything else."""
        match = re.fullmatch(_TEXT, text, re.ASCII) if len(text) <= 400 else None
        if match is None:
            raise ValueError(f"not a problem: {text[:400]!r}")
        values: dict[str, Any] = match.groupdict()
        for name in _SIZES:
            digits = values[name]
            values[name] = int(digits)
            if str(values[name]) != digits:
                raise ValueError(f"not a problem in its canonical form: {text!r}")
        for name in ("bias", "residual"):
            values[name] = values[name] is not None
        values["packed"] = values["packed"] == "packed"
        return cls(**values)


_SIZES: tuple[str, ...] = (
    "n", "c", "h", "w", "o", "kh", "kw", "stride_h", "stride_w", "pad_top", "pad_bottom", "pad_left", "pad_right",
    "dilation_h", "dilation_w", "groups",
)  # fmt: skip
assert len(_SIZES) + 7 == len(Problem._fields)
_EPILOGUE_TEXTS = [a + b + r for a in EPILOGUES for b in ("", "+bias") for r in ("", "+residual")]


def of_call(
    x: SupportsDLPack | Shape,
    w: SupportsDLPack | Shape,
    bias: SupportsDLPack | Shape | bool | None = None,
    *arguments: Any,
    residual: SupportsDLPack | Shape | bool | None = None,
    scale: float | SupportsDLPack | Shape | None = None,
    shift: float | SupportsDLPack | Shape | None = None,
    residual_after: bool = False,
    dtype: DTypeLike | None = None,
    packed: bool = False,
    op: str = "forward",
    **keywords: Any,
) -> tuple[Problem, int]:
    """The problem and the team of a call to `conv2d`, or of a gradient of it, as the call's own parser reads them.

    Parameters
    ----------
    x, w, bias, residual : array, shape or bool
        Arrays, or their sizes; then `dtype` says the element type, float32 if it is left out. Of `bias` and `residual`
        it is enough to say whether they are there.
    scale, shift : float, array or shape
        As for `conv2d`.
    residual_after, *arguments, **keywords
        As for `conv2d`; what chooses the kernel is checked only when something is chosen.
    packed : bool
        True for what `Conv2d` runs, False for the function.
    op : str
        As in `Problem.of_op`.

    Returns
    -------
    Problem
    int
        Threads.
    """
    said = {name: value for name, value in (("bias", bias), ("residual", residual)) if isinstance(value, bool)}
    fields, threads = _core.problem_of(
        _array("x", x, dtype), _array("w", w, dtype), None if "bias" in said else _array("bias", bias, dtype),
        *arguments, residual=None if "residual" in said else _array("residual", residual, dtype),
        scale=_array("scale", scale, dtype), shift=_array("shift", shift, dtype), residual_after=residual_after,
        **keywords,
    )  # fmt: skip
    problem = Problem.from_core(fields).replace(packed=packed, **said)
    if problem.residual and residual_after:
        problem = problem.replace(epilogue="other")  # as the parser says if it is told the residual itself
    return problem.of_op(op), threads


def _array(name: str, value: Any, dtype: DTypeLike | None) -> Any:
    """An array as it is; for sizes an array of them that takes no memory, each element being the same one."""
    if value is None or hasattr(value, "__dlpack__") or (isinstance(value, Real) and name in ("scale", "shift")):
        return value
    try:
        sizes = tuple(operator.index(size) for size in value)
        return np.broadcast_to(np.zeros((), dtype or np.float32), sizes)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array, or a shape and a dtype, not {value!r} of {dtype!r}") from None


def epilogue_class(activation: Activation | None) -> Epilogue:
    """The epilogue class of `conv2d`'s `activation` argument."""
    return of_call((1, 1, 1, 1), (1, 1, 1, 1), activation=activation)[0].epilogue

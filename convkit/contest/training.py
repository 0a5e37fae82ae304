"""Forward and backward together: one pass of a layer in training, as a contestant."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.contest.contestants import Array, Contestant, Operands, Part, in_layout
from convkit.problem import Problem
from convkit.training.pipeline import PIPELINES
from convkit.typing import Accuracy

if TYPE_CHECKING:
    from convkit.tuner import Choice

__all__ = ["GRADIENTS", "Pass", "pass_problems", "torch_pass", "training_contestant"]

GRADIENTS = ("input_grad", "weight_grad")
Outputs = tuple[Any, Any, Any]


def pass_problems(forward: Problem) -> tuple[Problem, Problem, Problem]:
    """The problems of a pass: forward, input gradient and weight gradient."""
    dx, dw = (forward.of_op(op).replace(packed=False) for op in GRADIENTS)
    return forward, dx, dw


class Pass:
    """Operands of one pass, and its exact result: forward output, input and weight gradient in one vector.

    Each part is divided by its largest exact value, so that an error counts for as much in any of them.
    """

    def __init__(self, forward: Problem, seed: int = 0) -> None:
        p = self.problem = forward
        self.operands = Operands(p, seed)
        rng = np.random.default_rng(seed + 1)
        self.dy: Array = np.asarray(rng.standard_normal((p.n, p.o, p.oh, p.ow), dtype=p.dtype))

    @cached_property
    def _parts(self) -> tuple[Array, Array, Array]:
        from convkit import reference

        x, w, geometry = self.operands.x, self.operands.w, self.operands.geometry
        return (
            self.operands.exact(),
            reference.conv2d_input(x.shape, w, self.dy, **geometry),
            reference.conv2d_weight(x, w.shape, self.dy, **geometry),
        )

    def exact(self) -> Array:
        """The three results in float64."""
        return self.joined(*self._parts)

    def joined(self, y: Array, dx: Array, dw: Array) -> Array:
        """Results as one vector, each over its largest exact value."""
        scaled = zip((y, dx, dw), self._parts, strict=True)
        return np.concatenate(
            [np.asarray(part, dtype=np.float64).ravel() / (np.abs(exact).max() or 1.0) for part, exact in scaled]
        )


def training_contestant(
    work: Pass, threads: int, algorithm: str | None = None, accuracy: Accuracy | None = None, settle: bool = False
) -> Contestant:
    """A pass of `convkit.TrainingConv2d`: what it selects, one of its pipelines, or one algorithm for all three parts.

    Where an algorithm computes the forward pass but not a gradient, the fastest direct kernel computes that.

    Parameters
    ----------
    settle : bool
        Let the selection measure its pipelines first, if the database does not know them.

    Raises
    ------
    convkit.UnsupportedAlgorithmError
        Where the algorithm does not compute the forward pass.
    """
    import convkit

    p, operands = work.problem, work.operands
    chosen: Any = algorithm
    parts: tuple[Part, ...] = ()
    if algorithm not in PIPELINES:
        choices = _choices(p, threads, algorithm, accuracy)
        parts = tuple((choice.problem, choice.kernel, choice.parameters) for choice in choices)
        chosen = choices if algorithm else None
    plan = convkit.TrainingConv2d(
        **operands.geometry, layout=p.layout, num_threads=threads, algorithm=chosen, accuracy=accuracy
    )
    x, dy = in_layout(operands.x, p.layout), in_layout(work.dy, p.layout)
    w, bias = operands.w, operands.bias

    def call() -> Outputs:
        y = plan.forward(x, w, bias)
        dx, dw, _ = plan.backward(dy)
        return y, dx, dw

    def result(found: Outputs) -> Array:
        y, dx, dw = found
        if p.layout == "NHWC":
            y, dx = y.transpose(0, 3, 1, 2), dx.transpose(0, 3, 1, 2)
        return work.joined(y, dx, dw)

    with convkit.tuning(mode="tune") if settle and algorithm is None else nullcontext():
        call()
    if plan.pipeline == "columns":
        kernels, parts = "columns", ()
    else:
        kernels = " + ".join(kernel for _, kernel, _ in parts)
    name = f"convkit {algorithm}" if algorithm else "convkit"
    return Contestant(f"{name} {p.layout}", call, result, kernels, parts=parts)


def _choices(forward: Problem, threads: int, algorithm: str | None, accuracy: Accuracy | None) -> list[Choice]:
    import convkit
    from convkit.tuner import choose

    found = []
    for problem in pass_problems(forward):
        try:
            found.append(choose(problem, threads, algorithm=algorithm, accuracy=accuracy))
        except convkit.UnsupportedAlgorithmError:
            if problem.op == "forward":
                raise
            found.append(choose(problem, threads, accuracy="strict"))
    return found


def torch_pass(work: Pass, threads: int) -> Contestant | None:
    """PyTorch's forward call and what autograd calls for the gradients."""
    import torch

    p, operands = work.problem, work.operands
    if p.pad_top != p.pad_bottom or p.pad_left != p.pad_right:
        return None
    torch.set_num_threads(threads)
    memory = torch.channels_last if p.layout == "NHWC" else torch.contiguous_format
    x, w, dy = (torch.from_numpy(a).contiguous(memory_format=memory) for a in (operands.x, operands.w, work.dy))
    bias = None if operands.bias is None else torch.from_numpy(operands.bias)
    stride, padding, dilation = [p.stride_h, p.stride_w], [p.pad_top, p.pad_left], [p.dilation_h, p.dilation_w]
    backward: Callable[..., Any] = torch.ops.aten.convolution_backward

    def call() -> Outputs:
        y = torch.nn.functional.conv2d(x, w, bias, stride, padding, dilation, p.groups)
        biases, wanted = None if bias is None else [p.o], [True, True, bias is not None]
        dx, dw, _ = backward(dy, x, w, biases, stride, padding, dilation, False, [0, 0], p.groups, wanted)
        return y, dx, dw

    def result(found: Outputs) -> Array:
        return work.joined(*(np.asarray(part.contiguous().numpy()) for part in found))

    return Contestant(f"PyTorch {p.layout}", call, result)

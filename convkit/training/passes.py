"""One pass of a convolution in training: what a forward call leaves for its backward calls."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from convkit.grad import conv2d_bias

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from convkit.best_of.selector import Pipeline
    from convkit.problem import Problem
    from convkit.training.columns import Columns
    from convkit.typing import Accuracy, Layout, SupportsDLPack

__all__ = ["TrainingPass"]


class _Plan(Protocol):
    """What a pass asks of the plan that began it."""

    input_gradient: bool
    accuracy: Accuracy | None
    workspace_limit: int | None

    @property
    def layout(self) -> Layout: ...
    def _stages(self, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]: ...
    def _take_back(self, ended: TrainingPass) -> None: ...


class TrainingPass:
    """A forward call of a plan, and what its gradients need. `TrainingConv2d.begin` makes it.

    It holds references to `x` and `w`, not copies, and what its pipeline keeps; a pass that is dropped without
    `backward` is forgotten.

    Attributes
    ----------
    pipeline : str
        The pipeline that it runs.
    """

    __slots__ = (
        "__weakref__", "_timed", "_turn", "bias", "columns", "output", "pipeline", "plan", "problem", "thread", "w",
        "x",
    )  # fmt: skip

    def __init__(self, plan: _Plan, x: Any, w: Any, bias: Any, problem: Problem | None) -> None:
        self.plan, self.x, self.w, self.bias = plan, x, w, bias
        self.problem = problem  # None: the batch is empty
        self.thread = threading.get_ident()
        self.output: tuple[tuple[int, ...], Any] = (), None  # shape and dtype
        self.pipeline = ""
        self.columns: Columns | None = None
        self._timed: Pipeline | None = None
        self._turn = [True]  # gone while `backward` runs, and after the last one: a list pops at once or not at all

    @property
    def key(self) -> str:
        """What passes must share for their times to be comparable."""
        plan = self.plan
        without = "" if plan.input_gradient else " without dx"
        return f"{self.problem}{without} {plan.accuracy} {plan.workspace_limit}"

    def forward(self, name: str, timed: Pipeline | None) -> Any:
        """Run the first stage of a pipeline, or of the one that a selector tries next."""
        y = timed(self) if timed is not None else self.plan._stages(name)[0](self)
        self._timed = timed
        self.pipeline = name if timed is None else timed.alternative
        self.output = y.shape, y.dtype
        return y

    def backward(
        self, grad_output: SupportsDLPack, *, retain: bool = False
    ) -> tuple[NDArray[Any] | None, NDArray[Any], NDArray[Any] | None]:
        """Compute the gradients of the pass, in any thread.

        Parameters
        ----------
        grad_output : array
            Gradient with respect to the result of the forward call: of its shape and dtype, any strides.
        retain : bool
            True keeps the pass for another call; the last one gives back what it holds.

        Returns
        -------
        dx : ndarray or None
            Gradient with respect to `x`; None with ``input_gradient=False``.
        dw : ndarray
            Gradient with respect to `w`.
        db : ndarray or None
            Gradient with respect to `bias`; None if there was none.

        Raises
        ------
        TypeError, ValueError
            If `grad_output` has another dtype or shape than the result of the forward call. The pass stays open.
        RuntimeError
            If the pass has had its last call, or one is running in another thread.
        """
        try:
            self._turn.pop()
        except IndexError:
            raise RuntimeError(
                "this pass has had its backward call, or is running it in another thread; retain=True keeps a pass"
            ) from None
        keep = True
        try:
            gradients = self._gradients(grad_output)
            keep = retain
        finally:
            if keep:
                self._turn.append(True)
        if not retain:
            self.plan._take_back(self)
            self.x = self.w = self._timed = None
        return gradients

    def _gradients(self, grad_output: Any) -> tuple[Any, Any, Any]:
        dy = as_array(grad_output)
        shape, dtype = self.output
        if dy.dtype != dtype:
            raise TypeError(f"grad_output has dtype {dy.dtype}, the result of forward has {dtype}")
        if dy.shape != shape:
            raise ValueError(f"grad_output has shape {dy.shape}, the result of forward has {shape}")
        # What is timed is a forward call with one backward call.
        timed, self._timed = self._timed, None
        dx, dw = timed(self, dy) if timed is not None else self.plan._stages(self.pipeline)[1](self, dy)
        return dx, dw, None if self.bias is None else conv2d_bias(dy, self.plan.layout)


def as_array(value: Any) -> Any:
    """An array as such, another object through DLPack; what is neither is refused by the call that gets it."""
    return np.from_dlpack(value) if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__") else value

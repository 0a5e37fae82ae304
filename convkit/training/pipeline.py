"""TrainingConv2d: a convolution and its gradients as one pipeline, chosen as a whole."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from convkit import _core
from convkit._core import conv2d, conv2d_input, conv2d_weight
from convkit.problem import Problem
from convkit.training.columns import Columns
from convkit.training.passes import TrainingPass, as_array
from convkit.tuner.process import ForkSafeLock, Slot, planning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convkit.best_of.selector import BestOf, Pipeline
    from convkit.typing import Accuracy, Algorithm, FloatT, Layout, Padding, Pair, SupportsDLPack

__all__ = ["PIPELINES", "TrainingConv2d"]

PIPELINES = ("kernels", "columns")
"""Names of the pipelines: the fastest kernel for each call, or the matrix of im2col made once for two products."""


_MOST_PROBLEMS = 64


class TrainingConv2d:
    """A convolution for training: `forward`, then `backward` with the gradients of its input, weights and bias.

    The two calls are one pipeline. What the forward call computed and the backward call can use again is kept in
    between, if that is faster and fits `workspace_limit`. Which pipeline is fastest is found out by a
    `convkit.BestOf` that times whole passes, forward and backward together: in mode "online" on the passes that a
    program makes anyway, in mode "tune" at first sight. It remembers the answer in the tuning database; the other modes
    only read it.

    Parameters
    ----------
    stride, padding, dilation, groups, layout : optional
        As in `convkit.conv2d`.
    algorithm : str or sequence of three, optional
        A pipeline, instead of the fastest: ``"kernels"`` (for each call the kernel that is fastest for it alone) or
        ``"columns"`` (the matrix of im2col is written once, and serves the forward product and the weights'
        gradient). Or algorithms as `convkit.conv2d` takes them, for the forward call, the input's gradient and the
        weights' gradient: three of them, or one for all.
    num_threads, accuracy, workspace_limit : optional
        As in `convkit.conv2d`; `workspace_limit` bounds what is kept between the calls, too.
    input_gradient : bool
        False if nobody needs the gradient of the input, as in the first layer of a network: `backward` then returns
        None for it.

    Notes
    -----
    From `forward` to `backward` the object holds references to `x` and `w`, not copies: do not change them in between.
    Each `forward` begins a new pass and forgets one that was not finished; each pass has one `backward`.

    `forward` and `backward` serve one thread at a time: `backward` belongs to the thread that called `forward`, and
    calls that overlap raise a RuntimeError. Give each thread a plan of its own; what was measured is shared. Or use
    `begin`, which returns the pass: any number of passes may be open, in any threads, and end in any order.
    `copy.deepcopy` and `pickle` give a plan with the same options and no pass open.

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> x, w, bias = np.ones((2, 3, 8, 8)), np.ones((4, 3, 3, 3)), np.zeros(4)
    >>> plan = ck.TrainingConv2d(padding=1)
    >>> y = plan.forward(x, w, bias)
    >>> dx, dw, db = plan.backward(np.ones_like(y))
    >>> dx.shape, dw.shape, db.shape
    ((2, 3, 8, 8), (4, 3, 3, 3), (4,))
    """

    def __init__(
        self,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        *,
        layout: Layout = "NCHW",
        algorithm: Algorithm | Sequence[Algorithm | None] | None = None,
        num_threads: int | None = None,
        accuracy: Accuracy | None = None,
        workspace_limit: int | None = None,
        input_gradient: bool = True,
    ) -> None:
        self.input_gradient: bool = bool(input_gradient)
        self.accuracy = accuracy
        self.workspace_limit = workspace_limit
        self.algorithm = algorithm
        self._pipeline = algorithm if isinstance(algorithm, str) and algorithm in PIPELINES else None
        self._algorithms: tuple[Any, Any, Any] = (None, None, None)
        if isinstance(algorithm, list | tuple):
            if len(algorithm) != 3:
                raise ValueError(
                    "algorithm must be one, or three for the forward call, the input's gradient and the weights' "
                    f"gradient; got {len(algorithm)}"
                )
            self._algorithms = (algorithm[0], algorithm[1], algorithm[2])
        elif algorithm is not None and self._pipeline is None:
            self._algorithms = (algorithm, algorithm, algorithm)
        self._geometry: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "layout": layout,
        }
        self._limits: dict[str, Any] = {
            "num_threads": num_threads,
            "accuracy": accuracy,
            "workspace_limit": workspace_limit,
        }
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._busy = ForkSafeLock()
        self._pending: TrainingPass | None = None
        self._problems: dict[tuple[int, ...], Problem] = {}
        self._columns: weakref.WeakSet[Columns] = weakref.WeakSet()
        self._free: list[Columns] = []  # of passes that have ended
        self._last = ""

    def __getstate__(self) -> dict[str, Any]:
        """What was asked for; a copy has no pass open, keeps no memory and has measured nothing."""
        passing = ("_busy", "_pending", "_problems", "_columns", "_free", "_last")
        return {name: value for name, value in self.__dict__.items() if name not in passing}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_anew()

    @property
    def pipeline(self) -> str:
        """The pipeline that the last pass ran; empty before the first."""
        return self._last

    @property
    def nbytes(self) -> int:
        """Bytes that the plan and its open passes keep between calls, beside references to the operands."""
        return sum(columns.nbytes for columns in list(self._columns))

    @property
    def layout(self) -> Layout:
        """Order of the dimensions of the operands."""
        return cast("Layout", self._geometry["layout"])

    @overload
    def forward(
        self, x: NDArray[FloatT], w: NDArray[FloatT], bias: NDArray[FloatT] | None = None
    ) -> NDArray[FloatT]: ...
    @overload
    def forward(self, x: SupportsDLPack, w: SupportsDLPack, bias: SupportsDLPack | None = None) -> NDArray[Any]: ...
    def forward(self, x: SupportsDLPack, w: SupportsDLPack, bias: SupportsDLPack | None = None) -> NDArray[Any]:
        """Convolve, and keep what `backward` needs.

        Parameters
        ----------
        x, w, bias : array
            As in `convkit.conv2d`.

        Returns
        -------
        ndarray
            What ``convkit.conv2d(x, w, bias, ...)`` returns.

        Raises
        ------
        TypeError, ValueError, UnsupportedAlgorithmError
            As `convkit.conv2d`.
        RuntimeError
            If the plan is running in another thread.
        """
        with _Alone(self._busy):
            forgotten, self._pending = self._pending, None
            if forgotten is not None:
                self._take_back(forgotten)
            y, self._pending = self.begin(x, w, bias)
            return y

    def backward(self, grad_output: SupportsDLPack) -> tuple[NDArray[Any] | None, NDArray[Any], NDArray[Any] | None]:
        """Compute the gradients of the convolution that `forward` computed last.

        Parameters
        ----------
        grad_output : array
            Gradient with respect to the result of `forward`: of its shape and dtype, any strides.

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
            If `grad_output` has another dtype or shape than the result of `forward`. The pass stays open.
        RuntimeError
            If no `forward` came before, or one in another thread, or the plan is running in another thread.
        """
        with _Alone(self._busy):
            if self._pending is None:
                raise RuntimeError("backward needs a forward call before it, one for each backward call")
            if self._pending.thread != threading.get_ident():
                raise RuntimeError(
                    "backward must run in the thread of its forward call; use one TrainingConv2d for each thread, or "
                    "begin, whose passes end in any thread"
                )
            gradients = self._pending.backward(grad_output)
            self._pending = None
            return gradients

    @overload
    def begin(
        self, x: NDArray[FloatT], w: NDArray[FloatT], bias: NDArray[FloatT] | None = None
    ) -> tuple[NDArray[FloatT], TrainingPass]: ...
    @overload
    def begin(
        self, x: SupportsDLPack, w: SupportsDLPack, bias: SupportsDLPack | None = None
    ) -> tuple[NDArray[Any], TrainingPass]: ...
    def begin(
        self, x: SupportsDLPack, w: SupportsDLPack, bias: SupportsDLPack | None = None
    ) -> tuple[NDArray[Any], TrainingPass]:
        """Convolve, and return with the result the pass that has its `backward`: for programs with several passes open.

        Parameters
        ----------
        x, w, bias : array
            As in `convkit.conv2d`.

        Returns
        -------
        y : ndarray
            What ``convkit.conv2d(x, w, bias, ...)`` returns.
        TrainingPass
            Its `backward` gives the gradients.

        Raises
        ------
        TypeError, ValueError, UnsupportedAlgorithmError
            As `convkit.conv2d`.

        Examples
        --------
        >>> import numpy as np
        >>> import convkit as ck
        >>> w, plan = np.ones((4, 3, 3, 3)), ck.TrainingConv2d(padding=1)
        >>> passes = [plan.begin(np.full((1, 3, 8, 8), float(i)), w) for i in range(2)]
        >>> [step.backward(np.ones_like(y))[1][0, 0, 1, 1] for y, step in passes]
        [np.float64(0.0), np.float64(64.0)]
        """
        arrays = as_array(x), as_array(w), bias
        current = TrainingPass(self, *arrays, self._problem(*arrays))
        y = current.forward(*self._choose(current))
        self._last = current.pipeline
        return y, current

    def __repr__(self) -> str:
        options = {**self._geometry, "algorithm": self.algorithm, **self._limits, "input_gradient": self.input_gradient}
        said = (f"{name}={value!r}" for name, value in options.items() if value != _DEFAULTS.get(name))
        return f"TrainingConv2d({', '.join(said)})"

    # --- which pipeline ----------------------------------------------------------------------------------------------

    def _problem(self, x: Any, w: Any, bias: Any) -> Problem | None:
        if 0 in getattr(x, "shape", ()):
            return None
        fields, _ = _core.problem_of(x, w, bias, **self._geometry, **self._limits)
        problem = self._problems.get(fields)
        if problem is None:
            if len(self._problems) >= _MOST_PROBLEMS:
                self._problems.clear()
            problem = self._problems[fields] = Problem.from_core(fields)
        return problem

    def _choose(self, current: TrainingPass) -> tuple[str, Pipeline | None]:
        """The pipeline to run, by name or, if its time counts, as a pass of a selector."""
        problem = current.problem
        if problem is None:
            return "kernels", None
        no_columns = Columns.refusal(problem, self.workspace_limit)
        if no_columns and self._pipeline == "columns":
            from convkit.tuner import UnsupportedAlgorithmError

            raise UnsupportedAlgorithmError(f"the pipeline 'columns' does not take {problem}: {no_columns}")
        if no_columns or self.algorithm is not None:
            return self._pipeline or "kernels", None
        with planning:
            from convkit.tuner.modes import settings
        mode = settings().mode
        if mode == "off":
            return "kernels", None
        best = _selector(self._limits["num_threads"])
        name = best.settled(current)
        if name is None and mode == "tune":
            _settle(best, current)
            name = best.settled(current)
        if name is None and mode == "online":
            return "", best.start(current)
        return name or "kernels", None

    # --- the stages --------------------------------------------------------------------------------------------------

    def _stages(self, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The two stages of a pipeline: from a pass to its result, from a pass and `dy` to the gradients."""
        return _STAGES[name]

    def _take_back(self, ended: TrainingPass) -> None:
        """Keep the memory of a pass that has ended for one to come."""
        columns, ended.columns = ended.columns, None
        if columns is not None:
            self._free.append(columns)

    def _take_columns(self, problem: Problem) -> Columns:
        """Free ones, best of the same sizes, or new ones: there are never more than passes were open at once."""
        free = self._free
        try:
            same = next((columns for columns in tuple(free) if columns.holds(problem)), None)
            if same is not None:
                free.remove(same)
                return same
            return free.pop()
        except (ValueError, IndexError):  # there are none, or another thread was faster
            columns = Columns(self.layout)
            self._columns.add(columns)
            return columns

    def _input_gradient(self, current: TrainingPass, dy: Any, **geometry: Any) -> Any:
        if not self.input_gradient:
            return None
        return conv2d_input(
            current.x.shape,
            current.w,
            dy,
            **{**self._geometry, **geometry},
            algorithm=self._algorithms[1],
            **self._limits,
        )

    def _kernels_forward(self, current: TrainingPass) -> Any:
        return conv2d(
            current.x, current.w, current.bias, **self._geometry, algorithm=self._algorithms[0], **self._limits
        )

    def _kernels_backward(self, current: TrainingPass, dy: Any) -> tuple[Any, Any]:
        dw = conv2d_weight(
            current.x, current.w.shape, dy, **self._geometry, algorithm=self._algorithms[2], **self._limits
        )
        return self._input_gradient(current, dy), dw

    def _columns_forward(self, current: TrainingPass) -> Any:
        assert current.problem is not None
        current.columns = self._take_columns(current.problem)
        return current.columns.forward(current.x, current.w, current.bias, current.problem, self._limits)

    def _columns_backward(self, current: TrainingPass, dy: Any) -> tuple[Any, Any]:
        assert current.problem is not None
        assert current.columns is not None
        dw = current.columns.weight_gradient(dy, current.problem, self._limits)
        return self._input_gradient(current, dy), dw


_STAGES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "kernels": (lambda c: c.plan._kernels_forward(c), lambda c, dy: c.plan._kernels_backward(c, dy)),
    "columns": (lambda c: c.plan._columns_forward(c), lambda c, dy: c.plan._columns_backward(c, dy)),
}
_DEFAULTS: dict[str, Any] = {
    "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "layout": "NCHW", "input_gradient": True,
}  # fmt: skip


@Slot
def _selectors() -> dict[int | None, BestOf]:
    """The selectors of pipelines by thread count, None for that of a call which does not say."""
    return {}


def _selector(num_threads: int | None) -> BestOf:
    """The one selector of pipelines for a thread count: plans share what was measured."""
    with planning:
        from convkit.best_of.selector import BestOf

        selectors = _selectors()
        if num_threads not in selectors:
            threads = _core.default_threads if num_threads is None else lambda: num_threads
            selectors[num_threads] = BestOf(
                "training", list(_STAGES.items()), key=lambda current: current.key, threads=threads, store=True
            )
        return selectors[num_threads]


def _settle(best: BestOf, current: TrainingPass) -> None:
    """Run passes on the arguments of this call until one pipeline has won, or the block's budget is spent."""
    from convkit.tuner.modes import measuring

    dy: Any = None
    while best.settled(current) is None:
        with measuring() as left:
            if left == 0:
                return
            pipeline = best.start(current)
            y = pipeline(current)
            if dy is None:
                dy = np.random.default_rng(0).standard_normal(y.shape).astype(y.dtype)
            pipeline(current, dy)


class _Alone:
    """Holds a plan for one call; a call that overlaps is an error, not a wait, in whatever thread."""

    __slots__ = ("_lock",)

    def __init__(self, lock: ForkSafeLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if self._lock.held or not self._lock.acquire(blocking=False):
            raise RuntimeError("this TrainingConv2d is running in another thread; use one for each thread")

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

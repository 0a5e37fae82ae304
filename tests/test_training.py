"""TrainingConv2d: every pipeline against the oracle, what it keeps and forgets, how it chooses, what it refuses."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import normal
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import convkit as ck
from convkit import reference
from convkit.training import pipeline as training
from convkit.tuner.evidence.database import open_user
from convkit.tuner.measuring.nested import current_sample

Array = NDArray[Any]
LAYOUTS = ("NCHW", "NHWC")


def operands(
    layout: str,
    n: int,
    c: int,
    h: int,
    w: int,
    o: int,
    kernel: tuple[int, int],
    groups: int = 1,
    dtype: str = "float32",
) -> tuple[Array, Array, Array]:
    shape = (n, c, h, w) if layout == "NCHW" else (n, h, w, c)
    return (
        normal(*shape, dtype=dtype),
        normal(o, c // groups, *kernel, dtype=dtype, seed=1),
        normal(o, dtype=dtype, seed=2),
    )


def check(plan: ck.TrainingConv2d, x: Array, w: Array, bias: Array | None, **options: Any) -> None:
    """One pass against the oracle, to what a Winograd kernel may err."""
    y = plan.forward(x, w, bias)
    dy = normal(*y.shape, dtype=x.dtype.name, seed=3)
    dx, dw, db = plan.backward(dy)
    expected = reference.conv2d(x, w, bias, **options)
    pixels = dy.size // w.shape[0]
    eps = 64 * float(np.finfo(x.dtype).eps)
    assert y.dtype == dw.dtype == x.dtype
    np.testing.assert_allclose(y, expected, rtol=0, atol=eps * (4 + w[0].size))
    np.testing.assert_allclose(dw, reference.conv2d_weight(x, w.shape, dy, **options), rtol=0, atol=eps * (4 + pixels))
    if plan.input_gradient:
        dx_expected = reference.conv2d_input(x.shape, w, dy, **options)
        np.testing.assert_allclose(dx, dx_expected, rtol=0, atol=eps * (4 + w[:, 0].size))
    else:
        assert dx is None
    if bias is None:
        assert db is None
    else:
        channel = 1 if options.get("layout", "NCHW") == "NCHW" else 3
        axes = tuple(axis for axis in range(4) if axis != channel)
        np.testing.assert_allclose(db, dy.astype(float).sum(axis=axes), rtol=0, atol=eps * (4 + pixels))


@st.composite
def passes(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    layout, groups = draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    pads = tuple((draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(2))
    least = [max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(kernel, dilation, pads, strict=True)]
    h, w = (size + draw(st.integers(0, 9)) for size in least)
    c, o = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 9))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    arrays = operands(layout, draw(st.integers(1, 3)), c, h, w, o, kernel, groups, dtype)
    return arrays, {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups, "layout": layout}


@given(call=passes(), pipeline=st.sampled_from(training.PIPELINES), with_bias=st.booleans())
def test_every_pipeline_agrees_with_the_oracle(call: Any, pipeline: str, with_bias: bool) -> None:
    (x, w, bias), options = call
    plan = ck.TrainingConv2d(**options, algorithm=pipeline)
    try:
        check(plan, x, w, bias if with_bias else None, **options)
    except ck.UnsupportedAlgorithmError:
        assert pipeline == "columns"
        assert w.shape[2:] == (1, 1)
        return
    assert plan.pipeline == pipeline


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_that_is_used_again_leaves_nothing_behind(layout: str) -> None:
    options: dict[str, Any] = {"stride": (2, 1), "padding": ((2, 0), (1, 3)), "layout": layout}
    plan = ck.TrainingConv2d(**options, algorithm="columns")
    x, w, bias = operands(layout, 2, 6, 9, 8, 5, (3, 4))
    for poison in (np.full_like(x, np.nan), np.full_like(x, np.inf)):
        plan.forward(poison, w)
        check(plan, x, w, bias, **options)
    other = operands(layout, 1, 6, 11, 8, 7, (3, 4))
    check(plan, *other, **options)
    check(plan, x, w, bias, **options)
    assert plan.nbytes >= x.nbytes


@st.composite
def in_any_order(draw: st.DrawFn, array: Array) -> Array:
    """The same values with the dimensions in another order in memory: C, Fortran, channels last and all others."""
    order = draw(st.permutations(range(array.ndim)))
    back = np.argsort(order)
    return np.ascontiguousarray(array.transpose(order)).transpose(back)


@given(
    data=st.data(),
    layout=st.sampled_from(LAYOUTS),
    single=st.booleans(),
    pipeline=st.sampled_from([*training.PIPELINES, None]),
    # Sizes that are equal hide which dimension is which from whoever looks at shapes.
    sizes=st.one_of(st.sampled_from([(8, 8, 8, 8), (8, 8, 8, 3), (1, 5, 5, 5)]), st.tuples(*[st.integers(3, 9)] * 4)),
    n=st.sampled_from([1, 2, 8]),
    groups=st.sampled_from([1, 1, 2]),
    same=st.booleans(),
)
def test_the_layout_is_what_the_arguments_say_whatever_the_order_in_memory(
    data: Any, layout: str, single: bool, pipeline: Any, sizes: tuple[int, ...], n: int, groups: int, same: bool
) -> None:
    c, h, w, o = sizes
    images, filters, bias = operands(layout, n, c * groups, h, w, o * groups, (3, 3), groups, "float64")
    options: dict[str, Any] = {"padding": int(same), "groups": groups, "layout": layout}
    if single:
        images = images[0]
    images, filters = data.draw(in_any_order(images)), data.draw(in_any_order(filters))
    plan = ck.TrainingConv2d(**options, algorithm=pipeline)
    batch = images[None] if single else images
    exact = reference.conv2d(batch, filters, bias, **options)
    dy = data.draw(in_any_order(normal(*exact.shape[single:], dtype="float64", seed=3)))
    gradient = dy[None] if single else dy
    y = plan.forward(images, filters, bias)
    dx, dw, db = plan.backward(dy)
    expected = {
        "y": (y, exact[0] if single else exact),
        "dx": (dx, reference.conv2d_input(batch.shape, filters, gradient, **options).reshape(images.shape)),
        "dw": (dw, reference.conv2d_weight(batch, filters.shape, gradient, **options)),
        "db": (db, gradient.sum(axis=(0, 2, 3) if layout == "NCHW" else (0, 1, 2))),
    }
    for name, (found, right) in expected.items():
        assert found.shape == right.shape, name
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_online_passes_over_other_memory_orders_are_right(layout: str, database: Path) -> None:
    x, w, bias = operands(layout, 2, 8, 8, 8, 8, (3, 3), dtype="float64")
    other = (0, 2, 3, 1) if layout == "NCHW" else (0, 3, 1, 2)
    x = np.ascontiguousarray(x.transpose(other)).transpose(np.argsort(other))
    plan = ck.TrainingConv2d(padding=1, layout=layout)
    seen = set()
    with ck.tuning(mode="online"):
        for _ in range(200):
            check(plan, x, w, bias, padding=1, layout=layout)
            seen.add(plan.pipeline)
            if seen == set(training.PIPELINES):
                break
    assert seen == set(training.PIPELINES)


@pytest.mark.parametrize("pipeline", training.PIPELINES)
def test_memory_orders_and_single_images(pipeline: str) -> None:
    x, w, bias = operands("NCHW", 2, 8, 7, 9, 6, (3, 3))
    plan = ck.TrainingConv2d(padding=1, algorithm=pipeline)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    strided = np.repeat(x, 2, axis=3)[..., ::2]
    hwio = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    for images in (last, strided):
        check(plan, images, hwio, bias, padding=1)
    y = plan.forward(x[0], w, bias)
    dx, dw, db = plan.backward(y)
    one = plan.forward(x[:1], w, bias)
    np.testing.assert_allclose(y, one[0], rtol=0, atol=1e-4)
    for single, batch in zip((dx, dw, db), plan.backward(one), strict=True):
        np.testing.assert_allclose(single, batch[0] if single is dx else batch, rtol=0, atol=1e-3)


def test_an_empty_batch() -> None:
    x, w, bias = operands("NCHW", 0, 3, 5, 5, 4, (3, 3))
    plan = ck.TrainingConv2d()
    y = plan.forward(x, w, bias)
    dx, dw, db = plan.backward(y)
    assert dx.shape == x.shape
    assert not dw.any()
    assert not db.any()


def test_the_first_layer_needs_no_input_gradient() -> None:
    x, w, bias = operands("NCHW", 2, 3, 8, 8, 4, (3, 3))
    check(ck.TrainingConv2d(input_gradient=False), x, w, bias)


def test_algorithms_for_each_call() -> None:
    x, w, bias = operands("NCHW", 2, 32, 12, 12, 32, (3, 3))
    with ck.profile() as profile:
        check(ck.TrainingConv2d(padding=1, algorithm=("im2col", "winograd4", "direct")), x, w, bias, padding=1)
        check(ck.TrainingConv2d(padding=1, algorithm="winograd4"), x, w, bias, padding=1)
    names = [record.kernel for record in profile.records]
    for name, text in zip(names, ("im2col", "weight_grad", "winograd_4x4", *["winograd_4x4"] * 3), strict=True):
        assert text in name
    with pytest.raises(ck.UnsupportedAlgorithmError, match="nothing"):
        ck.TrainingConv2d(algorithm="nothing").forward(x, w)
    with pytest.raises(ValueError, match="three for the forward call"):
        ck.TrainingConv2d(algorithm=("direct", "direct"))


def test_columns_need_room_and_a_reason() -> None:
    x, w, _ = operands("NCHW", 1, 4, 8, 8, 4, (3, 3))
    needed = x.size * 9 * 4
    ck.TrainingConv2d(padding=1, algorithm="columns", workspace_limit=needed).forward(x, w)
    with pytest.raises(ck.UnsupportedAlgorithmError, match=f"need {needed} bytes"):
        ck.TrainingConv2d(padding=1, algorithm="columns", workspace_limit=needed - 1).forward(x, w)
    with pytest.raises(ck.UnsupportedAlgorithmError, match="would be its input"):
        ck.TrainingConv2d(algorithm="columns").forward(x, w[:, :, :1, :1])


@pytest.mark.parametrize("fastest", training.PIPELINES)
def test_online_passes_settle_on_one_pipeline_and_the_database_keeps_it(database: Path, fastest: str) -> None:
    now = 0.0

    def clock() -> float:
        # Read when a stage begins and when it ends; the kernels that are tried within have a clock of their own.
        nonlocal now
        sample = current_sample.get()
        assert sample is not None
        now += 1.0 if sample.alternative == fastest else 2.0
        return now

    x, w, bias = operands("NCHW", 1, 3, 8, 8, 4, (3, 3))
    plan = ck.TrainingConv2d(padding=1, num_threads=1)
    seen = set()
    with ck.tuning(mode="online"):
        best = training._selector(1)
        best._clock = clock
        for _ in range(400):
            check(plan, x, w, bias, padding=1)
            seen.add(plan.pipeline)
            if all(problem.rounds.settled for problem in best._problems.values()):
                break
    assert seen == set(training.PIPELINES)
    (problem,) = best._problems.values()
    assert training.PIPELINES[problem.rounds.winner] == fastest  # type: ignore[index]
    stored = {trial.kernel for trial in open_user().trials() if "training" in trial.problem}
    assert stored == set(training.PIPELINES)

    ck.reload()
    again = ck.TrainingConv2d(padding=1, num_threads=1)
    with ck.tuning(mode="replay"):
        check(again, x, w, bias, padding=1)
    assert again.pipeline == fastest
    (problem,) = training._selector(1)._problems.values()
    assert problem.from_database


def test_tune_settles_at_first_sight(database: Path) -> None:
    x, w, bias = operands("NCHW", 1, 3, 8, 8, 4, (3, 3))
    plan = ck.TrainingConv2d(padding=1, num_threads=1)
    with ck.tuning(mode="tune"):
        check(plan, x, w, bias, padding=1)
    (problem,) = training._selector(1)._problems.values()
    assert problem.rounds.settled
    assert plan.pipeline == training.PIPELINES[problem.rounds.winner]  # type: ignore[index]
    assert any("training" in trial.problem for trial in open_user().trials())


def test_replay_times_nothing(database: Path) -> None:
    x, w, bias = operands("NCHW", 1, 3, 8, 8, 4, (3, 3))
    plan = ck.TrainingConv2d(padding=1, num_threads=1)
    for mode in ("replay", "off"):
        with ck.tuning(mode=mode):
            check(plan, x, w, bias, padding=1)
        assert plan.pipeline == "kernels"
    assert not database.exists()


def test_passes_begin_and_end() -> None:
    x, w, bias = operands("NCHW", 2, 3, 8, 8, 4, (3, 3))
    plan = ck.TrainingConv2d()
    with pytest.raises(RuntimeError, match="needs a forward call"):
        plan.backward(np.zeros((2, 4, 6, 6), np.float32))
    y = plan.forward(x, w, bias)
    with pytest.raises(ValueError, match=r"shape \(2, 4, 6, 5\), the result of forward has \(2, 4, 6, 6\)"):
        plan.backward(y[..., 1:])
    with pytest.raises(TypeError, match="float64, the result of forward has float32"):
        plan.backward(y.astype(np.float64))
    plan.backward(y)
    with pytest.raises(RuntimeError, match="needs a forward call"):
        plan.backward(y)
    plan.forward(x, w)
    with pytest.raises(ValueError, match="channels"):
        plan.forward(x[:, :2], w)
    with pytest.raises(RuntimeError, match="needs a forward call"):
        plan.backward(y)
    with pytest.raises(TypeError):
        plan.forward([1, 2], w)


@pytest.mark.parametrize("pipeline", training.PIPELINES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_passes_may_be_open_and_end_in_any_order(pipeline: str, layout: str) -> None:
    plan = ck.TrainingConv2d(padding=1, layout=layout, algorithm=pipeline)
    begun = []
    for seed, height in enumerate((8, 8, 6, 9, 8)):
        x, w, bias = operands(layout, 2, 3, height, 7, 4, (3, 3))
        x = x + np.float32(seed)
        begun.append((x, w, bias, *plan.begin(x, w, bias)))
    plan.forward(*operands(layout, 1, 3, 5, 5, 4, (3, 3)))  # has a pass of its own
    for i in (3, 0, 4, 2, 1):
        x, w, bias, y, step = begun[i]
        assert step.pipeline == pipeline
        dy = normal(*y.shape, seed=i)
        expected = (
            reference.conv2d_input(x.shape, w, dy, padding=1, layout=layout),
            reference.conv2d_weight(x, w.shape, dy, padding=1, layout=layout),
            ck.grad.conv2d_bias(dy, layout),
        )
        np.testing.assert_allclose(y, reference.conv2d(x, w, bias, padding=1, layout=layout), atol=1e-3)
        for retain in (True, True, False):
            for found, exact in zip(step.backward(dy, retain=retain), expected, strict=True):
                np.testing.assert_allclose(found, exact, atol=1e-2)
        with pytest.raises(RuntimeError, match="has had its backward call"):
            step.backward(dy)
    plan.backward(np.ones_like(plan.forward(*operands(layout, 1, 3, 5, 5, 4, (3, 3)))))


def test_memory_is_that_of_the_passes_that_were_open_at_once() -> None:
    x, w, _ = operands("NCHW", 2, 3, 8, 8, 4, (3, 3))
    plan = ck.TrainingConv2d(padding=1, algorithm="columns")
    one = x.nbytes * 9
    for _ in range(3):
        begun = [plan.begin(x, w) for _ in range(3)]
        assert plan.nbytes == 3 * one
        for y, step in begun:
            step.backward(y)
        assert plan.nbytes == 3 * one
    del begun, step
    other = ck.TrainingConv2d(padding=1, algorithm="columns")
    for height in range(3, 9):
        before = other.nbytes
        other.begin(x[:, :, :height], w)  # dropped: nobody wants its gradients
        assert other.nbytes == before
        for _ in range(2):
            other.forward(x[:, :, :height], w)
            assert other.nbytes == one * height // 8


def test_a_pass_ends_once_and_stays_open_after_an_error() -> None:
    x, w, _ = operands("NCHW", 2, 3, 8, 8, 4, (3, 3))
    for mode in ("replay", "online"):
        with ck.tuning(mode=mode):
            y, step = ck.TrainingConv2d(num_threads=1).begin(x, w)
            with pytest.raises(TypeError, match="float64, the result of forward has float32"):
                step.backward(y.astype(np.float64))
            with pytest.raises(ValueError, match="the result of forward has"):
                step.backward(y[..., 1:], retain=True)
            dx, dw, db = step.backward(y, retain=True)
            again = step.backward(y)
            assert db is None
            np.testing.assert_allclose(again[0], dx, rtol=0, atol=1e-2)  # perhaps of other kernels
            np.testing.assert_allclose(again[1], dw, rtol=0, atol=1e-2)
            with pytest.raises(RuntimeError, match="retain=True keeps a pass"):
                step.backward(y)


def test_passes_of_many_threads() -> None:
    plan = ck.TrainingConv2d(padding=1, algorithm="columns", num_threads=1)
    x, w, _ = operands("NCHW", 1, 3, 8, 8, 4, (3, 3))
    begun = [(float(i), *plan.begin(x * np.float32(i), w)) for i in range(16)]
    y = begun[1][1]
    dw = reference.conv2d_weight(x, w.shape, y, padding=1)
    wrong: list[float] = []

    def finish(factor: float, step: Any) -> None:
        if not np.allclose(step.backward(y)[1], dw * factor, atol=1e-2):
            wrong.append(factor)

    threads = [threading.Thread(target=finish, args=(factor, step)) for factor, _, step in begun]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_plan_belongs_to_one_thread_at_a_time() -> None:
    x, w, _ = operands("NCHW", 2, 3, 8, 8, 4, (3, 3))
    plan = ck.TrainingConv2d()
    y = plan.forward(x, w)
    raised: list[str] = []

    def elsewhere() -> None:
        try:
            plan.backward(y)
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "in the thread of its forward call" in raised[0]
    plan.backward(y)
    with plan._busy, pytest.raises(RuntimeError, match="running in another thread"):
        plan.forward(x, w)


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_copies_have_the_options_and_no_pass(twin: Any) -> None:
    x, w, bias = operands("NHWC", 2, 3, 8, 8, 4, (3, 3))
    plan = ck.TrainingConv2d(padding=1, layout="NHWC", algorithm="columns", num_threads=1)
    y = plan.forward(x, w, bias)
    other = twin(plan)
    assert repr(other) == repr(plan)
    assert other.pipeline == ""
    assert other.nbytes == 0
    with pytest.raises(RuntimeError, match="needs a forward call"):
        other.backward(y)
    check(other, x, w, bias, padding=1, layout="NHWC")
    plan.backward(y)


def test_repr_says_what_differs() -> None:
    assert repr(ck.TrainingConv2d()) == "TrainingConv2d()"
    assert repr(ck.TrainingConv2d(2, padding=(1, 0), accuracy="strict")) == (
        "TrainingConv2d(stride=2, padding=(1, 0), accuracy='strict')"
    )

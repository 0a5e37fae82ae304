"""Every kernel of the inventory, on every instruction set this machine has, against the float64 oracle.

Nothing here names a kernel: a new entry of the inventory is tested by being there. Outputs and workspaces are filled
with NaN before each run, and operands end at a page that may not be read.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit import _core
from convkit.problem import Problem
from oracle import ACTIVATIONS, FOLLOWING, Operands
from strategies import Source, families_of, problems, sample_problems

KERNELS = _core.kernels()
every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=[kernel["name"] for kernel in KERNELS])
# Drawing a problem costs hypothesis more than computing it costs the kernel. So it searches, and shrinks what it finds,
# with a fifth of the examples; most problems come from a plain random generator.
few = settings(max_examples=settings().max_examples // 5)
SAMPLE = 40


def run(kernel: Any, problem: Problem, parameters: tuple[int, ...], threads: int, operands: Operands) -> Any:
    """Run one kernel over poisoned memory."""
    runner = _core.Runner(
        kernel["index"],
        parameters,
        problem.to_core(),
        threads,
        operands.x,
        operands.w,
        bias=operands.bias,
        residual=operands.residual,
        poison=True,
        **operands.arguments,
    )
    return runner.run()


@every_kernel
def test_some_shapes_suit_it(kernel: Any) -> None:
    assert families_of(kernel), f"no family of shapes in strategies.py has problems that {kernel['name']} takes"


@every_kernel
@few
@given(data=st.data())
def test_right_for_any_problem(kernel: Any, data: Any) -> None:
    problem = data.draw(problems(kernel))
    check_problem(kernel, problem, Source(draw=data.draw))


@every_kernel
def test_right_for_many_problems(kernel: Any) -> None:
    source = Source(rng=random.Random(2))
    for problem in sample_problems(kernel, SAMPLE, seed=2):
        check_problem(kernel, problem, source)


def check_problem(kernel: Any, problem: Problem, source: Source) -> None:
    """Run a kernel with its default and other parameters, by a team and alone, on operands drawn from `source`."""
    threads = source.integer(1, 4)
    operands = Operands(problem, kernel, source.integer(0, 62), at_end=source.choice((False, True)))
    operands.expect()
    candidates = _core.candidates(kernel["index"], problem.to_core(), threads)
    for parameters in dict.fromkeys((candidates[0], candidates[source.integer(0, len(candidates) - 1)])):
        y = run(kernel, problem, parameters, threads, operands).copy()
        operands.check(y)
        if threads > 1:
            alone = run(kernel, problem, parameters, 1, operands)
            assert alone.tobytes() == y.tobytes(), f"{threads} threads give other bits than one, {parameters}"


@every_kernel
def test_right_with_all_parameters(kernel: Any) -> None:
    for seed, problem in enumerate(sample_problems(kernel, 3)):
        operands = Operands(problem, kernel, seed)
        operands.expect()
        for parameters in _core.candidates(kernel["index"], problem.to_core(), 2):
            operands.check(run(kernel, problem, parameters, 2, operands))


@every_kernel
def test_right_with_parameters_of_another_problem(kernel: Any) -> None:
    # A database may say anything that the schema allows.
    samples = list(sample_problems(kernel, 4))
    sets = {tuple(least for _, least, _ in kernel["parameters"])}
    sets.update(_core.candidates(kernel["index"], problem.to_core(), 2)[0] for problem in samples)
    for seed, problem in enumerate(samples):
        operands = Operands(problem, kernel, seed)
        operands.expect()
        for parameters in sorted(sets):
            operands.check(run(kernel, problem, parameters, 2, operands))


@every_kernel
def test_right_with_every_epilogue(kernel: Any) -> None:
    if kernel["op"] == "weight_grad":
        pytest.skip("gradients of weights have no epilogue")
    for problem, residual in zip(sample_problems(kernel, 2), (False, True), strict=True):
        asked = problem.replace(epilogue="other", residual=residual, bias=not residual)
        if not _core.applies(kernel["index"], asked.to_core()):
            continue
        parameters = _core.candidates(kernel["index"], asked.to_core(), 2)[0]
        operands = Operands(asked, kernel)
        # Each activation once, each form of what follows once more with none.
        pairs = [(i, i % len(FOLLOWING)) for i in range(len(ACTIVATIONS))]
        pairs += [(len(ACTIVATIONS) - 1, i) for i in range(len(FOLLOWING))]
        for activation, following in pairs:
            operands.choose_epilogue(activation, following)
            operands.expect()
            operands.check(run(kernel, asked, parameters, 2, operands))


@every_kernel
def test_nan_and_infinity_stay_where_they_belong(kernel: Any) -> None:
    if not kernel["direct"]:
        pytest.skip("transforms spread NaN and infinity over a tile; the documentation says so")
    for seed, problem in enumerate(sample_problems(kernel, 4)):
        problem = problem.replace(epilogue="none")
        if not _core.applies(kernel["index"], problem.to_core()):
            continue
        operands = Operands(problem, kernel, seed)
        rng = np.random.default_rng(seed)
        operands.x.ravel()[rng.integers(operands.x.size, size=2)] = (np.nan, np.inf)
        with np.errstate(invalid="ignore"):
            operands.expect()
            parameters = _core.candidates(kernel["index"], problem.to_core(), 1)[0]
            y = run(kernel, problem, parameters, 1, operands)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(operands.expected), err_msg=str(problem))
        np.testing.assert_array_equal(np.isinf(y), np.isinf(operands.expected), err_msg=str(problem))


@every_kernel
def test_impossible_parameters_are_refused(kernel: Any) -> None:
    problem = sample_problems(kernel, 1)[0]
    operands = Operands(problem, kernel)
    default = _core.candidates(kernel["index"], problem.to_core(), 1)[0]
    with pytest.raises(ValueError, match="parameter"):
        run(kernel, problem, (*default, 1), 1, operands)
    for i, (name, least, most) in enumerate(kernel["parameters"]):
        for value in (least - 1, most + 1):
            with pytest.raises(ValueError, match=name):
                run(kernel, problem, (*default[:i], value, *default[i + 1 :]), 1, operands)


def test_an_empty_batch_runs_no_kernel() -> None:
    for kernel in KERNELS:
        for problem in sample_problems(kernel, 1):
            empty = problem.replace(n=0, bias=False, residual=False, epilogue="none")
            core = empty.to_core()
            shapes = {
                "forward": (empty.x_shape, empty.w_shape, empty.y_shape),
                "input_grad": (empty.y_shape, empty.w_shape, empty.x_shape),
                "weight_grad": (empty.x_shape, empty.y_shape, empty.w_shape),
            }
            x, w, result = shapes[empty.op]
            arrays = [np.ones(shape, empty.dtype) for shape in (x, w)]
            runner = _core.Runner(
                kernel["index"], _core.candidates(kernel["index"], core, 1)[0], core, 1, *arrays, poison=True
            )
            np.testing.assert_array_equal(runner.run(), np.zeros(result, empty.dtype))


def test_the_check_refuses_zeros() -> None:
    kernel = KERNELS[0]
    problem = Problem(op="forward", dtype=kernel["dtypes"][0], n=1, c=64, h=9, w=9, o=64, kh=3, kw=3)
    operands = Operands(problem, kernel)
    operands.expect()
    operands.check(operands.expected.astype(problem.dtype))
    with pytest.raises(AssertionError, match="wrong"):
        operands.check(np.zeros(operands.expected.shape, problem.dtype))


def test_the_inventory_is_consistent() -> None:
    assert [kernel["index"] for kernel in KERNELS] == list(range(len(KERNELS)))
    names = [kernel["name"] for kernel in KERNELS]
    assert len(set(names)) == len(names)
    assert {kernel["isa"] for kernel in KERNELS} == set(_core.usable_isas())
    dtypes = {"float32": "f32_", "float64": "f64_"}
    for kernel in KERNELS:
        assert kernel["name"].startswith(dtypes[kernel["dtypes"][0]])
        assert f"__{kernel['isa']}" in kernel["name"]
        assert kernel["revision"] >= 1
        assert kernel["layouts"]

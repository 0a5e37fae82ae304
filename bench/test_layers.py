"""Every layer of the networks that were asked for, as pytest-benchmark measures it."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from convkit import _core
from convkit.contest.contestants import convkit_contestant
from convkit.contest.limits import kernel_limit
from convkit.contest.pinning import pinned
from convkit.contest.turns import relative_error


def test_layer(benchmark: Any, layer_case: Any, tuned: Any, operands_of: Any, fma_peak: Any, sweep: Any) -> None:
    network, layer, problem, threads, kernel = layer_case
    if kernel == "selected":
        tuned(problem, threads)
    operands, exact = operands_of(problem)
    contestant = convkit_contestant(operands, threads, algorithm=None if kernel == "selected" else kernel)
    error, rms = relative_error(contestant.result(contestant.call()), exact)
    benchmark.group = f"{network} {layer.name} {problem.layout} {problem.op}, {threads} threads"
    with threadpool_limits(threads), pinned(threads) as cpus:
        benchmark(contestant.call)
    peak = fma_peak(problem.dtype, threads)
    limit = kernel_limit(problem, contestant.kernel, contestant.parameters, threads, peak)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info.update(
        problem=str(problem),
        kernel=contestant.kernel,
        parameters=list(contestant.parameters),
        threads=threads,
        cpus=sorted(cpus),
        isa=_core.active_isa(),
        cpu=str(_core.cpu()["brand"]).strip(),
        count=layer.count,
        gflops=round(problem.flops / seconds / 1e9, 2),
        percent_of_peak=round(100 * problem.flops / seconds / (2 * peak), 1),
        percent_of_limit=round(100 * limit / seconds, 1),
        error=error,
        rms_error=rms,
    )
    sweep.append((f"{network} {layer.name} {problem.layout} {problem.op} {kernel}", threads, seconds))
    assert error < 1e-3


@pytest.mark.parametrize("size", [7, 14, 28, 56, 112])
def test_overhead_of_the_suite(benchmark: Any, size: int) -> None:
    """The same kernel in pytest-benchmark's loop and in C++'s own: the difference is what the suite adds."""
    from convkit.contest.contestants import Operands
    from convkit.problem import Problem
    from convkit.tuner import choose

    problem = Problem(n=1, c=64, h=size, w=size, o=64, kh=3, kw=3, pad_top=1, pad_bottom=1, pad_left=1, pad_right=1)
    operands = Operands(problem)
    choice = choose(problem, 1, algorithm="direct")
    trial = _core.Trial(choice.index, choice.parameters, problem.to_core(), 1, operands.x, operands.w)
    benchmark.group = "overhead of the suite"
    calls = max(20, int(0.2 / max(trial.time(5) / 5, 1e-6)))
    bare = [trial.time(1) for _ in range(calls)]
    benchmark(trial.run)
    bare = statistics.median(bare + [trial.time(1) for _ in range(calls)])
    overhead = benchmark.stats.stats.median / bare - 1
    benchmark.extra_info.update(problem=f"3x3 64->64 @{size}", bare_seconds=bare, overhead=overhead)

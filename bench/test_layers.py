"""Every layer of the networks that were asked for, as pytest-benchmark measures it."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from convkit import _core
from convkit.contest.contestants import Operands
from convkit.contest.pinning import pinned
from convkit.contest.turns import Timing, relative_error
from convkit.problem import Problem
from convkit.tuner import choose


def test_layer(benchmark: Any, timed_layer: Any, tuned: Any, heat_of: Any, report: Any, sweep: Any) -> None:
    timed, threads, algorithm = timed_layer
    if algorithm is None:
        tuned(timed, threads)
    heat = heat_of(timed)
    contestant = heat.convkit(threads, algorithm)
    error, rms = relative_error(contestant.result(contestant.call()), heat.exact)
    benchmark.group = f"{timed.network} {timed.name} {timed.call}, {threads} threads"
    with threadpool_limits(threads), pinned(threads) as cpus:
        benchmark(contestant.call)
    found = benchmark.stats.stats
    report.measure_limits(threads)
    row = report.add(timed, threads, contestant, Timing(found.median, found.min, found.rounds, 0.0, error, rms))
    benchmark.extra_info.update(
        problem=row.problem,
        kernel=row.kernel,
        parameters=list(row.parameters),
        threads=threads,
        cpus=sorted(cpus),
        isa=_core.active_isa(),
        cpu=str(_core.cpu()["brand"]).strip(),
        count=row.count,
        gflops=round(row.rate / 1e9, 2),
        percent_of_peak=round(100 * row.rate / report.peak(threads, timed.problem.dtype), 1),
        percent_of_limit=round(100 * row.limit / row.median, 1) if row.limit else None,
        error=error,
        rms_error=rms,
    )
    sweep.append((f"{timed.network} {timed.name} {timed.call} {algorithm or 'selected'}", threads, row.median))
    assert error < 1e-3


@pytest.mark.parametrize("size", [7, 14, 28, 56, 112])
def test_overhead_of_the_suite(benchmark: Any, size: int) -> None:
    """The same kernel in pytest-benchmark's loop and in C++'s own: the difference is what the suite adds."""
    problem = Problem(n=1, c=64, h=size, w=size, o=64, kh=3, kw=3, pad_top=1, pad_bottom=1, pad_left=1, pad_right=1)
    operands = Operands(problem)
    choice = choose(problem, 1, algorithm="direct")
    runner = _core.Runner(
        choice.candidate.kernel.index, choice.parameters, problem.to_core(), 1, operands.x, operands.w
    )
    benchmark.group = "overhead of the suite"
    calls = max(20, int(0.2 / max(runner.time(5) / 5, 1e-6)))
    bare = [runner.time(1) for _ in range(calls)]
    benchmark(runner.run)
    bare = statistics.median(bare + [runner.time(1) for _ in range(calls)])
    overhead = benchmark.stats.stats.median / bare - 1
    benchmark.extra_info.update(problem=f"3x3 64->64 @{size}", bare_seconds=bare, overhead=overhead)

"""Options and parameters of the pytest-benchmark suite: networks, teams, layouts, operations, kernels."""

from __future__ import annotations

from typing import Any

import pytest

from convkit import _core, networks
from convkit.commands.tune import gradient
from convkit.contest.contestants import Operands
from convkit.problem import Problem
from convkit.tables import aligned
from convkit.tuner import choose, is_complete, tune_problem
from convkit.tuner.choosing.selector import UnsupportedAlgorithmError, selector


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("convkit")
    group.addoption("--networks", default="vgg19", help="networks, separated by commas")
    group.addoption("--layers", default="", help="only layers whose name contains this")
    group.addoption("--batch", default=1, type=int, help="batch size")
    group.addoption("--threads", default="1", help="team sizes, separated by commas")
    group.addoption("--kernels", default="selected", help="selected, all, or algorithms separated by commas")
    group.addoption("--layout", default="nchw", help="nchw, nhwc or both, separated by commas")
    group.addoption("--op", default="forward", help="forward, input, weight, separated by commas")
    group.addoption("--dtype", default="float32", help="float32 or float64")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "layer_case" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    cases, names = [], []
    for network in option("--networks").split(","):
        for layer in networks.get(network).unique():
            if option("--layers") not in layer.name:
                continue
            for layout in option("--layout").upper().split(","):
                for op in option("--op").split(","):
                    problem = layer.problem(option("--batch"), layout=layout, dtype=option("--dtype"))
                    if op != "forward":
                        problem = problem.replace(op=gradient(problem.op, op), packed=False)
                    elif not layer.transposed:
                        problem = problem.replace(bias=True, epilogue="clamp")
                    for threads in map(int, option("--threads").split(",")):
                        for kernel in _kernels(option("--kernels"), problem, threads):
                            cases.append((network, layer, problem, threads, kernel))
                            names.append(f"{network}-{layer.name}-{layout.lower()}-{op}-{threads}t-{kernel}")
    metafunc.parametrize("layer_case", cases, ids=names)


def _kernels(kernels: str, problem: Problem, threads: int) -> list[str]:
    known = selector().inventory.families
    names = known if kernels == "all" else kernels.split(",")
    if unknown := {*names} - {*known, "selected"}:
        raise pytest.UsageError(f"--kernels: {', '.join(sorted(unknown))} is not of selected, all, {', '.join(known)}")
    found = []
    for name in names:
        try:
            if name != "selected":
                choose(problem, threads, algorithm=name)
        except UnsupportedAlgorithmError:
            continue
        found.append(name)
    return found


SWEEP: pytest.StashKey[list[tuple[str, int, float]]] = pytest.StashKey()


@pytest.fixture(scope="session")
def sweep(pytestconfig: pytest.Config) -> list[tuple[str, int, float]]:
    """Seconds by layer and team size, for the table at the end."""
    return pytestconfig.stash.setdefault(SWEEP, [])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Scaling of what ran with several team sizes: speed-up over the smallest, and its share of the ideal one."""
    times: dict[str, dict[int, float]] = {}
    for name, threads, seconds in config.stash.get(SWEEP, []):
        times.setdefault(name, {})[threads] = seconds
    swept = {name: teams for name, teams in times.items() if len(teams) > 1}
    if not swept:
        return
    terminalreporter.section("scaling")
    rows = [("layer", "threads", "ms", "speed-up", "efficiency")]
    for name, teams in swept.items():
        least = min(teams)
        for threads, seconds in sorted(teams.items()):
            gain = teams[least] / seconds
            share = f"{100 * gain * least / threads:.0f}%"
            rows.append((name if threads == least else "", str(threads), f"{1e3 * seconds:.3f}", f"{gain:.2f}", share))
    for line in aligned(rows):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def fma_peak() -> Any:
    """Measured multiply-adds a second of a team, measured once for each size."""
    known: dict[tuple[str, int], float] = {}

    def measure(dtype: str, threads: int) -> float:
        if (dtype, threads) not in known:
            known[dtype, threads] = _core.fma_peak(dtype, threads)
        return known[dtype, threads]

    return measure


@pytest.fixture(scope="session")
def tuned() -> Any:
    """Measures a problem that the database lacks, once."""

    def tune(problem: Problem, threads: int) -> None:
        if not is_complete(problem, threads) and choose(problem, threads).tier != "user":
            tune_problem(problem, threads)

    return tune


@pytest.fixture(scope="module")
def operands_of() -> Any:
    """Operands and the exact result of a problem; the last one is kept, because neighbours share it."""
    last: list[Any] = []

    def make(problem: Problem) -> tuple[Operands, Any]:
        if not last or last[0] != problem:
            operands = Operands(problem)
            last[:] = [problem, operands, operands.exact()]
        return last[1], last[2]

    return make

"""Options and parameters of the pytest-benchmark suite: networks, teams, layouts, operations, kernels."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from convkit import UnsupportedAlgorithmError, networks
from convkit.contest.layers import CALLS, Heat, TimedLayer, algorithms, timed_layers
from convkit.contest.results import Report
from convkit.tables import aligned
from convkit.training.pipeline import PIPELINES
from convkit.tuner import choose, is_complete, tune_problem


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("convkit")
    group.addoption("--networks", default="vgg19", help="networks, separated by commas")
    group.addoption("--layers", default="", help="only layers whose name contains this")
    group.addoption("--batch", default=1, type=int, help="batch size")
    group.addoption("--threads", default="1", help="team sizes, separated by commas")
    group.addoption("--kernels", default="selected", help="selected, all, or algorithms separated by commas")
    group.addoption("--layout", default="nchw", help="nchw, nhwc or both, separated by commas")
    group.addoption("--op", default="forward", help="forward, input, weight, training, separated by commas")
    group.addoption("--dtype", default="float32", help="float32 or float64")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "timed_layer" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    if unknown := {*option("--op").split(",")} - {*CALLS}:
        raise pytest.UsageError(f"--op: {', '.join(sorted(unknown))} is not of {', '.join(CALLS)}")
    try:
        wanted = algorithms(option("--kernels"), option("--op").split(","))
    except ValueError as error:
        raise pytest.UsageError(f"--kernels: {error}") from None
    layers, names = [], []
    for name, layout, call in itertools.product(
        option("--networks").split(","), option("--layout").upper().split(","), option("--op").split(",")
    ):
        found = timed_layers(
            networks.get(name), batch=option("--batch"), layout=layout, call=call, dtype=option("--dtype"),
            only=option("--layers"),
        )  # fmt: skip
        for timed, threads in itertools.product(found, map(int, option("--threads").split(","))):
            for algorithm in _applicable(wanted, timed, threads):
                layers.append((timed, threads, algorithm))
                names.append(f"{name}-{timed.name}-{layout.lower()}-{call}-{threads}t-{algorithm or 'selected'}")
    metafunc.parametrize("timed_layer", layers, ids=names)


def _applicable(wanted: tuple[str | None, ...], timed: TimedLayer, threads: int) -> Iterator[str | None]:
    for name in wanted:
        if name in PIPELINES:
            if timed.call == "training":
                yield name
            continue
        with contextlib.suppress(UnsupportedAlgorithmError):
            choose(timed.problem, threads, algorithm=name)
            yield name


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
def report() -> Report:
    """Everything that was measured, with this machine's limits."""
    return Report.here()


@pytest.fixture(scope="session")
def tuned() -> Any:
    """Measures a layer that the database lacks, once."""

    def tune(timed: TimedLayer, threads: int) -> None:
        for problem in timed.problems:
            if not is_complete(problem, threads) and choose(problem, threads).tier != "user":
                tune_problem(problem, threads)

    return tune


@pytest.fixture(scope="module")
def heat_of() -> Any:
    """Operands and the exact result of a layer; the last one is kept, because neighbours share it."""
    last: list[Heat] = []

    def make(timed: TimedLayer) -> Heat:
        if not last or last[0].layer != timed:
            last[:] = [Heat(timed)]
        return last[0]

    return make

"""What a short tuning buys: a network's layers as they run untuned and after budgets, timed in turns in one process.

    python bench/budgets.py [--network vgg19] [--layout NCHW] [--threads 1] [--budgets 1s,5s,15s] [--shipped]

Each budget gets an empty database. Without --shipped the trials that come with the package are left out, as on a
machine that they know nothing of.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from convkit import networks
from convkit.problem import Problem
from convkit.tuner.choosing.selector import Selector
from convkit.tuner.evidence.shipped import ShippedTier
from convkit.tuner.evidence.tiers import Tier, UserTier
from convkit.tuner.inventory import Candidate, core_inventory
from convkit.tuner.measuring.workbench import Workbench

ROUNDS = 15
# Tunes with an empty database and what else it is told of.
TUNE = """
import sys
from convkit.commands.tune import Job, tune_all
from convkit.tuner.choosing import selector
from convkit.tuner.evidence import shipped
from convkit.problem import Problem

if sys.argv[1] == "alone":
    shipped.ShippedTier.__init__.__defaults__ = ("/nowhere",)
print(tune_all([Job(text, Problem.parse(text), int(sys.argv[2])) for text in sys.argv[4:]], float(sys.argv[3])).text())
"""


def choices(problems: list[Problem], threads: int, path: str | None, others: list[Tier]) -> list[Candidate]:
    """What calls run with a database."""
    selector = Selector(core_inventory(), UserTier(path), others)
    return [selector.choose(problem, threads).candidate for problem in problems]


def seconds(problem: Problem, threads: int, candidates: set[Candidate]) -> dict[Candidate, float]:
    """Median seconds of each candidate, timed in turns."""
    bench = Workbench(problem, threads)
    runners = {candidate: bench.runner(candidate) for candidate in candidates}
    repeats = {candidate: max(1, round(2e-3 / runner.time(1))) for candidate, runner in runners.items()}
    times: dict[Candidate, list[float]] = {candidate: [] for candidate in candidates}
    for number in range(ROUNDS):
        for candidate in sorted(runners, key=str, reverse=number % 2 == 1):
            times[candidate].append(runners[candidate].time(repeats[candidate]) / repeats[candidate])
    return {candidate: statistics.median(found) for candidate, found in times.items()}


def main() -> None:
    """Tune, time, print a line for each budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="vgg19", choices=networks.names())
    parser.add_argument("--layout", default="NCHW", choices=("NCHW", "NHWC"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budgets", default="1s,5s,15s")
    parser.add_argument("--shipped", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    layers = networks.get(arguments.network).unique()
    problems = [layer.problem(1, layout=arguments.layout, bias=layer.bias, packed=True) for layer in layers]
    others: list[Tier] = [ShippedTier()] if arguments.shipped else []
    ways = {"untuned": choices(problems, arguments.threads, None, others)}
    with tempfile.TemporaryDirectory() as folder:
        for budget in arguments.budgets.split(","):
            path = os.path.join(folder, budget)
            command = [sys.executable, "-c", TUNE, "shipped" if arguments.shipped else "alone", str(arguments.threads)]
            command += [budget.removesuffix("s"), *map(str, problems)]
            done = subprocess.run(
                command, env={**os.environ, "CONVKIT_DB": path}, check=True, capture_output=True, text=True
            )
            told = done.stdout.splitlines()
            print(f"{budget}: {'; '.join(line for line in told if 'measured,' in line or 'what ran before' in line)}")
            ways[budget] = choices(problems, arguments.threads, path, others)
    totals = dict.fromkeys(ways, 0.0)
    for number, problem in enumerate(problems):
        times = seconds(problem, arguments.threads, {chosen[number] for chosen in ways.values()})
        for way, chosen in ways.items():
            totals[way] += times[chosen[number]]
    for way, total in totals.items():
        print(f"{way:>8} {1e3 * total:8.2f} ms, {total / totals['untuned']:.3f} of untuned")
    if arguments.json:
        arguments.json.write_text(json.dumps(totals, indent=1))


if __name__ == "__main__":
    main()

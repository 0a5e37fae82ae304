"""What measuring costs: a profile's record against a call, and pytest-benchmark's loop against C++'s own.

    python bench/overhead.py [--json FILE]

The cost of a record is the difference between short calls inside and outside of a profile, in turns; it is held
against the mean call of VGG-19's convolutions on CIFAR-10 images in batches of 64. The suite's loop is timed by the
suite itself (`test_overhead_of_the_suite`), whose results carry the time of the same calls without Python.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import convkit as ck
from convkit import _core, networks
from convkit.contest.results import Report

CALLS, ROUNDS = 2000, 41


def seconds_of_calls(layer: Any, x: Any) -> float:
    """One call's share of many."""
    begin = time.perf_counter()
    for _ in range(CALLS):
        layer(x)
    return (time.perf_counter() - begin) / CALLS


def record_cost() -> tuple[float, float]:
    """Seconds that a record adds to a call, and that it takes when the block ends."""
    x, w = np.ones((1, 8, 8, 8), np.float32), np.ones((8, 8, 3, 3), np.float32)
    layer = ck.Conv2d(w, padding=1, num_threads=1, algorithm="direct")
    added, closing = [], []
    for _ in range(ROUNDS):
        bare = seconds_of_calls(layer, x)
        with ck.profile() as p:
            recorded = seconds_of_calls(layer, x)
            begin = time.perf_counter()
        closing.append((time.perf_counter() - begin) / len(p.records))
        added.append(recorded - bare)
    return statistics.median(added), statistics.median(closing)


def mean_call(threads: int) -> float:
    """Mean seconds of VGG-19's convolutions on 64 CIFAR-10 images, as a profile records them."""
    rng = np.random.default_rng(0)
    work = []
    for layer in networks.get("vgg19_cifar").layers:
        x = rng.standard_normal((64, layer.c, layer.h, layer.w), dtype=np.float32)
        w = rng.standard_normal((layer.o, layer.c, layer.kh, layer.kw), dtype=np.float32)
        work.append((ck.Conv2d(w, padding=layer.padding, activation="relu", num_threads=threads), x))
    for call, x in work:
        call(x)
    with ck.profile() as p:
        for _ in range(3):
            for call, x in work:
                call(x)
    return statistics.mean(record.seconds for record in p.records)


def suite_overhead() -> list[dict[str, Any]]:
    """The suite's time of a call and C++'s, as the suite reports them."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "suite.json"
        command = ["-m", "pytest", "-q", "-k", "overhead", f"--benchmark-json={saved}", str(Path(__file__).parent)]
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        kept = json.loads(saved.read_text())["benchmarks"]
    return [{"seconds": one["stats"]["median"], **one["extra_info"]} for one in kept]


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="save the figures here")
    arguments = parser.parse_args()
    added, closing = record_cost()
    teams = {str(threads): mean_call(threads) for threads in sorted({1, _core.available_cpus()})}
    suite = suite_overhead()
    print(f"a record adds {1e6 * added:.2f} us to its call and {1e6 * closing:.2f} us when the block ends")
    for threads, mean in teams.items():
        share = 100 * (added + closing) / mean
        print(f"VGG-19, CIFAR-10, batch 64, {threads} threads: mean call {1e3 * mean:.2f} ms, of which {share:.4f}%")
    for one in suite:
        calls = f"{one['problem']}: C++ {1e6 * one['bare_seconds']:.1f} us, suite {1e6 * one['seconds']:.1f} us"
        print(f"{calls}, {100 * one['overhead']:+.2f}%")
    if arguments.json:
        found = {"added": added, "closing": closing, "mean_call": teams}
        kept = {"machine": Report.here().machine, "profile": found, "suite": suite}
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

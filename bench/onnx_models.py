"""Whole ONNX models: convkit.onnx beside ONNX Runtime, in turns in one process.

    python bench/onnx_models.py [--only vgg19,unet] [--threads 1,2] [--rounds 6] [--tune 10s]

Networks of `convkit.onnx.networks` with random weights, and the PP-OCRv4 models if rapidocr-onnxruntime is installed.
Times are medians; a ratio is ONNX Runtime's time, all its optimisations on, over convkit's. Every model is measured as
convkit comes, and again once kernels were measured on its layers, those that take longest first, for the time that
``--tune`` gives each model and team, into a database of its own. Loading does not count imports. Memory is what loading
from a file and three runs add to a process that has imported both. The difference is the largest from ONNX Runtime
without optimisations, relative to its largest value or to 1 if that is larger (probabilities).

Without ``--only`` the tables go into docs/onnx.md, too. It takes five minutes of a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import convkit as ck
import convkit.onnx as door
from convkit.onnx.networks import NETWORKS, network
from convkit.tables import aligned, threads_text
from convkit.tuner import machine
from convkit.tuner.measuring.tune import tune_problem
from convkit.tuner.modes import parse_budget

PAGE = Path(__file__).parents[1] / "docs" / "onnx.md"

# By how much convkit is to be faster.
AIMS = {
    "vgg19": 2.5, "resnet50": 1.25, "mobilenet_v2": 1.0, "squeezenet": 1.2, "unet": 2.0, "esrgan": 2.5, "yolov8n": 1.3,
    "pp-ocrv4 det": 1.3, "pp-ocrv4 rec": 1.1,
}  # fmt: skip
OCR = {
    "pp-ocrv4 det": ("ch_PP-OCRv4_det_infer.onnx", 640, 640),
    "pp-ocrv4 rec": ("ch_PP-OCRv4_rec_infer.onnx", 48, 320),
}
REST = 0.1  # seconds
HEAD = (
    "model", "threads", "ONNX Runtime, ms", "convkit, ms", "ratio", "tuned, ms", "ratio", "aim", "load, ms",
    "its load, ms", "difference",
)  # fmt: skip
MEMORY_HEAD = ("model", "file, MiB", "ONNX Runtime, MiB", "convkit, MiB", 'memory="low", MiB')


def models(only: list[str]) -> Iterator[tuple[str, bytes, Any]]:
    """Name, bytes and an input: a smooth picture, as noise makes optimised runtimes differ from themselves."""
    for name, (_, usual) in NETWORKS.items():
        if not only or name in only:
            yield name, network(name).SerializeToString(), picture(usual, usual)
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    for name, (file, height, width) in OCR.items():
        if found is not None and found.origin is not None and (not only or name in only):
            data = (Path(found.origin).parent / "models" / file).read_bytes()
            yield name, data, picture(height, width)


def picture(height: int, width: int) -> Any:
    """Waves of three colours within 0 and 1."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([0.5 + 0.5 * np.sin(x / (7 + c) + y / (5 + 2 * c)) for c in range(3)])[None].astype(np.float32)


def loaded(make: Callable[[], Any]) -> tuple[Any, float]:
    """A session and the median time that making one takes."""
    make()
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        session = make()
        times.append(time.perf_counter() - begin)
    return session, statistics.median(times)


def in_turns(ours: Any, theirs: Any, feed: Any, rounds: int) -> list[float]:
    """Median times of a run of each. A turn is a rest, a run that does not count and two that do.

    Threads of ONNX Runtime spin on the CPUs after a run; without a rest two of ours take as long as one.
    """
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for i, session in enumerate((ours, theirs)):
            time.sleep(REST)
            session.run(None, feed)
            for _ in range(2):
                begin = time.perf_counter()
                session.run(None, feed)
                times[i].append(time.perf_counter() - begin)
    return [statistics.median(each) for each in times]


@dataclass(frozen=True)
class Figures:
    """Seconds of one model and team, ours and theirs: as convkit comes, tuned, and of loading. And the difference."""

    plain: list[float]
    tuned: list[float] | None
    loads: list[float]
    difference: float


def measured(data: bytes, x: Any, threads: int, rounds: int, tune: str) -> Figures:
    """Everything but memory."""
    options, unchanged = onnxruntime.SessionOptions(), onnxruntime.SessionOptions()
    options.intra_op_num_threads = unchanged.intra_op_num_threads = threads
    unchanged.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    ours, our_load = loaded(lambda: door.InferenceSession(data, door.SessionOptions(intra_op_num_threads=threads)))
    theirs, their_load = loaded(lambda: onnxruntime.InferenceSession(data, options))
    feed = {ours.get_inputs()[0].name: x}
    expected = onnxruntime.InferenceSession(data, unchanged).run(None, feed)
    worst = max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1))
        for a, b in zip(ours.run(None, feed), expected, strict=True)
    )
    plain = in_turns(ours, theirs, feed, rounds)
    tuned = None
    if tune != "0":
        tune_slowest(ours, feed, threads, parse_budget(tune))
        ck.reload()
        tuned = in_turns(ours, theirs, feed, rounds)
    return Figures(plain, tuned, [our_load, their_load], worst)


def tune_slowest(session: Any, feed: Any, threads: int, seconds: float) -> None:
    """Measure the kernels of a model's convolutions until the time is up."""
    with ck.profile() as calls:
        session.run(None, feed)
    spent: Counter[Any] = Counter()
    for record in calls.records:
        spent[record.problem] += record.seconds
    end = time.perf_counter() + seconds
    for problem, _ in spent.most_common():
        left = end - time.perf_counter()
        if left <= 0:
            break
        tune_problem(problem, threads, at_most=left)


def resident() -> float:
    """MiB of this process that are in memory."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def print_growth(kind: str, path: str, height: int, width: int) -> None:
    """MiB that a session and three runs of it add to this process."""
    x = picture(height, width)
    before = resident()
    if kind == "onnxruntime":
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session: Any = onnxruntime.InferenceSession(path, options)
    else:
        options = door.SessionOptions(intra_op_num_threads=1)
        options.add_session_config_entry("convkit.memory", kind)
        session = door.InferenceSession(path, options)
    for _ in range(3):
        session.run(None, {session.get_inputs()[0].name: x})
    print(resident() - before)


def growth(kind: str, path: Path, x: Any) -> float:
    """`print_growth` in a process of its own."""
    command = [sys.executable, __file__, "--growth", kind, str(path), str(x.shape[2]), str(x.shape[3])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]], left: int) -> str:
    rules = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rules, *rows))


def write_page(rows: list[tuple[str, ...]], memory: list[tuple[str, ...]], tune: str) -> None:
    """Put the tables between the markers of the page."""
    facts = machine.facts()
    about = (
        f"{facts['brand']} ({machine.machine_class()}), {facts['cpus']} CPUs, {time.strftime('%Y-%m-%d')}, "
        f"ONNX Runtime {onnxruntime.__version__}; tuned for {tune} a model and team."
    )
    made = "\n\n".join([about, markdown(HEAD, rows, 2), markdown(MEMORY_HEAD, memory, 1)])
    text = PAGE.read_text(encoding="utf-8")
    between = re.compile(r"(<!-- begin models -->\n).*?(<!-- end models -->)", re.DOTALL)
    PAGE.write_text(between.sub(lambda found: f"{found[1]}{made}\n{found[2]}", text), encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="convkit.onnx beside ONNX Runtime.")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--threads", default="1,2", help="team sizes")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each")
    parser.add_argument("--tune", default="10s", help="time for each model and team; 0: none")
    parser.add_argument("--growth", nargs=4, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.growth:
        kind, path, height, width = words.growth
        print_growth(kind, path, int(height), int(width))
        return
    rows: list[tuple[str, ...]] = []
    memory: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, data, x in models([one for one in words.only.split(",") if one]):
            path = Path(folder) / "model.onnx"
            path.write_bytes(data)
            sizes = [growth(kind, path, x) for kind in ("onnxruntime", "fast", "low")]
            memory.append((name, f"{len(data) / 2**20:.0f}", *(f"{size:.0f}" for size in sizes)))
            for threads in map(int, words.threads.split(",")):
                # Neither this user's measurements nor those of the model before decide.
                os.environ["CONVKIT_DB"] = str(Path(folder) / f"{name}-{threads}.db")
                ck.reload()
                rows.append(_row(name, threads, measured(data, x, threads, words.rounds, words.tune)))
    print("\n".join(aligned([HEAD, *rows], left=(0, 1))))
    print("\n".join(aligned([MEMORY_HEAD, *memory], left=(0,))))
    if not words.only:
        write_page(rows, memory, words.tune)


def _row(name: str, threads: int, found: Figures) -> tuple[str, ...]:
    ours, theirs = found.plain
    tuned = (f"{1e3 * found.tuned[0]:.1f}", f"{found.tuned[1] / found.tuned[0]:.2f}") if found.tuned else ("-", "-")
    milliseconds = [f"{1e3 * seconds:.1f}" for seconds in (theirs, ours, *found.loads)]
    return (
        name, threads_text(threads), *milliseconds[:2], f"{theirs / ours:.2f}", *tuned, f"{AIMS[name]}",
        *milliseconds[2:], f"{found.difference:.0e}",
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Whole ONNX models: convkit.onnx beside ONNX Runtime, in turns in one process.

    python bench/onnx_models.py [--only vgg19,unet] [--threads 1,2] [--rounds 15]

Networks of `convkit.onnx.networks` with random weights, and the PP-OCRv4 models if rapidocr-onnxruntime is installed.
Times are medians; the ratio is ONNX Runtime's time, all its optimisations on, over convkit's. Loading does not count
imports. The difference is the largest from ONNX Runtime without optimisations, relative to its largest value or to 1 if
that is larger (probabilities). Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import convkit.onnx as door
from convkit.onnx.networks import NETWORKS, network
from convkit.tables import aligned, threads_text

# By how much convkit is to be faster.
AIMS = {
    "vgg19": 2.5, "resnet50": 1.25, "mobilenet_v2": 1.0, "squeezenet": 1.2, "unet": 2.0, "esrgan": 2.5, "yolov8n": 1.3,
    "pp-ocrv4 det": 1.3, "pp-ocrv4 rec": 1.1,
}  # fmt: skip
OCR = {
    "pp-ocrv4 det": ("ch_PP-OCRv4_det_infer.onnx", 640, 640),
    "pp-ocrv4 rec": ("ch_PP-OCRv4_rec_infer.onnx", 48, 320),
}


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


def measured(data: bytes, x: Any, threads: int, rounds: int) -> tuple[list[float], list[float], float]:
    """Times of loading and of a run, convkit's and ONNX Runtime's, and the difference."""
    options, plain = onnxruntime.SessionOptions(), onnxruntime.SessionOptions()
    options.intra_op_num_threads = plain.intra_op_num_threads = threads
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    theirs, their_load = loaded(lambda: onnxruntime.InferenceSession(data, options))
    ours, our_load = loaded(lambda: door.InferenceSession(data, door.SessionOptions(intra_op_num_threads=threads)))
    feed = {ours.get_inputs()[0].name: x}
    expected = onnxruntime.InferenceSession(data, plain).run(None, feed)
    worst = max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1))
        for a, b in zip(ours.run(None, feed), expected, strict=True)
    )
    times: list[list[float]] = [[], []]
    for _ in range(rounds + 2):
        for i, session in enumerate((ours, theirs)):
            begin = time.perf_counter()
            session.run(None, feed)
            times[i].append(time.perf_counter() - begin)
    return [our_load, their_load], [statistics.median(each[2:]) for each in times], worst


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="convkit.onnx beside ONNX Runtime.")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--threads", default="1,2", help="team sizes")
    parser.add_argument("--rounds", type=int, default=15, help="timed runs of each")
    words = parser.parse_args()
    rows = [("model", "threads", "convkit", "ONNX Runtime", "ratio", "aim", "load", "its load", "difference")]
    for name, data, x in models([one for one in words.only.split(",") if one]):
        for threads in map(int, words.threads.split(",")):
            loads, runs, worst = measured(data, x, threads, words.rounds)
            milliseconds = [f"{1e3 * seconds:.1f} ms" for seconds in (*runs, *loads)]
            ratio = f"{runs[1] / runs[0]:.2f}"
            rows.append(
                (
                    name,
                    threads_text(threads),
                    *milliseconds[:2],
                    ratio,
                    f"{AIMS[name]}",
                    *milliseconds[2:],
                    f"{worst:.0e}",
                )
            )
    print("\n".join(aligned(rows, left=(0, 1))))


if __name__ == "__main__":
    main()

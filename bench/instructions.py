"""Instruction counts of small calls, under callgrind, against a baseline.

Times of a few microseconds are noise on a shared machine; instruction counts are not. Valgrind knows no AVX-512, so the
counts are those of AVX2, and what they guard is the path of a call rather than the kernels.

    python bench/instructions.py            compare with instructions.json if it exists; exit status 1 for 2 % more
    python bench/instructions.py --update   write instructions.json
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BASELINE = Path(__file__).with_name("instructions.json")
ALLOWED = 1.02
CALLS = 200
SETUP = """
import numpy as np
import convkit as ck
x = np.ones({x}, np.float32); w = np.ones({w}, np.float32); b = np.ones({o}, np.float32)
out = ck.conv2d(x, w, b, num_threads=1, {keywords})
layer = ck.Conv2d(w, b, num_threads=1, {keywords})
layer(x)
"""
CASES = {
    f"{call} {name}": (shapes, keywords, statement)
    for call, statement in {"conv2d": "ck.conv2d(x, w, b, num_threads=1, {keywords})", "Conv2d": "layer(x)"}.items()
    for name, shapes, keywords in (
        ("1x1x1x1 1x1", ((1, 1, 1, 1), (1, 1, 1, 1)), "algorithm='direct'"),
        ("1x8x8x8 3x3", ((1, 8, 8, 8), (8, 8, 3, 3)), "padding=1, algorithm='direct'"),
        ("1x8x8x8 3x3 relu", ((1, 8, 8, 8), (8, 8, 3, 3)), "padding=1, activation='relu', algorithm='direct'"),
        ("1x8x8x8 3x3 NHWC", ((1, 8, 8, 8), (8, 8, 3, 3)), "padding=1, layout='NHWC', algorithm='direct'"),
        ("1x16x14x14 3x3 im2col", ((1, 16, 14, 14), (16, 16, 3, 3)), "padding=1, algorithm='im2col'"),
        ("1x32x7x7 1x1", ((1, 32, 7, 7), (32, 32, 1, 1)), "algorithm='pointwise'"),
    )
}


def instructions(program: str) -> int:
    """Instructions of a Python program."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", sys.executable, "-c", program]
        environment = {**os.environ, "CONVKIT_ISA": "avx2", "CONVKIT_DB": ":memory:", "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or not found:
            raise RuntimeError(done.stderr)
        return int(found[1])


def count(name: str) -> float:
    """Instructions of one call: the difference of two programs, one with many calls more."""
    (x, w), keywords, statement = CASES[name]
    setup = SETUP.format(x=x, w=w, o=w[0], keywords=keywords)
    loop = "for _ in range({}): " + statement.format(keywords=keywords)
    few, many = (instructions(setup + loop.format(calls)) for calls in (10, 10 + CALLS))
    return round((many - few) / CALLS, 1)


def main() -> int:
    """Count, compare, print."""
    if not shutil.which("valgrind"):
        print("valgrind is not installed", file=sys.stderr)
        return 2
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    found, worse = {}, 0
    for name in CASES:
        found[name] = count(name)
        ratio = found[name] / baseline[name] if name in baseline else 1.0
        worse += ratio > ALLOWED
        print(f"{name:36} {found[name]:10.0f} {ratio:8.3f}{'  more' if ratio > ALLOWED else ''}", flush=True)
    if "--update" in sys.argv[1:]:
        BASELINE.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

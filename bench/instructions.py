"""Instruction counts of small calls, under callgrind, against a baseline.

Times of a few microseconds are noise on a shared machine; instruction counts are not. Valgrind knows no AVX-512, so the
counts are those of AVX2, and what they guard is the path of a call rather than the kernels.

    python bench/instructions.py            compare with instructions.json; exit status 1 for 2% more
    python bench/instructions.py --update   write instructions.json

One process makes all calls. It asks for its parent's id before and after each case, and callgrind writes its counts
down whenever it sees that function: what the interpreter does before, which no two runs do alike, is in none of them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BASELINE = Path(__file__).with_name("instructions.json")
ALLOWED = 1.02
CALLS = 100
MARK = "getppid"
CASES = {
    f"{call} {name}": (shapes, keywords, call)
    for call in ("conv2d", "Conv2d")
    for name, shapes, keywords in (
        ("1x1x1x1 1x1", ((1, 1, 1, 1), (1, 1, 1, 1)), {"algorithm": "direct"}),
        ("1x8x8x8 3x3", ((1, 8, 8, 8), (8, 8, 3, 3)), {"padding": 1, "algorithm": "direct"}),
        (
            "1x8x8x8 3x3 relu",
            ((1, 8, 8, 8), (8, 8, 3, 3)),
            {"padding": 1, "activation": "relu", "algorithm": "direct"},
        ),
        (
            "1x8x8x8 3x3 NHWC",
            ((1, 8, 8, 8), (8, 8, 3, 3)),
            {"padding": 1, "layout": "NHWC", "algorithm": "direct"},
        ),
        ("1x16x14x14 3x3 im2col", ((1, 16, 14, 14), (16, 16, 3, 3)), {"padding": 1, "algorithm": "im2col"}),
        ("1x32x7x7 1x1", ((1, 32, 7, 7), (32, 32, 1, 1)), {"algorithm": "pointwise"}),
    )
}


def make_calls() -> None:
    """What runs under callgrind: every case, between two marks."""
    import gc

    import numpy as np

    import convkit as ck

    gc.disable()
    for (x_shape, w_shape), keywords, kind in CASES.values():
        x, w, bias = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32), np.ones(w_shape[0], np.float32)
        layer = ck.Conv2d(w, bias, num_threads=1, **keywords)

        def cold(x=x, w=w, bias=bias, keywords=keywords):  # type: ignore[no-untyped-def]
            return ck.conv2d(x, w, bias, num_threads=1, **keywords)

        call = layer if kind == "Conv2d" else cold
        for _ in range(10):
            call(x)
        os.getppid()
        for _ in range(CALLS):
            call(x)
        os.getppid()


def count() -> dict[str, float]:
    """Instructions of one call of each case."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "counts"
        done = subprocess.run(
            [
                "valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", f"--dump-before={MARK}",
                sys.executable, __file__, "--calls",
            ],
            env={**os.environ, "CONVKIT_ISA": "avx2", "CONVKIT_DB": ":memory:", "CONVKIT_MODE": "off",
                 "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        # The first dump is everything before the first mark; from there on every second one is a case.
        totals = []
        for number in range(2, 2 * len(CASES) + 1, 2):
            found = re.search(r"^(?:totals|summary): (\d+)", Path(f"{output}.{number}").read_text(), re.MULTILINE)
            if found is None:
                raise RuntimeError(f"callgrind wrote no total for mark {number}")
            totals.append(int(found[1]))
    return {name: round(total / CALLS, 1) for name, total in zip(CASES, totals, strict=True)}


def main() -> int:
    """Count, compare, print."""
    if "--calls" in sys.argv[1:]:
        make_calls()
        return 0
    if not shutil.which("valgrind"):
        print("valgrind is not installed", file=sys.stderr)
        return 2
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    here = f"Python {platform.python_version()}"
    if baseline and baseline["python"] != here:
        print(f"the baseline is of {baseline['python']}, this is {here}: small differences are the interpreter's")
    found, worse = count(), 0
    for name, instructions in found.items():
        ratio = instructions / baseline["instructions"].get(name, instructions) if baseline else 1.0
        worse += ratio > ALLOWED
        print(f"{name:32} {instructions:10.0f} {ratio:8.3f}{'  more' if ratio > ALLOWED else ''}")
    if "--update" in sys.argv[1:]:
        BASELINE.write_text(json.dumps({"python": here, "instructions": found}, indent=1) + "\n")
        return 0
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

"""Absurd sizes never end the process: the cases that did, random ones, and extreme shapes for every kernel.

Each call runs in a process of its own with little memory, so that a crash or a hang is a failed test.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convkit as ck
from convkit import _core
from convkit.problem import Problem

HERE = Path(__file__).parent
KERNELS = _core.kernels()

CALL = """
import resource
import numpy as np
import convkit as ck
from numpy import float32

def ones(*shape):
    return np.broadcast_to(float32(1), shape)

ck.conv2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), num_threads=8)
with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**31, held + 2**31))
try:
    result = {call}
except ValueError as error:
    print("ValueError:", error)
except MemoryError as error:
    print("MemoryError:", error)
else:
    print(result)
"""

M = 2**31 - 1
D = 2**29
TAKES_ALL = (
    r"padding \(\(536870912, 536870912\), \(536870912, 536870912\)\) the input has 1073741833 x 1073741833 pixels"
)


def child(*arguments: str, log: Path | None = None, **environment: str) -> str:
    """What a process prints; it must end by itself, and well."""
    variables = {**os.environ, "CONVKIT_DB": ":memory:", **environment}
    if log:
        variables["HOSTILE_LOG"] = str(log)
    done = subprocess.run(
        [sys.executable, *arguments], env=variables, capture_output=True, text=True, timeout=900, check=False, cwd=HERE
    )
    last = f", at {log.read_text(encoding='utf-8')}" if log and log.exists() else ""
    assert done.returncode == 0, f"ended with {done.returncode}{last}:\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("ck.conv2d(ones(1, 4, 8, 8), ones(4, 1, 3, 3), stride=2**30, groups=4).tolist()", r"\[\[\[\[9\.0\]\]"),
        (
            f"ck.conv2d(ones(1, 1, 1, 2), ones(1, 1, 2, 1), stride=(1, {M}), padding=(({M}, 0), ({M} - 1, 0)), "
            f"dilation=({M}, 1))",
            "ValueError: .*padding .*at most 2147483647 along an axis",
        ),
        (f"ck.conv2d(ones(1, 2, 9, 9), ones(3, 2, 3, 3), padding={D}, dilation={D}, stride={D}//3)", TAKES_ALL),
        (f"ck.conv2d(ones(1, 8, 9, 9), ones(8, 1, 3, 3), padding={D}, stride={D}, groups=8)", TAKES_ALL),
        (
            f"ck.grad.conv2d_input((1, 2, 9, 9), ones(3, 2, 3, 3), ones(1, 3, 1, 1), padding={D}, dilation={D}, "
            f"stride={D})",
            TAKES_ALL,
        ),
        (
            f"ck.grad.conv2d_weight(ones(1, 2, 9, 9), (3, 2, 3, 3), ones(1, 3, 1, 1), padding={D}, dilation={D}, "
            f"stride={D})",
            TAKES_ALL,
        ),
        ("ck.conv2d(ones(1, 4, 9, 9), ones(4, 1, 3, 3), padding=2**27, stride=2**27, groups=4)", "2..52 elements"),
        ("ck.conv2d(ones(1, 4, 9, 9), ones(4, 1, 3, 3), padding=2**23, stride=2**23, groups=4).sum()", "[0-9.]+$"),
        # Work in proportion to the square of a stride, or of a dilation, was a hang.
        ("ck.conv_transpose2d(ones(1, 1, 2, 1), ones(1, 1, 3, 1), stride=(2**20, 1)).sum()", "6.0"),
        ("int(ck.conv_transpose2d(ones(1, 1, 2, 1), ones(1, 1, 2**20, 1), stride=(2**20, 1)).sum())", "2097152"),
        (
            "int(ck.conv2d(ones(1, 4, 2**20, 1), ones(4, 1, 3, 3), dilation=(2**19, 1), padding=(2**19, 1), groups=4)"
            ".sum())",
            "8388608",
        ),
    ],
)
def test_calls_that_ended_the_process(call: str, answer: str) -> None:
    told = child("-c", CALL.replace("{call}", call))
    assert re.search(answer, told), told


def test_a_long_column_is_transposed_by_default() -> None:
    y = ck.conv_transpose2d(np.ones((1, 1, 2**18, 1), "f"), np.ones((1, 1, 16, 1), "f"), stride=(16, 1))
    np.testing.assert_array_equal(y, np.ones((1, 1, 2**22, 1), "f"))


def test_explain_shows_no_negative_number() -> None:
    told = child("-c", CALL.replace("{call}", "ck.explain(ones(1, 2, 9, 9), ones(3, 2, 3, 3), padding=2**23)"))
    assert "predicted" in told
    assert " -" not in told.replace(" - ", " ")


@pytest.mark.parametrize("isa", _core.usable_isas())
def test_random_calls(isa: str, tmp_path: Path) -> None:
    told = child("hostile.py", "100", log=tmp_path / "log", CONVKIT_ISA=isa)
    assert told.startswith("clean")


# One axis as long as it may be, the other short; many channels, many groups, many images; large filters, strides,
# dilations and pads.
LONG = 2**26
EXTREME = [
    {"h": LONG, "w": 1},
    {"h": 1, "w": LONG},
    {"h": LONG, "w": 1, "kh": 2, "stride_h": 2},
    {"h": LONG, "w": 1, "kh": 3, "stride_h": 16, "pad_top": 1},
    {"h": 1, "w": LONG, "kw": 4, "stride_w": 2, "pad_left": 1},
    {"h": LONG, "w": 1, "kh": LONG},
    {"h": 1, "w": LONG, "kw": LONG // 2},
    {"h": 1, "w": LONG, "kw": 3},
    {"h": 1, "w": LONG, "kw": 7},
    {"h": LONG, "w": 1, "kh": 3},
    {"h": LONG, "w": 1, "kh": 7},
    {"h": LONG, "w": 3, "kh": 3, "kw": 3, "dilation_h": LONG // 4, "pad_left": 1, "pad_right": 1},
    {"h": LONG, "w": 3, "kh": 3, "kw": 3, "stride_h": LONG // 2, "stride_w": 3},
    {"h": 3, "w": 3, "kh": 3, "kw": 3, "pad_top": LONG, "pad_left": 2},
    {"h": 2**13, "w": 2**13, "kh": 3, "kw": 3, "pad_top": 1, "pad_left": 1},
    {"h": 2**13, "w": 2**13, "kh": 5, "kw": 5, "pad_top": 2, "pad_left": 2},
    {"h": 2**13, "w": 2**13, "kh": 3, "kw": 3, "stride_h": 2, "stride_w": 2, "pad_top": 1, "pad_left": 1},
    {"h": 2**13, "w": 2**13, "kh": 4, "kw": 4, "stride_h": 2, "stride_w": 2, "pad_top": 1, "pad_left": 1},
    {"h": 3, "w": 3, "kh": 3, "kw": 3, "n": LONG},
    {"h": 2, "w": 2, "kh": 3, "kw": 3, "n": LONG, "pad_top": 1, "pad_bottom": 1, "pad_left": 1, "pad_right": 1},
    {"h": 4, "w": 4, "kh": 3, "kw": 3, "c": LONG, "o": 4},
    {"h": 4, "w": 4, "kh": 3, "kw": 3, "c": 4, "o": LONG},
    {"h": 6, "w": 6, "kh": 3, "kw": 3, "c": LONG, "o": LONG, "groups": LONG},
    {"h": 6, "w": 6, "kh": 3, "kw": 3, "c": LONG, "o": LONG, "groups": LONG // 2},
    {"h": 6, "w": 6, "kh": 5, "kw": 5, "stride_h": 2, "stride_w": 2, "c": LONG, "o": LONG, "groups": LONG // 4},
    {"h": 7, "w": 7, "kh": 1, "kw": 1, "c": 2**22, "o": 2**22},
]


@pytest.mark.parametrize("kernel", KERNELS, ids=[kernel["name"] for kernel in KERNELS])
def test_candidates_keep_to_their_schema(kernel: dict[str, Any]) -> None:
    sizes = {"n": 1, "c": 1, "o": 1, "kh": 1, "kw": 1}
    asked = 0
    for shape, layout, packed, threads in itertools.product(EXTREME, kernel["layouts"], (True, False), (1, 3, 96)):
        op, dtype = kernel["op"], kernel["dtypes"][0]
        problem = Problem(op=op, dtype=dtype, layout=layout, packed=packed, **{**sizes, **shape}).to_core()
        if not _core.applies(kernel["index"], problem):
            continue
        asked += 1
        for candidate in _core.candidates(kernel["index"], problem, threads):
            for value, (name, least, most) in zip(candidate, kernel["parameters"], strict=True):
                assert least <= value <= most, f"{name} of {problem}"
            assert all(value >= 0 for value in _core.cost(kernel["index"], problem, candidate, threads).values())
            assert _core.workspace_bytes(kernel["index"], problem, candidate, threads) >= 0
    assert asked, "no extreme shape suits it"

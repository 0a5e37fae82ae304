"""Coverage-guided fuzzing of what strangers hand in: arguments of the calls, export files, database files.

    pip install atheris
    python tests/fuzz.py arguments -max_total_time=1200
    python tests/fuzz.py imports -max_total_time=1200
    python tests/fuzz.py files -max_total_time=1200

Not a test of the suite. A finding is any exception that is not one of those the documentation names, or a crash.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

os.environ["CONVKIT_DB"] = ":memory:"
with atheris.instrument_imports(include=["convkit"]):
    import numpy as np

    import convkit as ck
    from convkit import _core
    from convkit.problem import Problem
    from convkit.tuner.evidence.database import Database
    from convkit.tuner.evidence.database_file import DatabaseError
    from convkit.tuner.evidence.records import to_line

DOCUMENTED = (TypeError, ValueError, MemoryError)
SCRATCH = Path(tempfile.mkdtemp(prefix="convkit-fuzz-"))
TEXTS = (
    "NCHW", "NHWC", "valid", "same", "same_upper", "same_lower", "relu", "relu6", "silu", "gelu", "clip", "leaky_relu",
    "direct", "winograd4", "im2col", "strict", "standard", "fast", "\ud800", "",
)  # fmt: skip
OPTIONS = (
    "bias", "stride", "padding", "dilation", "groups", "layout", "activation", "residual", "scale", "shift",
    "residual_after", "out", "algorithm", "num_threads", "accuracy", "workspace_limit", "output_padding", "strides",
)  # fmt: skip


class Index:
    """An object that is an integer, or says why not."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> int:
        if self.value is None:
            raise ValueError("no integer")
        return int(self.value)


def integer(data: Any) -> int:
    """Mostly small, sometimes at the edges of machine integers."""
    kind = data.ConsumeIntInRange(0, 9)
    if kind < 6:
        return int(data.ConsumeIntInRange(-1, 4))
    if kind < 8:
        return int(2 ** data.ConsumeIntInRange(0, 70) + data.ConsumeIntInRange(-1, 1))
    return int(data.ConsumeInt(8))


def array(data: Any) -> Any:
    """An array of some dtype, rank and order, or something like one."""
    rank = data.PickValueInList([4, 4, 4, 4, 3, 1, 0, 5])
    shape = tuple(data.ConsumeIntInRange(0, 5) for _ in range(rank))
    dtype = data.PickValueInList(["f4", "f4", "f4", "f8", "f2", ">f4", "i4", "c8", "O"])
    x = np.ones(shape, dtype)
    how = data.ConsumeIntInRange(0, 7)
    if how == 1:
        return np.asfortranarray(x)
    if how == 2 and rank:
        return np.broadcast_to(x[:1], (data.ConsumeIntInRange(0, 2**20), *shape[1:])) if shape[0] else x
    if how == 3 and rank:
        return x[::-1]
    if how == 4:
        return x.view(np.recarray) if dtype == "f4" and rank == 1 else x.view(np.memmap)
    if how == 5:
        return x.tolist()
    if how == 6:
        x.flags.writeable = False
    return x


def value(data: Any, depth: int = 0) -> Any:
    """Anything that somebody may pass for an option."""
    kind = data.ConsumeIntInRange(0, 11 if depth < 3 else 7)
    if kind < 4:
        return integer(data)
    if kind == 4:
        return data.PickValueInList(TEXTS)
    if kind == 5:
        return data.PickValueInList([None, True, 0.5, float("nan"), float("inf"), b"relu", object(), np.int64(2)])
    if kind == 6:
        return Index(data.PickValueInList([0, 1, 2, None, 2**40]))
    if kind == 7:
        return array(data)
    items = [value(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 4))]
    return tuple(items) if kind < 10 else items


def fitting(data: Any, function: Callable[..., Any]) -> list[Any]:
    """Arguments that go together, so that the options decide."""
    c, o, h, w = (data.ConsumeIntInRange(1, 5) for _ in range(4))
    x, f = np.ones((data.ConsumeIntInRange(0, 2), c, h + 2, w + 2), "f4"), np.ones((o, c, 3, 3), "f4")
    y = np.ones((len(x), o, h, w), "f4")
    orders: dict[Any, list[Any]] = {
        ck.conv_transpose2d: [y, f],
        ck.grad.conv2d_input: [x.shape, f, y],
        ck.grad.conv2d_weight: [x, f.shape, y],
        ck.Conv2d: [f],
        ck.ConvTranspose2d: [f],
        ck.transpose: [x, value(data)],
        ck.nchw_to_nhwc: [x],
        ck.TrainingConv2d: [],
        Problem: [],
    }
    return orders.get(function, [x, f])


def call(data: Any) -> None:
    """One call with arguments out of anything."""
    functions: list[Callable[..., Any]] = [
        ck.conv2d, ck.conv_transpose2d, ck.grad.conv2d_input, ck.grad.conv2d_weight, ck.Conv2d, ck.ConvTranspose2d,
        ck.transpose, ck.nchw_to_nhwc, ck.explain, ck.TrainingConv2d, Problem, _core.problem_of,
    ]  # fmt: skip
    function = data.PickValueInList(functions)
    if data.ConsumeIntInRange(0, 3):
        arguments = fitting(data, function)
    else:
        arguments = [array(data) if data.ConsumeBool() else value(data) for _ in range(data.ConsumeIntInRange(0, 4))]
    keywords = {
        data.PickValueInList(OPTIONS): array(data) if data.ConsumeIntInRange(0, 5) == 0 else value(data)
        for _ in range(data.ConsumeIntInRange(0, 5))
    }
    result = function(*arguments, **keywords)
    if isinstance(result, ck.Conv2d | ck.ConvTranspose2d):
        result(array(data))
    elif isinstance(result, ck.TrainingConv2d):
        y = result.forward(array(data), array(data))
        result.backward(y)


def arguments(data: bytes) -> None:
    with contextlib.suppress(DOCUMENTED):
        call(atheris.FuzzedDataProvider(data))


def imports(data: bytes) -> None:
    path = SCRATCH / "imports.sqlite"
    path.unlink(missing_ok=True)
    try:
        Database(path).import_lines(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="surrogateescape"))
        Database(path).export(io.StringIO())
    except DatabaseError:
        pass


def files(data: bytes) -> None:
    path = SCRATCH / "files.sqlite"
    path.write_bytes(data)
    database = Database(path)
    try:
        for record in (*database.sessions(), *database.trials()):
            to_line(record)
        database.verify()
    except DatabaseError:
        pass


def seeds(target: str) -> list[bytes]:
    """What mutation begins with: an export and a file of one small tuning."""
    from convkit.tuner import tune_problem

    path = SCRATCH / "seed.sqlite"
    os.environ["CONVKIT_DB"] = str(path)
    ck.reload()
    tune_problem(Problem(n=1, c=2, h=4, w=4, o=2, kh=3, kw=3), 1, budget=0.1)
    os.environ["CONVKIT_DB"] = ":memory:"
    ck.reload()
    text = io.StringIO()
    Database(path).export(text, contended=True)
    random = np.random.default_rng(0)  # long enough for a call with several options
    return {
        "arguments": [random.bytes(300) for _ in range(200)],
        "imports": [text.getvalue().encode()],
        "files": [path.read_bytes()],
    }[target]


def main() -> None:
    """Run a target; what follows its name goes to libFuzzer."""
    targets = {"arguments": arguments, "imports": imports, "files": files}
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        sys.exit(f"usage: python tests/fuzz.py {'|'.join(targets)} [libFuzzer options]")
    target = sys.argv.pop(1)
    logging.disable(logging.CRITICAL)
    corpus = SCRATCH / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus), "-max_len=100000", "-timeout=60"], targets[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""What ran, and for how long: one record for each call inside a ``with convkit.profile()`` block."""

from __future__ import annotations

import contextlib
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from convkit import _core
from convkit.problem import Problem
from convkit.tables import aligned

__all__ = ["Record", "profile"]

_problem = lru_cache(4096)(Problem.from_core)


@dataclass(frozen=True, slots=True)
class Record:
    """One call.

    Attributes
    ----------
    kernel : str
        Full name of the kernel that ran.
    start, seconds : float
        Begin, on the clock of `time.perf_counter`, and duration: bringing operands into place, the kernel, and nothing
        of Python.
    thread : int
        The Python thread that called, as `threading.get_ident` names it.
    label : str
        Of the innermost `profile.label` block; empty outside.
    """

    kernel: str
    parameters: tuple[int, ...]
    problem: Problem
    threads: int
    thread: int
    start: float
    seconds: float
    label: str = ""


class profile:  # noqa: N801 - used as ``with convkit.profile()``
    """Context manager that records every call of the process while it is open.

    Attributes
    ----------
    records : list of Record
        Filled when the block ends, in the order of the calls' ends.
    seconds : float
        Elapsed time of the block.
    dropped : int
        Calls beyond a million, which are not kept.

    Examples
    --------
    >>> import numpy as np
    >>> import convkit as ck
    >>> x, w = np.ones((1, 4, 9, 9), np.float32), np.ones((8, 4, 3, 3), np.float32)
    >>> with ck.profile() as p:
    ...     with p.label("stem"):
    ...         y = ck.conv2d(x, w)
    >>> [(record.label, record.problem.o) for record in p.records]
    [('stem', 8)]
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.seconds: float = 0.0
        self.dropped: int = 0
        self._labels: list[tuple[int, int, str]] = []
        self._first: int | None = None
        self._begin = 0.0

    def __enter__(self) -> profile:
        if self._first is not None:
            raise RuntimeError("this profile is open already")
        self._labels.clear()
        self._first = _core.open_profile()
        self._begin = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._first is not None
        self.seconds = time.perf_counter() - self._begin
        calls, self.dropped = _core.close_profile(self._first)
        labels = [""] * len(calls)
        for first, last, text in self._labels:
            labels[first - self._first : last - self._first] = [text] * (last - first)
        self.records = [
            Record(kernel, parameters, _problem(problem), threads, thread, start, seconds, label)
            for (kernel, problem, parameters, threads, thread, start, seconds), label in zip(calls, labels, strict=True)
        ]
        self._first = None

    @contextlib.contextmanager
    def label(self, text: str) -> Iterator[None]:
        """Name the calls of a block, for instance after a layer. Labels count calls, so use them from one thread.

        Parameters
        ----------
        text : str
            Goes into the records.

        Yields
        ------
        None
            The block runs.
        """
        place = len(self._labels)
        first = _core.profile_position()
        try:
            yield
        finally:
            # Inner blocks end first but must win: they stand behind the outer one.
            self._labels.insert(place, (first, _core.profile_position(), text))

    def to_csv(self, path: Path | str) -> None:
        """Write a line for each call: label, problem, kernel, parameters, threads, thread, start and duration.

        Parameters
        ----------
        path : path
            The file; it is replaced.
        """
        origin = self._origin()
        with Path(path).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(
                ("label", "op", "problem", "kernel", "parameters", "threads", "thread", "start_s", "seconds", "gflops")
            )
            for r in self.records:
                parameters = " ".join(map(str, r.parameters))
                rate = r.problem.flops / max(r.seconds, 1e-9) / 1e9
                times = f"{r.start - origin:.9f}", f"{r.seconds:.9f}", f"{rate:.3f}"
                writer.writerow((r.label, r.problem.op, r.problem, r.kernel, parameters, r.threads, r.thread, *times))

    def to_chrome_trace(self, path: Path | str) -> None:
        """Write a trace for chrome://tracing or Perfetto, with a row for each calling thread.

        Parameters
        ----------
        path : path
            The file; it is replaced.
        """
        origin = self._origin()
        events = [
            {
                "name": r.label or r.kernel,
                "cat": r.problem.op,
                "ph": "X",
                "ts": 1e6 * (r.start - origin),
                "dur": 1e6 * r.seconds,
                "pid": 0,
                "tid": r.thread,
                "args": {
                    "problem": str(r.problem),
                    "kernel": r.kernel,
                    "threads": r.threads,
                    "gflops": round(r.problem.flops / max(r.seconds, 1e-9) / 1e9, 3),
                },
            }
            for r in self.records
        ]
        trace = {"traceEvents": events, "displayTimeUnit": "ms"}
        Path(path).write_text(json.dumps(trace), encoding="utf-8")

    def table(self) -> str:
        """Group the calls by problem, kernel and label: number, time, share of the block, speed.

        Returns
        -------
        str
            A table, the longest first.
        """
        groups: dict[tuple[str, Problem, str, int], list[float]] = {}
        for r in self.records:
            groups.setdefault((r.label, r.problem, r.kernel, r.threads), []).append(r.seconds)
        rows = [("calls", "ms", "share", "mean us", "GFLOP/s", "threads", "kernel", "label", "problem")]
        for (label, problem, kernel, threads), times in sorted(groups.items(), key=lambda item: -sum(item[1])):
            total = sum(times)
            rows.append(
                (
                    str(len(times)),
                    f"{1e3 * total:.3f}",
                    f"{100 * total / self.seconds:.1f}%" if self.seconds else "-",
                    f"{1e6 * total / len(times):.2f}",
                    f"{problem.flops * len(times) / max(total, 1e-9) / 1e9:.1f}",
                    str(threads),
                    kernel,
                    label,
                    str(problem),
                )
            )
        measured = sum(r.seconds for r in self.records)
        share = f" ({100 * measured / self.seconds:.1f}%)" if self.seconds else ""
        lines = [
            f"{len(self.records)} calls, {1e3 * measured:.3f} of {1e3 * self.seconds:.3f} ms{share}",
            *aligned(rows, left=(6, 7, 8)),
        ]
        if self.dropped:
            lines.append(f"{self.dropped} calls were not kept")
        return "\n".join(lines)

    def __repr__(self) -> str:
        state = "open" if self._first is not None else f"{len(self.records)} calls"
        return f"<convkit.profile: {state}>"

    def _origin(self) -> float:
        return min((r.start for r in self.records), default=0.0)

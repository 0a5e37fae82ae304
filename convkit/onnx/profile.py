"""What each node of a run did, as a table, CSV or Chrome trace."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from convkit.onnx.plan import Run
from convkit.profiling import Record
from convkit.tables import aligned

__all__ = ["NodeTime", "Profile"]


@dataclass(frozen=True)
class NodeTime:
    """One node of a run.

    Attributes
    ----------
    name, op : str
        The node's name in the file, of the last one where several became one; and its operator.
    kernel : str
        Of convkit, if the node called one; empty for others.
    shape : tuple of int
        Of its first output.
    start, seconds : float
        On the clock of `time.perf_counter`, and duration.
    """

    name: str
    op: str
    kernel: str
    shape: tuple[int, ...]
    start: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """All nodes of one run, in order.

    Attributes
    ----------
    nodes : tuple of NodeTime
    thread : int
        Who ran it.
    """

    nodes: tuple[NodeTime, ...]
    thread: int

    @classmethod
    def of(cls, run: Run, calls: Iterable[Record] = (), kernels: Mapping[str, str] | None = None) -> Profile:
        """From a run, the calls into convkit meanwhile, and kernels that are known otherwise.

        Parameters
        ----------
        run : Run
            Times of the steps.
        calls : iterable of Record
            As `convkit.profile` has them.
        kernels : mapping, optional
            By the nodes' names.

        Returns
        -------
        Profile
            In the order of the run.
        """
        mine = sorted((call for call in calls if call.thread == run.thread), key=lambda call: call.start)
        nodes = []
        for step, start, seconds, shape in zip(run.plan.steps, run.starts, run.times, run.shapes, strict=True):
            within = [call.kernel for call in mine if start <= call.start < start + seconds]
            kernel = within[0] if within else (kernels or {}).get(step.name, "")
            nodes.append(NodeTime(step.name, step.op, kernel, tuple(shape), start, seconds))
        return cls(tuple(nodes), run.thread)

    @property
    def seconds(self) -> float:
        """All nodes together."""
        return sum(node.seconds for node in self.nodes)

    def table(self) -> str:
        """Nodes in the order of the run.

        Returns
        -------
        str
            Time, share, operator, shape, kernel and name, and the sum.
        """
        total = self.seconds or 1.0
        rows = [("ms", "share", "op", "shape", "kernel", "node")]
        for node in self.nodes:
            shape = "x".join(map(str, node.shape))
            share = f"{100 * node.seconds / total:.1f}%"
            rows.append((f"{1e3 * node.seconds:.3f}", share, node.op, shape, node.kernel, node.name))
        return "\n".join([*aligned(rows, left=(2, 3, 4, 5)), f"{len(self.nodes)} nodes, {1e3 * self.seconds:.3f} ms"])

    def to_csv(self, path: Path | str) -> None:
        """Write a line for each node.

        Parameters
        ----------
        path : path
            The file; it is replaced.
        """
        with Path(path).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("node", "op", "shape", "kernel", "start_s", "seconds"))
            for node in self.nodes:
                times = f"{node.start - self.nodes[0].start:.9f}", f"{node.seconds:.9f}"
                writer.writerow((node.name, node.op, "x".join(map(str, node.shape)), node.kernel, *times))

    def to_chrome_trace(self, path: Path | str) -> None:
        """Write a trace for chrome://tracing or Perfetto.

        Parameters
        ----------
        path : path
            The file; it is replaced.
        """
        origin = self.nodes[0].start if self.nodes else 0.0
        events = [
            {
                "name": node.name,
                "cat": node.op,
                "ph": "X",
                "ts": 1e6 * (node.start - origin),
                "dur": 1e6 * node.seconds,
                "pid": 0,
                "tid": self.thread,
                "args": {"op": node.op, "shape": list(node.shape), "kernel": node.kernel},
            }
            for node in self.nodes
        ]
        Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), encoding="utf-8")

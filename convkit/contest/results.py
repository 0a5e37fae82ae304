"""The outcome of a benchmark: rows with everything needed to read them later, as JSON, CSV and back."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from convkit.contest.contestants import Contestant
from convkit.contest.layers import TimedLayer
from convkit.contest.turns import Timing
from convkit.problem import Problem
from convkit.report.limits import limit
from convkit.tuner.choosing.selector import selector
from convkit.tuner.inventory import Candidate

__all__ = ["Report", "Row"]

_ISA = {"avx512": "AVX-512", "avx2": "AVX2", "portable": "no vector extension"}
_PACKAGES = ("convkit", "numpy", "torch", "onnxruntime", "openvino", "ncnn")


@dataclass(frozen=True)
class Row:
    """One contestant on one layer with one team size.

    Attributes
    ----------
    count : int
        How often the network has this layer.
    median, best : float
        Seconds of one call.
    error, rms_error : float
        Largest error over the largest value; RMS error over the RMS.
    limit : float
        Seconds that the kernel could reach at most; 0 if that is not known.
    op : str
        "forward", "input" or "weight"; "training" for the three of them in one call.
    busy : str
        What showed that the machine was busy with something else meanwhile; empty if nothing did.
    """

    network: str
    layer: str
    count: int
    problem: str
    threads: int
    contestant: str
    kernel: str
    parameters: tuple[int, ...]
    median: float
    best: float
    samples: int
    cpu_per_wall: float
    error: float
    rms_error: float
    limit: float
    op: str = "forward"
    busy: str = ""

    @property
    def flops(self) -> int:
        """Operations of one call, counted as direct summation does."""
        return Problem.parse(self.problem).flops * (3 if self.op == "training" else 1)

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.flops / self.median

    @property
    def doubtful(self) -> bool:
        """True if convkit's samples were interrupted, or got less CPU time than its threads could use.

        The latter does not count for short calls: they may be too small for the whole team.
        """
        starved = self.median > 1e-3 and self.cpu_per_wall < 0.75 * self.threads
        return self.contestant.startswith("convkit") and (bool(self.busy) or starved)


@dataclass
class Report:
    """Rows, and the machine that they were measured on.

    Attributes
    ----------
    fma_peak : dict
        Measured multiply-adds a second, by team size.
    bandwidth : dict
        Bytes a second from memory, by team size; `machine["bandwidth"]` says whether they were measured.
    """

    rows: list[Row] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    fma_peak: dict[int, float] = field(default_factory=dict)
    bandwidth: dict[int, float] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Report:
        """An empty report of this machine."""
        from convkit import _core
        from convkit.tuner.choosing.selector import selector
        from convkit.tuner.machine import machine_class

        versions = {}
        for package in _PACKAGES:
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                continue
        kind = machine_class()
        machine = {
            "cpu": f"{str(_core.cpu()['brand']).strip()}, family {kind.family} model {kind.model}, {_ISA[kind.isa]}",
            "class": str(kind),
            "cpus": _core.available_cpus(),
            "python": platform.python_version(),
            "compiler": _core.build_info()["compiler"],
            "versions": versions,
            "bandwidth": selector().constants.source,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return cls(machine=machine)

    def measure_limits(self, team: int) -> None:
        """Add what a team of this size can reach on this machine; the best of all times that it is called counts."""
        from convkit import _core
        from convkit.tuner.choosing.selector import selector

        constants = selector().constants
        # Threads beyond the CPUs reach nothing more, whatever each of them thinks it did in its share of the time.
        before = self.fma_peak.get(team, 0.0)
        now = _core.fma_peak("float32", min(team, _core.available_cpus()))
        self.fma_peak[team] = max(before, now)
        if now > before:
            # What was disturbed by others is no limit: those of earlier rows shrink with it.
            for place, row in enumerate(self.rows):
                if row.threads == team:
                    self.rows[place] = replace(row, limit=row.limit * before / now)
        self.bandwidth[team] = min(team * constants.dram, constants.dram_total)

    def peak(self, team: int, dtype: str = "float32") -> float:
        """Operations a second that the FMA units of a team reach at most, two for each multiply-add."""
        return 2 * self.fma_peak[team] / (1 if dtype == "float32" else 2)

    def add(self, layer: TimedLayer, team: int, contestant: Contestant, timing: Timing) -> Row:
        """Add what was measured of a contestant on a layer; the limits of the team must have been measured."""
        row = Row(
            layer.network,
            layer.name,
            layer.count,
            str(layer.problem),
            team,
            contestant.name,
            contestant.kernel,
            contestant.parameters,
            timing.median,
            timing.best,
            timing.samples,
            timing.cpu_per_wall,
            timing.error,
            timing.rms_error,
            sum(_limit(*part, team, self.peak(team, layer.problem.dtype) / 2) for part in contestant.parts),
            layer.call,
            timing.busy,
        )
        self.rows.append(row)
        return row

    def networks(self) -> tuple[str, ...]:
        """Networks in order of appearance."""
        return tuple(dict.fromkeys(row.network for row in self.rows))

    def contestants(self) -> tuple[str, ...]:
        """Contestants in order of appearance."""
        return tuple(dict.fromkeys(row.contestant for row in self.rows))

    def teams(self) -> tuple[int, ...]:
        """Team sizes, smallest first."""
        return tuple(sorted({row.threads for row in self.rows}))

    def select(self, network: str | None = None, threads: int | None = None) -> list[Row]:
        """Rows of a network and a team size."""
        return [row for row in self.rows if network in (None, row.network) and threads in (None, row.threads)]

    def total(self, rows: Iterable[Row], contestant: str) -> float | None:
        """Seconds for all layers of a network, each as often as it occurs; None if a layer is missing."""
        rows = list(rows)
        layers = {row.layer for row in rows}
        own = [row for row in rows if row.contestant == contestant]
        if {row.layer for row in own} != layers:
            return None
        return sum(row.median * row.count for row in own)

    def dicts(self) -> list[dict[str, Any]]:
        """Rows by their names, for JSON."""
        return [asdict(row) for row in self.rows]

    def save(self, path: Path) -> None:
        """Write JSON: names of columns, and a line for each row."""
        rows = [json.dumps([_short(value) for value in asdict(row).values()]) for row in self.rows]
        rest = {name: getattr(self, name) for name in ("machine", "fma_peak", "bandwidth")}
        rest["columns"] = [item.name for item in fields(Row)]
        text = json.dumps(rest, indent=1).removesuffix("\n}")
        path.write_text(text + ',\n "rows": [\n' + ",\n".join(rows) + "\n]}\n")

    def merge(self, other: Report) -> None:
        """Take the rows of another report of the same class of machine; its limits count if this one has none.

        Raises
        ------
        ValueError
            If the machines are of different classes.
        """
        if self.machine["class"] != other.machine["class"]:
            raise ValueError(f"{other.machine['class']} is not {self.machine['class']}")
        self.rows += other.rows
        self.fma_peak = {**other.fma_peak, **self.fma_peak}
        self.bandwidth = {**other.bandwidth, **self.bandwidth}

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote."""
        kept = json.loads(path.read_text())
        rows = [Row(**dict(zip(kept["columns"], row, strict=True))) for row in kept["rows"]]
        rows = [replace(row, parameters=tuple(row.parameters)) for row in rows]
        peak, bandwidth = ({int(team): rate for team, rate in kept[name].items()} for name in ("fma_peak", "bandwidth"))
        return cls(rows, kept["machine"], peak, bandwidth)

    def save_csv(self, path: Path) -> None:
        """Write a table with a line for each row."""
        names = [item.name for item in fields(Row)]
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow([*names, "gflops"])
            for row in self.rows:
                values = asdict(row)
                values["parameters"] = " ".join(map(str, row.parameters))
                writer.writerow([*(values[name] for name in names), f"{row.rate / 1e9:.3f}"])


def _limit(problem: Problem, kernel: str, parameters: tuple[int, ...], team: int, fma_peak: float) -> float:
    inventory = selector().inventory
    return limit(inventory.on(problem, team), Candidate(inventory.by_name[kernel], parameters), fma_peak)


def _short(value: Any) -> Any:
    """Five digits are more than a measurement has."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def by_layer(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Rows of each layer, in order of appearance."""
    for layer in dict.fromkeys(row.layer for row in rows):
        yield layer, [row for row in rows if row.layer == layer]

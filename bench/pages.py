"""Rewrites the tables and pictures of the pages of results in docs/ from bench/results/.

    python bench/pages.py [--machine FOLDER]

What is made stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``, for one machine after the other; the text
around it is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from convkit.contest.results import Report, Row, by_layer
from convkit.pictures import speed
from convkit.pictures.style import THEIRS
from convkit.tables import threads_text

RESULTS = Path(__file__).with_name("results")
DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "results"
PAGES = ("performance.md", "layers.md", "selection.md", "commands.md", "accuracy.md")
NOISE = 1.03
TOO_WRONG = 1e-3


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first columns are text; nothing where it has no rows."""
    rules = ["---" if place < left else "---:" for place in range(len(head))]
    lines = ["| " + " | ".join(row) + " |" for row in (head, rules, *rows)]
    return "\n".join(lines) if len(lines) > 2 else ""


def milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


class Results:
    """Everything that was measured on one machine; reports of what was not are empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.forward = self._merged("forward-")
        self.best_of = self._merged("bestof-forward-")
        self.training = self._merged("bestof-training-")
        self.kernels = self._merged("kernels-")

    @property
    def machine(self) -> str:
        """The machine's name."""
        return str(self.forward.machine["cpu"])

    def _merged(self, begin: str) -> Report:
        paths = sorted(self.folder.glob(f"{begin}*.json"))
        if not paths:
            return Report(machine={"commands": []})
        whole = Report.load(paths[0])
        whole.machine["commands"] = [whole.machine["command"]]
        for path in paths[1:]:
            part = Report.load(path)
            whole.merge(part)
            whole.machine["commands"].append(part.machine["command"])
            whole.machine["when"] = max(whole.machine["when"], part.machine["when"])
        order = ("VGG-19 N", "VGG-19 t", "ResNet", "MobileNet", "VGG-19 C")
        whole.rows.sort(key=lambda row: next(i for i, name in enumerate(order) if row.network.startswith(name)))
        return whole

    def read(self, name: str) -> Any:
        """What a file holds, or None without one."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None


def machines(part: str = "") -> list[Results]:
    """The results of every machine that was measured beside its peers and whose folder's name contains this."""
    folders = sorted(path for path in RESULTS.iterdir() if part in path.name)
    return [Results(folder) for folder in folders if any(folder.glob("forward-*.json"))]


Maker = Callable[[Results], str]


def only(report: Report, network: str, threads: int | None = None) -> Report:
    """The rows of networks whose title matches."""
    rows = [row for row in report.select(threads=threads) if re.search(network, row.network)]
    return replace(report, rows=rows)


def peers_of(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.contestant.startswith("convkit") and row.error < TOO_WRONG]


def machine_text(results: Results) -> str:
    machine, forward = results.forward.machine, results.forward
    peaks = ", ".join(f"{2 * rate / 1e9:.0f} GFLOP/s with {threads_text(t)}" for t, rate in forward.fma_peak.items())
    packages = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if name != "convkit")
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs of a virtual machine; FMA peak, measured: {peaks}. "
        f"{machine['compiler']}, Python {machine['python']}, {packages}. Measured on {machine['when'][:10]}."
    )


def losses(results: Results) -> str:
    """Layers where a peer was faster, and layers where one algorithm was faster than the selection, the worst first."""
    beaten, missed, cases, lines = [], [], 0, 0
    for report in (results.forward, results.training, results.best_of):
        for network in report.networks():
            for team in report.teams():
                for layer, rows in by_layer(report.select(network, team)):
                    own, *others = (row for row in rows if row.contestant.startswith("convkit"))
                    cells = (network, layer, str(team), _short_kernels(own.kernel), milliseconds(own.median))
                    same = own.kernel, own.parameters
                    others = [row for row in others if (row.kernel, row.parameters) != same]
                    for rivals, found in ((peers_of(rows), beaten), (others, missed)):
                        best = min(rivals, key=lambda row: row.median, default=own)
                        if own.median > NOISE * best.median:
                            name = best.contestant.removeprefix("convkit ").split(" N")[0]
                            ratio = own.median / best.median
                            found.append((ratio, (*cells, name, milliseconds(best.median), f"{ratio:.2f}")))
                    cases += bool(peers_of(rows))
                    lines += report is not results.forward
    head = ("network", "layer", "threads", "kernel", "convkit, ms", "faster", "ms", "ratio")
    limit = f"more than {100 * (NOISE - 1):.0f}% faster"
    parts = []
    for found, count, text in (
        (beaten, cases, f"cases (a layer, a layout, a number of threads) a peer was {limit}"),
        (missed, lines, f"cases one fixed algorithm was {limit} than what had been selected"),
    ):
        rows = [cells for _, cells in sorted(found, reverse=True)]
        if count:
            text = f"In {len(rows)} of {count} {text}"
            parts.append(f"{text}:\n\n{table(head, rows, 4)}" if rows else f"{text}.")
    return "\n\n".join(parts)


def totals(results: Results) -> str:
    """Milliseconds of whole networks."""
    report = results.forward
    kinds = ("convkit", *THEIRS)
    rows = []
    for network in report.networks():
        for team in report.teams():
            own = report.select(network, team)
            times = {}
            for name in {row.contestant for row in own}:
                total = report.total(own, name)
                if total is not None:
                    times[next(kind for kind in kinds if name.startswith(kind))] = total
            if not times:
                continue
            best = min(times.values())
            cells = []
            for kind in kinds[:-1]:
                text = f"{milliseconds(times[kind])} ({times[kind] / times['convkit']:.2f})" if kind in times else "-"
                cells.append(f"**{text}**" if times.get(kind) == best else text)
            if cells[0] != "-":
                rows.append((network, str(team), *cells))
    return table(("convolutions of", "threads", *kinds[:-1]), rows)


def layers(report: Report, network: str) -> str:
    """Milliseconds, kernel and shares of the limits for each layer, with the best peer."""
    rows = []
    for team in report.teams():
        for layer, own in by_layer(report.select(network, team)):
            ours = next(row for row in own if row.contestant.startswith("convkit"))
            best = min(peers_of(own), key=lambda row: row.median, default=None)
            name, *theirs = ("-",) * 4
            if best is not None:
                name, ratio = best.contestant, best.median / ours.median
                theirs = [milliseconds(best.median), f"{best.cpu_per_wall:.1f}", f"{ratio:.2f}"]
            peak = 2 * report.fma_peak[team]
            rows.append(
                (
                    f"{layer} x{ours.count}", f"`{ours.kernel.rsplit('__')[0]}`", name, str(team),
                    milliseconds(ours.median), f"{ours.rate / 1e9:.0f}", f"{100 * ours.rate / peak:.0f}",
                    f"{100 * ours.limit / ours.median:.0f}", f"{ours.error:.0e}", f"{ours.cpu_per_wall:.1f}",
                    *theirs,
                )
            )  # fmt: skip
    head = ("layer", "kernel", "best peer", "threads", "ms", "GFLOP/s", "% of peak", "% of limit", "error", "CPUs",
            "peer, ms", "its CPUs", "peer / convkit")  # fmt: skip
    return table(head, rows, 3)


def best_of(report: Report) -> str:
    """Every algorithm for every layer, and what each static choice costs over a network."""
    parts = []
    for network in report.networks():
        for team in report.teams():
            own = report.select(network, team)
            if not own:
                continue
            names = list(dict.fromkeys(row.contestant for row in own if row.contestant.startswith("convkit")))
            peers = list(dict.fromkeys(row.contestant for row in own if not row.contestant.startswith("convkit")))
            sums = dict.fromkeys(names + peers, 0.0)
            lines = []
            for layer, rows in by_layer(own):
                times = {row.contestant: row.median for row in rows}
                fastest = min(times[name] for name in names if name in times)
                cells = []
                for name, known in sums.items():
                    sums[name] = known + rows[0].count * times.get(name, times[names[0]])
                    text = milliseconds(times[name]) if name in times else "-"
                    cells.append(f"**{text}**" if times.get(name) == fastest else text)
                kernel = next(row.kernel for row in rows if row.contestant == names[0])
                lines.append((f"{layer} x{rows[0].count}", _short_kernels(kernel), *cells))
            lines.append(("all layers, ms", "", *(milliseconds(total) for total in sums.values())))
            lines.append(("over the selection", "", *(f"{total / sums[names[0]]:.2f}" for total in sums.values())))
            heads = ["selected", *(name.split()[1] for name in names[1:]), *(name.split()[0] for name in peers)]
            parts.append(f"**{network}, {threads_text(team)}**, ms\n\n" + table(("layer", "chosen", *heads), lines, 2))
    return "\n\n".join(parts)


def _short_kernels(names: str) -> str:
    parts = [
        re.sub(r"_(input|weight)_grad", "", name.removeprefix("f32_").rsplit("__")[0]) for name in names.split(" + ")
    ]
    return " + ".join(parts)


def scaling(results: Results) -> str:
    """Speed-up and efficiency of whole networks."""
    report = results.forward
    least = report.teams()[0]
    rows = []
    for network in report.networks():
        for team in report.teams()[1:]:
            cells = []
            for kind in ("convkit", *list(THEIRS)[:-1]):
                times = [
                    next((t for name in report.contestants() if name.startswith(kind)
                          and (t := report.total(report.select(network, size), name)) is not None), None)
                    for size in (least, team)
                ]  # fmt: skip
                gain = times[0] / times[1] if times[0] and times[1] else None
                cells.append(f"{gain:.2f} ({100 * gain * least / team:.0f}%)" if gain else "-")
            if cells[0] != "-":
                rows.append((network, str(team), *cells))
    return table(("convolutions of", "threads", "convkit", *list(THEIRS)[:-1]), rows)


def overhead(results: Results) -> str:
    """What a profile and the suite cost."""
    found = results.read("overhead")
    if found is None:
        return ""
    added, closing = (1e6 * found["profile"][name] for name in ("added", "closing"))
    shares = "; ".join(
        f"{1e3 * mean:.2f} ms with {threads_text(int(threads))}, of which a record is "
        f"{100 * (added + closing) / (1e6 * mean):.3f}%"
        for threads, mean in found["profile"]["mean_call"].items()
    )
    rows = [
        (
            one["problem"],
            f"{1e6 * one['bare_seconds']:.1f}",
            f"{1e6 * one['seconds']:.1f}",
            f"{100 * one['overhead']:+.2f}%",
        )
        for one in found["suite"]
    ]
    return (
        f"A record adds {added:.2f} µs to its call and {closing:.2f} µs when the block ends. The mean call of VGG-19's "
        f"convolutions on 64 CIFAR-10 images takes {shares}.\n\n"
        + table(("convolution", "C++ loop, µs", "pytest-benchmark, µs", "difference"), rows)
    )


def commands(results: Results) -> str:
    """The commands behind the tables."""
    lines: list[str] = []
    for report in (results.forward, results.best_of, results.training, results.kernels):
        lines += report.machine["commands"]
    return "```\n" + "\n".join(lines) + "\n```"


def accuracy(results: Results) -> str:
    """The table of errors."""
    found = results.read("accuracy")
    if found is None:
        return ""
    head, _, *rows = found
    return table(head, [[row[0].replace("__avx512", ""), *row[1:]] for row in rows], 2)


def pictures(results: Results) -> dict[str, tuple[str, Callable[[], Figure]]]:
    """Every picture that there are results for, by file name: what it shows, and how it is drawn."""
    forward, kernels = results.forward, results.kernels
    least, most = forward.teams()[0], forward.teams()[-1]
    planar = only(forward, "NCHW")
    found: dict[str, tuple[str, Callable[[], Figure]]] = {}
    for team in (least, most):
        text = f"Time of whole networks with {threads_text(team)}"
        found[f"totals-{team}"] = text, partial(speed.totals, only(forward, "", team))
    if len(planar.teams()) > 1:
        found["scaling"] = "Speed-up by threads", partial(speed.thread_scaling, planar)
    if planar.select(threads=least):
        found["roofline"] = "Roofline", partial(speed.roofline, planar, least)
    if kernels.rows:
        network, team = kernels.networks()[0], kernels.teams()[0]
        text = f"Error against speed of {network.split()[0]}'s layers"
        found["error"] = text, partial(speed.error_and_speed, kernels, network, team)
    for mark, network in (("vgg19", "VGG-19 NCHW"), ("resnet50", "ResNet-50 NCHW"), ("mobilenet", "MobileNet v2 NHWC")):
        if forward.select(network, least):
            text = f"Speed of {network.rpartition(' ')[0]}'s layers"
            found[f"layers-{mark}"] = text, partial(speed.layer_bars, forward, network, least)
    for mark, network in (("vgg19", "VGG-19"), ("resnet50", "ResNet-50")):
        own = only(forward, f"^{network} N")
        if own.rows:
            found[f"kernels-{mark}"] = f"Kernels chosen for {network}", partial(speed.kernel_map, own)
    return found


def picture(begin: str) -> Maker:
    """Shows the pictures whose names begin like this."""

    def show(results: Results) -> str:
        where = f"{PICTURES.name}/{results.folder.name}"
        shown = ((name, text) for name, (text, _) in pictures(results).items() if name.startswith(begin))
        return "\n\n".join(f"![{text}]({where}/{name}.png)" for name, text in shown)

    return show


# What each block holds for a machine.
BLOCKS: dict[str, tuple[Maker, ...]] = {
    "machine": (machine_text,),
    "losses": (losses,),
    "totals": (totals, picture("totals")),
    "layers-vgg19": (picture("layers-vgg19"), lambda results: layers(results.forward, "VGG-19 NCHW")),
    "layers-resnet50": (picture("layers-resnet50"), lambda results: layers(results.forward, "ResNet-50 NCHW")),
    "layers-mobilenet": (picture("layers-mobilenet"), lambda results: layers(results.forward, "MobileNet v2 NHWC")),
    "roofline": (picture("roofline"),),
    "scaling": (scaling, picture("scaling")),
    "bestof": (lambda results: best_of(results.best_of),),
    "training": (lambda results: best_of(results.training),),
    "kernels": (picture("kernels"),),
    "overhead": (overhead,),
    "commands": (commands,),
    "accuracy": (accuracy,),
    "error": (picture("error"),),
}


def block(name: str, measured: Sequence[Results]) -> str:
    """What was measured on each machine, one after the other, and on which where there are several."""
    found = []
    for results in measured:
        parts = [part for make in BLOCKS[name] if (part := make(results))]
        # The text about a machine begins with its name.
        if parts and len(measured) > 1 and name != "machine":
            parts.insert(0, f"On {results.machine}:")
        found += parts
    return "\n\n".join(found)


def rewritten(text: str, measured: Sequence[Results]) -> str:
    """A page with every block made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{block(match[2], measured)}\n{match[3]}"

    return re.sub(r"(<!-- begin ([\w-]+) -->).*?(<!-- end \2 -->)", fill, text, flags=re.DOTALL)


def main() -> None:
    """Rewrite the pages and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", default="", help="only folders of bench/results whose names contain this")
    measured = machines(parser.parse_args().machine)
    if not measured:
        parser.error(f"--machine must name one of {', '.join(results.folder.name for results in machines())}")
    for results in measured:
        for report in (results.forward, results.best_of, results.training, results.kernels):
            for row in report.rows:
                if row.doubtful:
                    print(f"doubtful: {row.network} {row.layer}, {row.contestant}, {threads_text(row.threads)}: "
                          f"{row.cpu_per_wall:.1f} CPUs, {results.machine}")  # fmt: skip
        folder = PICTURES / results.folder.name
        folder.mkdir(parents=True, exist_ok=True)
        for name, (_, draw) in pictures(results).items():
            draw().savefig(folder / f"{name}.png", dpi=90, metadata={"Software": None})
    # Errors belong to the kernels: those of one machine are enough.
    errors = [results for results in measured if results.read("accuracy") is not None][:1]
    for name in PAGES:
        page = DOCS / name
        page.write_text(rewritten(page.read_text(), errors if name == "accuracy.md" else measured))


if __name__ == "__main__":
    main()

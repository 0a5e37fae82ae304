"""Whole PyTorch models: convkit.torch beside everything else that computes them, in turns in one process.

    python bench/torch_models.py [--only vgg16,unet] [--threads 1,2] [--against eager,compile] [--rounds 9] [--tune 60s]
    python bench/torch_models.py --draw            only the page and the picture, from what is stored

Results go to ``bench/results/<machine>/torch-models.json``, one row for each model and team, and from there into
docs/torch.md and its picture; ``--json FILE`` writes them elsewhere and leaves the page alone. Times are medians;
ratios are the time of the best other over convkit's. Errors are the largest difference from the same model in double
precision, relative to its largest value. ``--training`` measures steps of training instead (forward, backward, SGD).
Run it from a clone on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import copy
import gc
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import convkit as ck
import convkit.torch as door
from convkit.tables import threads_text
from convkit.torch import networks
from convkit.tuner import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "bench" / "results", ROOT / "docs" / "torch.md"
STORED = "torch-models.json"
AGAINST = ("eager", "channels_last", "compile", "onnxruntime", "openvino")
TITLES = {
    "eager": "eager", "channels_last": "channels last", "compile": "compile, freezing", "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO", "convkit": "convkit",
}  # fmt: skip
# By how much convkit is to be faster than the best other.
AIMS = {
    "vgg16": 2.7, "resnet18": 1.5, "resnet50": 1.25, "unet": 1.8, "esrgan": 2.5, "vae": 2.4, "deeplab": 1.3,
    "mobilenet_v2": 1.0, "efficientnet_b0": 1.0, "convnext_t": 1.0, "yolov8n": 1.4,
}  # fmt: skip
TRAINED: dict[str, tuple[str, Callable[[], Any], tuple[int, ...], float]] = {
    "vgg11": (
        "VGG-11, batch 12",
        lambda: networks.classifier(networks.vgg(networks.VGG11), 512, 10),
        (12, 3, 224, 224),
        1.8,
    ),
    "resnet18-cifar": (
        "ResNet-18 for CIFAR, batch 64",
        lambda: networks.ResNet((2, 2, 2, 2), False, small=True, classes=10),
        (64, 3, 32, 32),
        1.4,
    ),
}
LEAST_SECONDS, MOST_SECONDS = 0.5, 20.0
# Threads of another runtime spin on the CPUs for a while after its turn. A turn begins with a run that does not count.
REST = 0.1
Call = Callable[[], Any]


def contestants(model: Any, x: Any, threads: int, names: Sequence[str]) -> dict[str, Call]:
    """What computes the model, by name; those that are not installed are left out."""
    found: dict[str, Call] = {}
    for name in names:
        try:
            found[name] = MAKERS[name](model, x, threads)
        except ImportError as error:
            print(f"  {TITLES[name]}: {error}", file=sys.stderr)
    return found


def _eager(model: Any, x: Any, threads: int) -> Call:
    return lambda: model(x)


def _channels_last(model: Any, x: Any, threads: int) -> Call:
    changed, image = (copy.deepcopy(one).to(memory_format=torch.channels_last) for one in (model, x))
    return lambda: changed(image)


def _compile(model: Any, x: Any, threads: int) -> Call:
    import torch._inductor.config

    torch._dynamo.reset()
    torch._inductor.config.freezing = True
    made = torch.compile(copy.deepcopy(model))
    made(x)
    return lambda: made(x)


def _onnxruntime(model: Any, x: Any, threads: int) -> Call:
    import onnx  # noqa: F401 - the export needs it
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, dynamo=False, opset_version=17, input_names=["x"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}
    return lambda: torch.from_numpy(session.run(None, given)[0])


def _openvino(model: Any, x: Any, threads: int) -> Call:
    import openvino

    converted = openvino.convert_model(copy.deepcopy(model), example_input=x, input=[list(x.shape)])
    options = {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
    }  # fmt: skip
    request = openvino.Core().compile_model(converted, "CPU", options).create_infer_request()
    given = x.numpy()
    return lambda: torch.from_numpy(request.infer([given])[0])


MAKERS: dict[str, Callable[[Any, Any, int], Call]] = {
    "eager": _eager,
    "channels_last": _channels_last,
    "compile": _compile,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def in_turns(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """The middle of each one's seconds, taken in turns, forwards and backwards."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, begin, i = list(calls), time.perf_counter(), 0
    for name in order:
        calls[name]()
    while i < rounds or time.perf_counter() - begin < LEAST_SECONDS:
        for name in order if i % 2 else reversed(order):
            time.sleep(REST)
            calls[name]()
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
        i += 1
        if i >= 3 and time.perf_counter() - begin > MOST_SECONDS:
            break
    return {name: statistics.median(found) for name, found in times.items()}


def measure(name: str, threads: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row of inference."""
    model, x = networks.make(name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exports
        exact = copy.deepcopy(model).double()(x.double())
        largest = exact.abs().max()
        calls = contestants(model, x, threads, arguments.against)
        with ck.tuning(mode="tune", budget=arguments.tune) if arguments.tune else nullcontext():
            optimized = door.optimize(model, x, memory=arguments.memory, verbose=arguments.verbose)
        door.refresh(optimized)
        calls["convkit"] = lambda: optimized(x)
        errors = {key: ((call().double() - exact).abs().max() / largest).item() for key, call in calls.items()}
        seconds = in_turns(calls, arguments.rounds)
    title = networks.NETWORKS[name].title
    return row_of(name, f"{title} @{x.shape[-1]}", threads, seconds, AIMS.get(name)) | {"errors": errors}


def train(name: str, threads: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row of training."""
    title, make, shape, aim = TRAINED[name]
    torch.manual_seed(0)
    model, x, labels = make().train(), torch.randn(shape), torch.randint(0, 10, shape[:1])
    calls: dict[str, Call] = {}
    for contestant in ("eager", "channels_last", "convkit"):
        own, image = copy.deepcopy(model), x
        if contestant == "channels_last":
            own, image = (one.to(memory_format=torch.channels_last) for one in (own, x))
        if contestant == "convkit":
            own = door.optimize(own, inplace=True, verbose=arguments.verbose)
        optimizer = torch.optim.SGD(own.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4, fused=True)

        def step(own: Any = own, image: Any = image, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(own(image), labels).backward()
            optimizer.step()

        calls[contestant] = step
    with ck.tuning(mode="tune", budget=arguments.tune) if arguments.tune else nullcontext():
        calls["convkit"]()
    return row_of(name, title, threads, in_turns(calls, arguments.rounds), aim) | {"training": True}


def row_of(name: str, title: str, threads: int, seconds: dict[str, float], aim: float | None) -> dict[str, Any]:
    """A row with its ratio."""
    others = {key: value for key, value in seconds.items() if key != "convkit"}
    best = min(others, key=lambda key: others[key]) if others else ""
    return {
        "network": name, "title": title, "threads": threads, "seconds": seconds, "best": best,
        "ratio": others[best] / seconds["convkit"] if best else 0.0, "aim": aim,
    }  # fmt: skip


def told(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    times = "  ".join(f"{TITLES[key]} {1e3 * value:.1f}" for key, value in row["seconds"].items())
    error = f"  error {row['errors']['convkit']:.0e}" if "errors" in row else ""
    aim = f" (aim {row['aim']})" if row["aim"] else ""
    return f"{row['title']}, {threads_text(row['threads'])}: {times}  ratio {row['ratio']:.2f}{aim}{error}"


# --- what is stored and shown ----------------------------------------------------------------------------------------


def here() -> dict[str, Any]:
    """The machine and the versions of a result."""
    versions = {"torch": torch.__version__}
    for package in ("onnxruntime", "openvino"):
        if package in sys.modules:
            versions[package] = sys.modules[package].__version__.partition("-")[0]
    brand = str(ck._core.cpu().get("brand", "")).strip()
    return {"cpu": brand, "when": time.strftime("%Y-%m-%d"), "versions": versions, "cpus": ck._core.available_cpus()}


def merged(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is stored in a file, with newer rows in the place of older ones."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return bool(row.get("training")), row["network"], row["threads"]

    whole = {key(row): row for row in [*stored["rows"], *rows]}
    order = [*networks.NETWORKS, *TRAINED]
    ranked = sorted(whole.values(), key=lambda row: (row["threads"], order.index(row["network"])))
    return {"machine": here(), "rows": ranked}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    names = [name for name in TITLES if any(name in row["seconds"] for row in rows)]
    lines = ["| model | threads | " + " | ".join(TITLES[name] for name in names) + " | against the best | error |"]
    lines.append("|---" + "|---:" * (len(names) + 3) + "|")
    for row in rows:
        times = [f"{1e3 * row['seconds'][name]:.1f}" if name in row["seconds"] else "-" for name in names]
        error = f"{row['errors']['convkit']:.0e}" if "errors" in row else "-"
        lines.append(f"| {row['title']} | {row['threads']} | {' | '.join(times)} | **{row['ratio']:.2f}x** | {error} |")
    return "\n".join(lines)


def rewritten(page: str, folders: Sequence[Path]) -> str:
    """The page with what the folders hold between its marks."""
    begin, end = "<!-- by bench/torch_models.py -->", "<!-- until here -->"
    parts = []
    for folder in folders:
        stored = json.loads((folder / STORED).read_text(encoding="utf-8"))
        versions = ", ".join(f"{name} {number}" for name, number in stored["machine"]["versions"].items())
        cpu = f"{stored['machine']['cpu']} ({folder.name})"
        machine_text = f"{cpu}, {stored['machine']['when']}; {versions}. Milliseconds, batch 1."
        inference = [row for row in stored["rows"] if not row.get("training")]
        training = [row for row in stored["rows"] if row.get("training")]
        parts += [machine_text, f"![times of whole models](results/{folder.name}/torch-models.png)", table(inference)]
        parts += ["Steps of training:", table(training)] if training else []
    inner = "\n\n".join(parts) if parts else "Nothing is stored yet: `python bench/torch_models.py` measures."
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n\n{inner}\n\n{end}{rest.partition(end)[2]}"


def draw(folder: Path) -> None:
    """The picture of a machine's results: convkit's time of each model as a part of the best other's."""
    from matplotlib.figure import Figure

    from convkit.pictures.style import INK, OURS, THEIRS, frame

    stored = json.loads((folder / STORED).read_text(encoding="utf-8"))
    rows = [row for row in stored["rows"] if not row.get("training") and row["best"]]
    teams = sorted({row["threads"] for row in rows})
    tallest = max((sum(row["threads"] == team for row in rows) for team in teams), default=1)
    figure = Figure(figsize=(6.6 * max(len(teams), 1), 1.6 + 0.46 * tallest), layout="constrained", facecolor="white")
    panels = figure.subplots(1, max(len(teams), 1), squeeze=False)[0]
    for axes, team in zip(panels, teams, strict=False):
        shown = [row for row in rows if row["threads"] == team]
        for y, row in enumerate(shown):
            other, own = 1e3 * row["seconds"][row["best"]], 1e3 * row["seconds"]["convkit"]
            axes.barh(y - 0.19, 1.0, 0.38, color=THEIRS["PyTorch"])
            axes.barh(y + 0.19, own / other, 0.38, color=OURS[0])
            axes.annotate(f" {TITLES[row['best']]} {other:.1f} ms", (0, y - 0.19), va="center", fontsize=8, color=INK)
            axes.annotate(f" convkit {own:.1f} ms", (0, y + 0.19), va="center", fontsize=8, color="white")
        axes.set_yticks(range(len(shown)), [f"{row['title']}  {row['ratio']:.2f}x" for row in shown], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlabel("time, the best other is 1", color=INK)
        axes.tick_params(axis="y", length=0)
        frame(axes, f"Whole models, {threads_text(team)}", stored["machine"]["cpu"], grid="x")
    target = PAGE.parent / "results" / folder.name / "torch-models.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)


def show() -> None:
    """Rewrite the page and the pictures."""
    folders = sorted(path.parent for path in RESULTS.glob(f"*/{STORED}"))
    for folder in folders:
        draw(folder)
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), folders), encoding="utf-8")


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of networks, of those that --help does not list too: " + ", ".join(AIMS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--against", default=",".join(AGAINST), help=", ".join(AGAINST) + "; empty: nothing")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tune", help="measure kernels first, for as long at most")
    parser.add_argument("--memory", default="fast", choices=("fast", "low"))
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="what optimize has to tell")
    parser.add_argument("--json", type=Path, help="store the rows here and leave the page alone")
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    arguments.against = [name for name in arguments.against.split(",") if name]
    if unknown := set(arguments.against) - set(AGAINST):
        parser.error(f"--against takes {', '.join(AGAINST)}, not {', '.join(sorted(unknown))}")
    if arguments.draw:
        show()
        return
    known: dict[str, Any] = dict(TRAINED) if arguments.training else dict(networks.NETWORKS)
    wanted = arguments.only.split(",") if arguments.only else list(TRAINED if arguments.training else AIMS)
    if unknown := set(wanted) - set(known):
        parser.error(f"--only takes {', '.join(known)}, not {', '.join(sorted(unknown))}")
    kind = machine.machine_class()
    path = arguments.json or RESULTS / f"{kind.vendor}-{kind.family}-{kind.model}-{kind.isa}" / STORED
    for threads in map(int, arguments.threads.split(",")):
        torch.set_num_threads(threads)
        for name in wanted:
            row = (train if arguments.training else measure)(name, threads, arguments)
            print(told(row), flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(merged(path, [row]), indent=1) + "\n", encoding="utf-8")
            gc.collect()
    if not arguments.json:
        show()


if __name__ == "__main__":
    main()

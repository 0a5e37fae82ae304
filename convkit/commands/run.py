"""``convkit run``: an ONNX model on a picture or on noise, its outputs and what every node took."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from convkit.commands import arguments
from convkit.commands.failing import CommandError
from convkit.commands.outputs import Outputs
from convkit.tables import aligned

__all__ = ["run"]

_FREE = 224  # height and width if the model leaves them open and nobody says them


def run(
    model: Annotated[Path, typer.Argument(help="The model's file.")],
    input: Annotated[Path | None, typer.Option("--input", help="A picture, or an array as .npy; else noise.")] = None,
    shape: Annotated[str, typer.Option(help="Shape of the first input if the model leaves it open: 1x3x640x640.")] = "",
    threads: Annotated[int, typer.Option(help="Team size; 0: what a call would use.", min=0)] = 0,
    repeats: Annotated[int, typer.Option(help="Runs that are timed.", min=1)] = 5,
    profile: Annotated[Path | None, typer.Option(help="Write what each node took: .csv, or .json for a trace.")] = None,
    against: Annotated[str, typer.Option(help="onnxruntime: compare results and time.")] = "",
) -> None:
    """Run an ONNX model once and again: shapes of its outputs, time of its nodes."""
    try:
        from convkit import onnx as door
    except ImportError as error:
        raise CommandError(str(error)) from error
    if against not in ("", "onnxruntime"):
        raise typer.BadParameter(f"--against must be onnxruntime, not {against!r}")
    runtime = _runtime() if against else None
    if profile is not None and profile.suffix not in (".csv", ".json"):
        raise typer.BadParameter(f"--profile must end in .csv or .json, not {profile.name!r}")
    with Outputs() as outputs:
        written = outputs.file(profile) if profile is not None else None
        try:
            session = door.InferenceSession(model, door.SessionOptions(intra_op_num_threads=threads))
            feed = _feed(session.get_inputs(), input, shape)
            found, seconds = _timed(lambda: session.run(None, feed), repeats)
            report = session.profile(feed)
        except (TypeError, ValueError) as error:
            raise CommandError(str(error)) from error
        if written is not None and profile is not None:
            (report.to_csv if profile.suffix == ".csv" else report.to_chrome_trace)(written)
    print(report.table())
    rows = [("output", "type", "shape")]
    for arg, value in zip(session.get_outputs(), found, strict=True):
        rows.append((arg.name, str(getattr(value, "dtype", type(value).__name__)), "x".join(map(str, np.shape(value)))))
    print("\n".join(["", *aligned(rows, left=(0, 1, 2))]))
    print(f"convkit: {1e3 * seconds:.2f} ms")
    if runtime is not None:
        _compare(runtime, model, feed, threads, repeats, found, seconds)


def _feed(inputs: list[Any], picture: Path | None, shape: str) -> dict[str, Any]:
    """One array for each input: the picture for the first, noise for what is left."""
    feed: dict[str, Any] = {}
    for arg in inputs:
        name = arg.type.removeprefix("tensor(").removesuffix(")")
        dtype = np.dtype({"float": "float32", "double": "float64"}.get(name, name))
        open_sizes = [1, 3, _FREE, _FREE]
        wanted = list(arguments.sizes(shape)) if shape and not feed else arg.shape
        sizes = [n if isinstance(n, int) else open_sizes[i] if i < 4 else 1 for i, n in enumerate(wanted)]
        if picture is not None and not feed:
            feed[arg.name] = _read(picture, sizes).astype(dtype)
        elif dtype.kind == "f":
            feed[arg.name] = np.random.default_rng(0).random(sizes).astype(dtype)
        else:
            feed[arg.name] = np.zeros(sizes, dtype)
    return feed


def _read(path: Path, sizes: list[int]) -> Any:
    """An array as it is, or a picture of the sizes with values from 0 to 1, channels first."""
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if len(sizes) != 4:
        raise CommandError(f"a picture needs an input of four sizes, not {'x'.join(map(str, sizes)) or 'none'}")
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise CommandError("pictures need Pillow: pip install pillow") from error
    try:
        with Image.open(path) as opened:
            mode = "L" if sizes[1] == 1 else "RGB"
            image = np.asarray(opened.convert(mode).resize((sizes[-1], sizes[-2])), np.float32) / 255
    except UnidentifiedImageError as error:
        raise CommandError(f"{path}: not a picture") from error
    return image[None, None] if image.ndim == 2 else image.transpose(2, 0, 1)[None].copy()


def _timed(call: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    found, times = call(), []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return found, float(np.median(times))


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise CommandError("--against onnxruntime needs it: pip install onnxruntime") from error
    return onnxruntime


def _compare(
    runtime: Any, model: Path, feed: dict[str, Any], threads: int, repeats: int, ours: list[Any], seconds: float
) -> None:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    theirs, other = _timed(lambda: session.run(None, feed), repeats)
    worst = max(
        (float(np.abs(np.asarray(a, np.float64) - b).max(initial=0)) / max(float(np.abs(b).max(initial=0)), 1e-30)
         for a, b in zip(ours, theirs, strict=True)), default=0.0,
    )  # fmt: skip
    print(f"onnxruntime: {1e3 * other:.2f} ms, {other / seconds:.2f}x; largest difference {worst:.1e} of the largest")

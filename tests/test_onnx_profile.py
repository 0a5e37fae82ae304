"""What a session tells of its plan and its runs, and the command that runs a model."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")

from onnx_calls import model, node, uniform  # noqa: E402

import convkit.onnx as door  # noqa: E402

X = uniform(1, 3, 16, 20)


def proto() -> Any:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "y")]
    return model(nodes, {"w": uniform(8, 3, 3, 3)}, shape=("n", 3, "h", "w"))


def test_a_plan_is_described_before_and_after_a_run() -> None:
    session = door.InferenceSession(proto())
    assert session.describe().splitlines() == [
        "node                 op", "Relu_r               FusedConv", "GlobalAveragePool_y  GlobalAveragePool",
    ]  # fmt: skip
    session.run(None, {"x": X})
    lines = session.describe().splitlines()
    assert lines[0].split() == ["ms", "share", "op", "shape", "kernel", "node"]
    assert lines[1].split()[2:] == ["FusedConv", "1x8x14x18", "Relu_r"]
    session.profile({"x": X})
    kernel = session.describe().splitlines()[1].split()[4]
    assert kernel.startswith("f32_")


def test_a_profile_has_every_node(tmp_path: Path) -> None:
    profile = door.InferenceSession(proto()).profile({"x": X})
    assert [(n.op, n.shape) for n in profile.nodes] == [
        ("FusedConv", (1, 8, 14, 18)),
        ("GlobalAveragePool", (1, 8, 1, 1)),
    ]
    assert profile.nodes[0].kernel.startswith("f32_")
    assert profile.nodes[1].kernel == ""
    assert profile.seconds == sum(n.seconds for n in profile.nodes) > 0
    profile.to_csv(tmp_path / "nodes.csv")
    with (tmp_path / "nodes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["op"] for row in rows] == ["FusedConv", "GlobalAveragePool"]
    assert float(rows[0]["start_s"]) == 0 < float(rows[1]["start_s"])
    profile.to_chrome_trace(tmp_path / "nodes.json")
    events = json.loads((tmp_path / "nodes.json").read_text())["traceEvents"]
    assert [(event["name"], event["args"]["shape"]) for event in events] == [
        ("Relu_r", [1, 8, 14, 18]), ("GlobalAveragePool_y", [1, 8, 1, 1]),
    ]  # fmt: skip


def command(*words: object) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("typer", reason="typer is not installed")
    arguments = [sys.executable, "-m", "convkit", "run", *map(str, words)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)


def test_the_command_runs_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(proto(), path)
    np.save(tmp_path / "x.npy", X)
    done = command(path, "--input", tmp_path / "x.npy", "--threads", 1, "--profile", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert "1x8x14x18" in done.stdout
    assert (tmp_path / "out.csv").read_text().startswith("node,op,shape,kernel")
    done = command(path, "--shape", "2x3x8x8", "--profile", tmp_path / "out.json", "--repeats", 1)
    assert "2x8x6x6" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["traceEvents"]


def test_the_command_reads_pictures(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    path = tmp_path / "model.onnx"
    onnx.save(proto(), path)
    image.fromarray(np.zeros((50, 40, 3), np.uint8)).save(tmp_path / "x.png")
    assert "1x8x22x30" in command(path, "--input", tmp_path / "x.png", "--shape", "1x3x24x32").stdout


def test_the_command_takes_inputs_of_any_rank(tmp_path: Path) -> None:
    path = tmp_path / "mlp.onnx"
    onnx.save(model([node("MatMul", "x w", "y")], {"w": uniform(16, 5)}, shape=("n", 16)), path)
    done = command(path, "--shape", "4x16", "--repeats", 1)
    assert done.returncode == 0, done.stderr
    assert "4x5" in done.stdout
    done = command(path, "--shape", "4x16", "--input", tmp_path / "x.png")
    assert done.returncode == 2
    assert "a picture needs an input of four sizes, not 4x16" in done.stderr


def test_without_onnx_runtime_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer", reason="typer is not installed")
    from convkit.commands.failing import CommandError
    from convkit.commands.run import run

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CommandError, match="--against onnxruntime needs it"):
        run(tmp_path / "not looked at.onnx", against="onnxruntime")


def test_the_command_compares(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = tmp_path / "model.onnx"
    onnx.save(proto(), path)
    last = command(path, "--shape", "1x3x32x32", "--against", "onnxruntime").stdout.splitlines()[-1]
    assert last.startswith("onnxruntime: ")
    assert float(last.split("largest difference ")[1].split()[0]) < 1e-5


def test_the_command_fails_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(proto(), path)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for words, expected in (
        ((tmp_path / "none.onnx",), "No such file"),
        ((tmp_path / "broken.onnx",), "not an ONNX model"),
        ((path, "--input", tmp_path / "broken.png"), "not a picture"),
        ((path, "--shape", "1x4x9x9"), "input 'x' must have shape"),
        ((path, "--shape", "wide"), "not a shape"),
        ((path, "--profile", tmp_path / "x.txt"), "must end in .csv or .json"),
        ((path, "--against", "torch"), "must be onnxruntime"),
    ):
        done = command(*words)
        assert done.returncode == 2
        assert expected in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr

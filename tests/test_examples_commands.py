"""The examples' commands: each in its quick form, what it writes and says, and how it fails."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _name, _use in (("sklearn", "the digits"), ("matplotlib", "plots"), ("typer", "the command line")):
    pytest.importorskip(_name, reason=f"{_use}: {_name} (extra `examples`) is not installed")

from examples.training import trainer  # noqa: E402 - with what it needs

ROOT = Path(__file__).resolve().parent.parent
PNG = b"\x89PNG"


def start(*arguments: Any) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "examples.training", *map(str, arguments)],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(*arguments: Any, code: int = 0) -> str:
    process = start(*arguments)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    return output


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_keras_cnn(tmp_path: Path) -> None:
    output = run("keras-cnn", "--quick", "--profile", "--seeds", 2, "--threads", 1, "--out", tmp_path)
    assert "scikit-learn's digits" in output
    errors = rows(tmp_path / "error.csv")
    assert {row["set"] for row in errors} == {"digits", "shapes"}
    digits = [float(row["mean_error"]) for row in errors if row["set"] == "digits"]
    assert digits[-1] < 0.05 < digits[0]
    assert all(row["seeds"] == "2" for row in errors)
    assert (tmp_path / "error.png").read_bytes().startswith(PNG)
    assert rows(tmp_path / "layers.csv")[0]["layer"] == "conv1"
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_keras_cnn_on_the_files_of_a_folder(tmp_path: Path) -> None:
    from test_examples_data import write_mnist

    write_mnist(tmp_path / "data" / "mnist", compressed=False)
    output = run(
        "keras-cnn", "--quick", "--epochs", 1, "--seeds", 1, "--data-dir", tmp_path / "data", "--out", tmp_path / "out"
    )
    assert "without cifar-10: CIFAR-10 needs test_batch.bin" in output
    assert {row["set"] for row in rows(tmp_path / "out" / "error.csv")} == {"mnist"}
    (tmp_path / "empty").mkdir()
    output = run("keras-cnn", "--data-dir", tmp_path / "empty", "--out", tmp_path / "out", code=2)
    assert "has none of the three sets" in output
    assert "Traceback" not in output


def test_layer_times(tmp_path: Path) -> None:
    output = run("layer-times", "--quick", "--iterations", 2, "--warm-up", 1, "--threads", 1, "--out", tmp_path)
    assert "profiling costs %" in output
    experiments = rows(tmp_path / "experiment.csv")
    assert [(row["network"], row["iteration"]) for row in experiments if row["network"] == "vgg11"] == [
        ("vgg11", "0"), ("vgg11", "1"),
    ]  # fmt: skip
    for row in experiments:
        rest = 100 * float(row["unexplained_s"]) / float(row["seconds"])
        assert float(row["unexplained_percent"]) == pytest.approx(rest, abs=1e-3)
    layers = rows(tmp_path / "layers.csv")
    assert {row["kind"] for row in layers} == {"conv", "relu", "pool", "flatten", "dropout", "dense"}
    assert (tmp_path / "vgg11-1.png").read_bytes().startswith(PNG)


def test_inception(tmp_path: Path) -> None:
    output = run("inception", "--quick", "--epochs", 2, "--threads", 1, "--out", tmp_path)
    assert "inception about picture.png: class 0:" in output
    assert len(rows(tmp_path / "epochs.csv")) == 4
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    again = run("inception", "--network", "inception", "--classify", tmp_path / "picture.png", "--out", tmp_path)
    assert again.strip().splitlines()[-1].split(":")[:2] == ["inception about picture.png", " class 0"]
    dreamt = tmp_path / "dream"
    output = run(
        "dream", "--quick", "--steps", 2, "--weights", tmp_path / "inception-final.npz", "--image",
        tmp_path / "picture.png", "--out", dreamt,
    )  # fmt: skip
    assert "random weights" not in output
    assert (dreamt / "dream.png").read_bytes().startswith(PNG)
    output = run("inception", "--classify", tmp_path / "curves.csv", "--out", tmp_path / "nothing", code=2)
    assert "there is no checkpoint" in output


def test_autoencoder(tmp_path: Path) -> None:
    output = run("autoencoder", "--quick", "--epochs", 2, "--layout", "NCHW", "--threads", 1, "--out", tmp_path)
    assert "2,561 parameters" in output
    errors = [float(row["test_error"]) for row in rows(tmp_path / "epochs.csv")]
    assert errors[-1] < 0.08
    assert (tmp_path / "digits.png").read_bytes().startswith(PNG)


def test_transfer(tmp_path: Path) -> None:
    output = run("transfer", "--quick", "--epochs", 5, "--threads", 1, "--out", tmp_path)
    assert "random" in output
    assert "2,223,872 parameters" in output
    assert (tmp_path / "head.npz").exists()
    output = run("transfer", "--quick", "--epochs", 2, "--weights", tmp_path / "body.npz", "--out", tmp_path)
    assert "random" not in output


def test_dream(tmp_path: Path) -> None:
    output = run("dream", "--quick", "--steps", 4, "--profile", "--epochs", 2, "--threads", 1, "--out", tmp_path)
    assert "random weights" in output
    found = rows(tmp_path / "ascent.csv")
    assert [int(row["step"]) for row in found] == 4 * list(range(4))
    first, *after = [float(row["excitement"]) for row in found if row["size"] == found[-1]["size"]]
    assert sum(after) / len(after) > first  # single steps of this length go up and down
    assert {row["network"] for row in rows(tmp_path / "layers.csv")} == {"body at 134", "body at 192"}


def test_zoo(tmp_path: Path) -> None:
    output = run(
        "zoo", "--quick", "--only", "alexnet-cifar,mobilenet-cifar", "--nested", "alexnet-cifar", "--threads", 1,
        "--epochs", 2, "--profile", "--out", tmp_path,
    )  # fmt: skip
    assert not list(tmp_path.glob("*.npz"))
    assert len({(row["network"], row["iteration"]) for row in rows(tmp_path / "layers.csv")}) == 2 * 4
    assert [row["network"] for row in rows(tmp_path / "zoo.csv")] == ["AlexNet", "MobileNet"]
    assert "BestOf: a step of AlexNet in N" in output
    report = (tmp_path / "bestof.txt").read_text()
    assert "within NCHW:" in report
    assert "conv5" in report


def interrupt(checkpoint: str, folder: Path, *arguments: Any, code: int = 130) -> str:
    """Start a command and press Ctrl-C as soon as a file of this name is there; what it said."""
    process = start(*arguments, "--out", folder)
    end = time.monotonic() + 200
    while not (folder / checkpoint).exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == code, output
    return output


def test_an_interrupt_writes_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    options = ("--seeds", 1, "--threads", 1)
    output = interrupt("digits-0.npz", tmp_path, "keras-cnn", "--quick", *options, "--epochs", 200)
    assert "--resume goes on from there" in output
    from examples.training import checkpoints

    (steps,) = checkpoints.progress(tmp_path / "digits-0.npz", "steps")
    output = run("keras-cnn", "--quick", "--resume", *options, "--epochs", steps // 23 + 1, "--out", tmp_path)
    assert len([row for row in rows(tmp_path / "error.csv") if row["set"] == "digits"]) == steps // 23 + 1


def test_an_interrupted_zoo_goes_on(tmp_path: Path) -> None:
    options = ("zoo", "--quick", "--only", "mobilenet-cifar", "--nested", "", "--threads", 1)
    interrupt("mobilenet-cifar.npz", tmp_path, *options, "--epochs", 500)
    from examples.training import checkpoints

    (steps,) = checkpoints.progress(tmp_path / "mobilenet-cifar.npz", "steps")
    assert 0 < steps < 1000
    run(*options, "--resume", "--epochs", steps // 2 + 1, "--out", tmp_path)
    assert len(rows(tmp_path / "zoo.csv")) == 1


def test_an_interrupted_dream_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    from examples.training import checkpoints
    from examples.training.commands import dream
    from examples.training.options import options

    photo = np.random.default_rng(0).random((3, 75, 75), np.float32)
    path = tmp_path / "ascent.npz"

    def ascent() -> dream.Ascent:
        return dream.Ascent(run, path, photo, 3, None)

    with options(True, tmp_path, "NHWC", 1, 0, mode="off") as run:
        whole, begun, resumed = ascent(), ascent(), ascent()
        for size in (75, 96):
            whole.climb(size, [])
        begun.climb(75, [])
        begun.asked.set()  # Ctrl-C comes during the next step
        with pytest.raises(trainer.Interrupted):
            begun.climb(96, [])
        resumed.load()
        for size in (75, 96):
            resumed.climb(size, [])
        np.testing.assert_array_equal(resumed.change, whole.change)
        assert resumed.rows == whole.rows
        with pytest.raises(checkpoints.CheckpointError, match="another ascent"):
            dream.Ascent(run, path, photo, 4, None).load()


def test_interrupted_layer_times_write_what_was_measured(tmp_path: Path) -> None:
    options = ("layer-times", "--quick", "--warm-up", 1, "--threads", 1)
    output = interrupt("alexnet-8.png", tmp_path, *options, "--iterations", 3, code=0)
    assert {row["network"] for row in rows(tmp_path / "experiment.csv")} >= {"alexnet"}
    assert "alexnet" in output


def test_help_names_every_command() -> None:
    output = run("--help")
    for command in ("keras-cnn", "layer-times", "inception", "autoencoder", "transfer", "dream", "zoo"):
        assert command in output


@pytest.mark.parametrize(
    "command", ["keras-cnn", "layer-times", "inception", "autoencoder", "transfer", "dream", "zoo"]
)
def test_every_command_has_the_common_options(command: str) -> None:
    output = run(command, "--help")
    for option in ("--quick", "--out", "--layout", "--profile", "--threads", "--epochs", "--seed"):
        assert option in output

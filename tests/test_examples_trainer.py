"""The examples' trainer: it learns, restarts to the same bits, stops at Ctrl-C, and times what it does."""

from __future__ import annotations

import csv
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convkit as ck
from examples.training import checkpoints, models, schedules, timing
from examples.training.blocks import Block
from examples.training.data import Dataset, shapes
from examples.training.group import Group
from examples.training.layers import Context
from examples.training.network import Network
from examples.training.optimizers import SGD, Adam
from examples.training.timing import Stopwatch
from examples.training.trainer import Epoch, Interrupted, Trainer

TABLE: Any = (
    ("conv", 8, 3, {"stride": 2}), ("norm",), ("relu",), ("pool", 2),
    ("residual", (("conv", 8, 3), ("norm",)), ()), ("dropout", 0.2), ("global_average",), ("dense", 3),
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    return shapes.load("shapes", 24, 3, 54, 12)


def trainer_of(optimizer: str = "sgd", layout: str = "NHWC", seed: int = 4) -> Trainer:
    network = Network(TABLE, (3, 24, 24), Context(layout, "float32", seed, 1))
    chosen = SGD(network, 0.9, 1e-4) if optimizer == "sgd" else Adam(network)
    return Trainer(network, chosen, schedules.cosine(0.02, 15))


def state(trainer: Trainer) -> dict[str, Any]:
    network, optimizer = trainer.network, trainer.optimizer
    return {"values": network.values, **network.buffers(), **optimizer.state}


def same_bits(one: Trainer, other: Trainer) -> None:
    for name, array in state(one).items():
        np.testing.assert_array_equal(array, state(other)[name], err_msg=name)
    assert one.optimizer.steps == other.optimizer.steps


def without_seconds(history: list[Epoch]) -> list[dict[str, Any]]:
    return [{**asdict(row), "seconds": 0} for row in history]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_restart_equals_a_run_without_one(data: Dataset, tmp_path: Path, optimizer: str, layout: str) -> None:
    whole = trainer_of(optimizer, layout)
    history = whole.fit(data, 3, 12)
    assert [row.epoch for row in history] == [1, 2, 3]

    # Interrupted in the middle of the second epoch, then after the second epoch's end, then to the end.
    path = tmp_path / "checkpoint.npz"
    first = trainer_of(optimizer, layout)

    def interrupt(loss: float, images: int) -> None:
        if first.steps == 6:
            os.kill(os.getpid(), signal.SIGINT)

    first.report = interrupt
    with pytest.raises(Interrupted):
        first.fit(data, 3, 12, path=path)
    assert first.steps == 7
    second = trainer_of(optimizer, layout)
    second.network.values[...] = 0
    second.fit(data, 2, 12, path=path, resume=True)
    third = trainer_of(optimizer, layout)
    resumed = third.fit(data, 3, 12, path=path, resume=True)
    same_bits(whole, third)
    assert without_seconds(resumed) == without_seconds(history)


def test_a_restart_with_a_frozen_database(
    data: Dataset, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convkit.tuner.evidence.database import open_user

    with ck.tuning(mode="tune", budget="2s"):
        trainer_of().fit(data, 1, 12)
    frozen = tmp_path / "frozen.sqlite"
    open_user().freeze(frozen)
    monkeypatch.setenv("CONVKIT_DB", str(frozen))
    ck.reload()
    whole = trainer_of()
    whole.fit(data, 2, 12)
    path = tmp_path / "checkpoint.npz"
    trainer_of().fit(data, 1, 12, path=path)
    ck.reload()
    again = trainer_of()
    again.fit(data, 2, 12, path=path, resume=True)
    same_bits(whole, again)


def test_it_learns(data: Dataset) -> None:
    trainer = trainer_of()
    trainer.schedule = schedules.constant(0.05)
    history = trainer.fit(data, 12, 9)
    assert history[-1].loss < 0.5 * history[0].loss
    assert history[-1].accuracy > 0.7


def test_a_loss_that_is_no_number_ends_the_run(data: Dataset) -> None:
    trainer = trainer_of()
    trainer.schedule = schedules.constant(1e30)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="lower the learning rate"):
        trainer.fit(data, 3, 12)


def test_a_second_interrupt_ends_at_once(data: Dataset) -> None:
    trainer = trainer_of()

    def interrupt_twice(loss: float, images: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    trainer.report = interrupt_twice
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, 1, 12)
    assert signal.getsignal(signal.SIGINT) is before


def test_checkpoints_are_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of()
    path = tmp_path / "new" / "checkpoint.npz"
    checkpoints.save(path, trainer.network, trainer.optimizer, steps=1)
    kept = path.read_bytes()

    def full(*arguments: Any, **arrays: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(path, trainer.network, trainer.optimizer, steps=2)
    assert path.read_bytes() == kept
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.npz"]
    assert checkpoints.load(path, trainer.network)["steps"] == 1
    assert checkpoints.progress(path, "steps") == [1]


def test_checkpoints_that_cannot_be_used(tmp_path: Path) -> None:
    trainer = trainer_of()
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(checkpoints.CheckpointError, match="there is no checkpoint"):
        checkpoints.load(path, trainer.network)
    for data in (b"", b"PK\x03\x04 damaged"):
        path.write_bytes(data)
        with pytest.raises(checkpoints.CheckpointError, match="or damaged"):
            checkpoints.load(path, trainer.network)
    np.savez(path, values=np.zeros(3))
    with pytest.raises(checkpoints.CheckpointError, match="no checkpoint of this program"):
        checkpoints.load(path, trainer.network)
    checkpoints.save(path, trainer.network)
    before = trainer.network.values.copy()
    with pytest.raises(checkpoints.CheckpointError, match="lacks 'optimizer velocity'"):
        checkpoints.load(path, trainer.network, trainer.optimizer)
    np.testing.assert_array_equal(trainer.network.values, before)
    other = Network(models.KERAS_CNN, (1, 28, 28), Context(threads=1))
    with pytest.raises(checkpoints.CheckpointError, match="another network"):
        checkpoints.load(path, other)
    with pytest.raises(checkpoints.CheckpointError, match="does not say classes"):
        checkpoints.progress(path, "classes")


def test_a_checkpoint_serves_the_other_layout(tmp_path: Path, data: Dataset) -> None:
    one, other = trainer_of(layout="NCHW"), trainer_of(layout="NHWC", seed=5)
    one.fit(data, 1, 12, path=tmp_path / "checkpoint.npz")
    checkpoints.load(tmp_path / "checkpoint.npz", other.network)
    y, z = (t.network.forward(t.network.images(data.test)) for t in (one, other))
    np.testing.assert_allclose(y, z, atol=1e-5)


class Pretended(Group):
    """One of several processes, whose sums are taken by the test."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.sent: list[Any] = []

    def sum(self, array: Any) -> None:
        self.sent.append(array.copy())


def test_shares_of_a_batch_add_up_to_its_gradient(data: Dataset) -> None:
    table = (("conv", 6, 3), ("relu",), ("dropout", 0.3), ("flatten",), ("dense", 3))

    def step(group: Group) -> Trainer:
        network = Network(table, (3, 24, 24), Context("NHWC", "float64", 0, 1))
        trainer = Trainer(network, SGD(network), schedules.constant(0.0), group=group)
        trainer.step(data.train[:11], data.train_labels[:11])
        return trainer

    whole = step(Group())
    parts = [Pretended(rank, 3) for rank in range(3)]
    for part in parts:
        step(part)
    total = sum(part.sent[0] for part in parts)
    np.testing.assert_allclose(total, whole.network.gradients, rtol=0, atol=1e-13)
    assert [part.share(11) for part in parts] == [slice(0, 3), slice(3, 7), slice(7, 11)]


def test_the_stopwatch_counts_every_layer_once(data: Dataset, tmp_path: Path) -> None:
    trainer = trainer_of()
    watch = trainer.stopwatch = Stopwatch()
    for i in range(3):
        trainer.step(data.train[: 9 + i], data.train_labels[: 9 + i])
    assert Block.stopwatch is None
    names = {layer.name for layer in trainer.network.layers}
    for one in watch.iterations:
        for phase in ("forward", "backward"):
            assert {layer for layer, of in one.parts if of == phase} == names | {"residual1"}
        assert {layer for layer, of in one.parts if of == "update"} == set(trainer.network.spans)
        assert min(one.parts.values()) >= -1e-9
        assert -1e-9 <= one.unexplained <= one.seconds
    timing.write_experiment(tmp_path / "experiment.csv", [("small", 9, trainer.network, watch.iterations)])
    timing.write_layers(tmp_path / "layers.csv", [("small", 9, trainer.network, watch.iterations)])
    with (tmp_path / "experiment.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3
    row = rows[1]
    explained = sum(float(row[f"{part}_s"]) for part in ("data", "forward", "backward", "update", "loss"))
    assert explained + float(row["unexplained_s"]) == pytest.approx(float(row["seconds"]), abs=1e-7)
    with (tmp_path / "layers.csv").open() as stream:
        layers = list(csv.DictReader(stream))
    assert [r["layer"] for r in layers if r["iteration"] == "0"][:3] == ["conv1", "norm1", "pool1"]
    # The ReLU has no line: it is part of the normalisation before it.
    assert {r["kind"] for r in layers} == {"conv", "norm", "pool", "residual", "dropout", "global_average", "dense"}
    total = sum(float(r[f"{phase}_s"]) for r in layers for phase in timing.PHASES)
    assert total == pytest.approx(sum(one.phase(p) for one in watch.iterations for p in timing.PHASES), abs=1e-6)
    assert set(watch.medians().parts) == set(watch.iterations[0].parts)


def test_time_inside_of_a_block_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def work(seconds: float, *inside: Any) -> None:
        nonlocal now
        now += seconds
        for name, part in inside:
            watch.run(name, "forward", work, part)

    watch = Stopwatch()
    watch.begin()
    work(0.5)
    watch.run("block", "forward", work, 1.0, ("a", 2.0), ("b", 4.0))
    watch.end()
    (one,) = watch.iterations
    assert one.parts == {("a", "forward"): 2.0, ("b", "forward"): 4.0, ("block", "forward"): 1.0}
    assert one.seconds == 7.5
    assert one.unexplained == 0.5
    assert watch.unexplained_share() == pytest.approx(0.5 / 7.5)

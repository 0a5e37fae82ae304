"""Shards, and the same shards on a cluster of processes."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from convkit.fleet import measure_shard, tune_with_dask
from convkit.problem import Problem
from convkit.tuner import choose
from convkit.tuner.evidence.database import Database

PROBLEM = Problem(n=1, c=4, h=8, w=8, o=4, kh=3, kw=3)


def test_a_worker_brings_an_export_home_and_writes_nothing(database: Path, tmp_path: Path) -> None:
    text, failed = measure_shard([(str(PROBLEM), 1), ("nonsense", 1)], budget=0.05)
    assert not database.exists()
    assert len(failed) == 1
    assert "nonsense" in failed[0]
    export = tmp_path / "export"
    export.write_text(text)
    other = Database(tmp_path / "other")
    with export.open() as stream:
        assert other.import_lines(stream).trials > 0
    assert {trial.problem for trial in other.trials()} == {str(PROBLEM)}


def test_a_cluster_of_processes_fills_one_database(database: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra fleet is not installed")
    jobs = [(PROBLEM.replace(c=c), threads) for c in (4, 8, 12) for threads in (1, 2)]
    steps: list[int] = []
    with warnings.catch_warnings():
        # distributed warns about ports in use and about its own event loop; that is not what is tested here.
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            result = tune_with_dask(
                client, jobs, budget=0.05, shard_size=2, progress=lambda done, total, text: steps.append(done)
            )
    assert result.failed == ()
    assert steps == [1, 2, 3]
    stored = Database(database)
    assert stored.counts()["problems"] == 3
    assert stored.counts()["trials"] == result.trials
    assert stored.verify() == []
    assert {(choice.tier, choice.threads) for choice in (choose(*job) for job in jobs)} == {("user", 1), ("user", 2)}


def test_a_shard_that_fails_is_told_and_the_others_count(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra fleet is not installed")

    class Future:
        def __init__(self, shard: Any) -> None:
            self.shard = shard

        def result(self) -> Any:
            if "nonsense" in self.shard[0][0]:
                raise OSError("the worker died")
            return measure_shard(self.shard, 0.05)

    class Client:
        def submit(self, work: Any, shard: Any, budget: float, pure: bool) -> Future:
            assert (work, budget, pure) == (measure_shard, 0.05, False)
            return Future(shard)

    monkeypatch.setattr(distributed, "as_completed", lambda futures: futures)
    result = tune_with_dask(Client(), [("nonsense", 1), (PROBLEM, 1)], budget=0.05, shard_size=1)
    assert result.failed == ("a shard: the worker died",)
    assert result.trials == Database(database).counts()["trials"] > 0


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"needs the extra: pip install .*\[fleet\]"):
        tune_with_dask("tcp://nowhere:1", [(PROBLEM, 1)])

"""Shards, and the same shards on a cluster of processes."""

from __future__ import annotations

import warnings
from pathlib import Path

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

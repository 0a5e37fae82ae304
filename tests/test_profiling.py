"""Profiles: every call, once, with the kernel that ran; nothing when nobody asks."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convkit as ck
from convkit import _core
from convkit.problem import Problem, of_call
from convkit.profiling import Record

X = np.random.default_rng(0).standard_normal((2, 4, 9, 9)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((8, 4, 3, 3)).astype(np.float32)


def test_records_say_what_ran() -> None:
    layer = ck.Conv2d(W, padding=1, algorithm="direct", num_threads=1)
    with ck.profile() as p:
        ck.conv2d(X, W, algorithm="im2col", num_threads=1)
        layer(X)
        layer(X)
    assert len(p.records) == 3
    first, second, third = p.records
    assert "im2col" in first.kernel
    assert "direct" in second.kernel
    assert first.problem == of_call(X, W)[0]
    assert second.problem == of_call(X, W, padding=1, packed=True)[0] == third.problem
    assert first.start <= second.start <= third.start
    assert all(0 < record.seconds < p.seconds for record in p.records)
    assert {record.thread for record in p.records} == {threading.get_ident()}
    assert sum(record.seconds for record in p.records) <= p.seconds


def test_outside_a_profile_nothing_is_kept() -> None:
    ck.conv2d(X, W)
    assert _core.profile_position() == 0
    with ck.profile() as p:
        pass
    ck.conv2d(X, W)
    assert p.records == []
    assert _core.profile_position() == 0


def test_profiles_nest() -> None:
    with ck.profile() as outer:
        ck.conv2d(X, W)
        with ck.profile() as inner:
            ck.conv2d(X, W)
    assert (len(outer.records), len(inner.records)) == (2, 1)
    assert outer.records[1] == inner.records[0]


def test_labels_name_calls_and_the_innermost_wins() -> None:
    with ck.profile() as p:
        ck.conv2d(X, W)
        with p.label("block"):
            ck.conv2d(X, W)
            with p.label("layer"):
                ck.conv2d(X, W)
            ck.conv2d(X, W)
    assert [record.label for record in p.records] == ["", "block", "layer", "block"]


def test_calls_of_all_threads_are_recorded() -> None:
    def work() -> None:
        for _ in range(20):
            ck.conv2d(X, W, num_threads=1)

    with ck.profile() as p:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(p.records) == 80
    assert len({record.thread for record in p.records}) >= 1


def test_an_error_in_the_block_closes_the_profile() -> None:
    p = ck.profile()

    def fail() -> None:
        with p:
            ck.conv2d(X, W)
            ck.conv2d(X, W[:, :2])

    with pytest.raises(ValueError, match="channels"):
        fail()
    assert len(p.records) == 1
    assert _core.profile_position() == 0
    with p:
        pass
    assert p.records == []


def test_files_and_table(tmp_path: Path) -> None:
    with ck.profile() as p, p.label("stem"):
        for _ in range(3):
            ck.conv2d(X, W)
    p.to_csv(tmp_path / "calls.csv")
    with (tmp_path / "calls.csv").open(newline="") as stream:
        lines: list[dict[str, Any]] = list(csv.DictReader(stream))
    assert [line["label"] for line in lines] == ["stem"] * 3
    assert {Problem.parse(line["problem"]) for line in lines} == {of_call(X, W)[0]}
    np.testing.assert_allclose([float(line["seconds"]) for line in lines], [r.seconds for r in p.records], atol=1e-9)

    p.to_chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == ["stem"] * 3
    assert events[0]["ts"] == 0
    assert all(event["ph"] == "X" and event["dur"] > 0 for event in events)

    table = p.table()
    assert table.startswith("3 calls")
    assert str(of_call(X, W)[0]) in table
    assert isinstance(p.records[0], Record)
    assert "3 calls" in repr(p)

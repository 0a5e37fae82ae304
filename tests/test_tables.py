"""Figures as text."""

from __future__ import annotations

import pytest

from convkit.tables import aligned, bytes_text, threads_text, time_text


def test_text_stands_left_and_numbers_right() -> None:
    rows = [("layer", "x", "ms", "choice"), ("conv1_1", "1", "0.125", "direct"), ("all", "16")]
    assert aligned(rows, left=(0, 3)) == [
        "layer     x     ms  choice",
        "conv1_1   1  0.125  direct",
        "all      16",
    ]
    assert aligned([]) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (90.0, "90.0 s"), (1.0, "1.00 s"), (0.1234, "123 ms"), (2e-6, "2.00 µs"), (2e-9, "0.00200 µs")],
)
def test_times(seconds: float | None, text: str) -> None:
    assert time_text(seconds) == text


def test_sizes_and_teams() -> None:
    assert [bytes_text(size) for size in (0, 100, 1536, 3 * 2**30)] == ["0 B", "100 B", "1.5 KiB", "3 GiB"]
    assert [threads_text(count) for count in (1, 2)] == ["1 thread", "2 threads"]

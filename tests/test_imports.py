"""Data goes one way, top to bottom: no module imports from a room above, and none in a circle."""

from __future__ import annotations

import subprocess
import sys

import import_graph


def test_no_arrow_goes_up() -> None:
    assert list(import_graph.upward(import_graph.graph())) == []


def test_there_are_no_circles() -> None:
    assert import_graph.circle(import_graph.graph()) == []
    assert import_graph.circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_every_module_has_a_room_of_its_own() -> None:
    named = [name for names in import_graph.ROOMS for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= set(import_graph.modules())


def test_the_command_prints_the_graph() -> None:
    done = subprocess.run([sys.executable, import_graph.__file__], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith(" 0 wrong")
    assert "tuner.choosing.selector" in done.stdout

"""Types as a user's checker sees them: a strict program, and how much of the package is typed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LEAST_TYPED = 0.95
DOORS = ("torch", "onnx")


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "MYPYPATH": str(TESTS.parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_strictly_typed_program(tmp_path: Path) -> None:
    found = run(sys.executable, "-m", "mypy", "--strict", str(TESTS / "typed_user.py"), folder=tmp_path)
    assert found.returncode == 0, found.stdout


@pytest.mark.skipif(shutil.which("node") is None, reason="pyright needs node")
def test_almost_everything_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="pyright is not installed")
    if run(sys.executable, "-m", "pyright", "--version", folder=tmp_path).returncode:
        pytest.skip("pyright's npm package cannot be had")
    found = run(
        sys.executable, "-m", "pyright", "--verifytypes", "convkit", "--ignoreexternal", "--outputjson",
        "--pythonpath", sys.executable, folder=tmp_path,
    )  # fmt: skip
    # A door's types are those of its framework: where that is not installed, nothing can be known of them.
    closed = tuple(f"convkit.{name}" for name in DOORS if importlib.util.find_spec(name) is None)
    symbols = json.loads(found.stdout)["typeCompleteness"]["symbols"]
    known = [one["isTypeKnown"] for one in symbols if one["isExported"] and not one["name"].startswith(closed)]
    assert len(known) > 1000
    assert sum(known) >= LEAST_TYPED * len(known)

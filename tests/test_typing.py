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
# Of the doors more is inferred from typed arguments, as every checker does.
LEAST_TYPED, LEAST_INFERRED = 0.95, 0.99
DOORS = ("torch", "onnx")


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Asked to verify a package, pyright takes the path's interpreter, whatever it is told.
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": path, "MYPYPATH": str(TESTS.parent)}
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
        sys.executable, "-m", "pyright", "--verifytypes", "convkit", "--ignoreexternal", "--outputjson", folder=tmp_path
    )
    symbols = json.loads(found.stdout)["typeCompleteness"]["symbols"]
    exported = [one for one in symbols if one["isExported"]]
    doors = tuple(f"convkit.{name}" for name in DOORS)
    core = [one["isTypeKnown"] for one in exported if not one["name"].startswith(doors)]
    assert len(core) > 1000
    assert sum(core) >= LEAST_TYPED * len(core)
    # A door's types are those of its framework: where that is not installed, nothing can be known of them.
    closed = tuple(f"convkit.{name}" for name in DOORS if importlib.util.find_spec(name) is None)
    seen = [one["isTypeKnown"] or one["isTypeAmbiguous"] for one in exported if not one["name"].startswith(closed)]
    assert sum(seen) >= LEAST_INFERRED * len(seen)

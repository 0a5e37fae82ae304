"""What people are told to install is what they have, and never the package that another project calls `convkit`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from convkit import distribution
from convkit.tuner import machine

ROOT = Path(__file__).parent.parent
# As an install line has it, and as a requirement.
STRANGER = re.compile(r"(pip install[^\n]*|[\"'])\bconvkit\\*\[")

MESSAGES: dict[str, tuple[str, str, str]] = {
    "commands": ("typer", "from convkit.cli import main; main()", "cli"),
    "demo": ("matplotlib", "from convkit.commands import app; app(['demo'])", "cli,plot"),
    "page": ("matplotlib", "from convkit.commands import app; app(['report', '--html', 'page.html'])", "plot"),
    "bench": (
        "matplotlib",
        "from convkit.commands import app; app('bench --network mnist_cnn --against none --no-tune --seconds 0 "
        "--plot speeds.png'.split())",
        "plot",
    ),
    "peers": (
        "torch",
        "from convkit.commands.bench import _peers; assert _peers('torch') == ()",
        "peers",
    ),
    "torch": ("torch", "import convkit.torch", "torch"),
    "onnx": ("onnx", "import convkit.onnx", "onnx"),
    "fleet": (
        "distributed",
        "from convkit.fleet import tune_with_dask; tune_with_dask('', [])",
        "fleet",
    ),
}


@pytest.fixture
def renamed(tmp_path: Path) -> Path:
    """A folder with the metadata of a distribution of another name, and of a stranger's that also has a script."""
    for folder, script in (("convkit-9", "convkit.main:run"), ("convkit_elsewhere-1", "convkit.cli:main")):
        info = tmp_path / f"{folder}.dist-info"
        info.mkdir()
        name = folder.rpartition("-")[0].replace("_", "-")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 7.5\n")
        (info / "entry_points.txt").write_text(f"[console_scripts]\nconvkit = {script}\n")
    return tmp_path


def test_no_page_and_no_requirement_names_the_stranger() -> None:
    told = []
    for pattern in ("*.md", "*.py", "*.toml", "*.yaml", ".ci/*"):
        for path in ROOT.rglob(pattern):
            inside = path.relative_to(ROOT)
            if inside.parts[0] in ("build", "CHANGELOG.md") or inside.parts[0].startswith(".venv"):
                continue
            told += [f"{inside}: {match[0]}" for match in STRANGER.finditer(path.read_text(encoding="utf-8"))]
    assert told == []
    assert STRANGER.search("pip install 'convkit" + "[cli]'")


@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_names_the_installed_distribution(message: str, renamed: Path) -> None:
    absent, code, extras = MESSAGES[message]
    block = f"import importlib.util as u, sys; sys.modules[{absent!r}] = None\n"
    # `find_spec` raises for a module that is None, where an absent one gives None.
    block += f"find = u.find_spec; u.find_spec = lambda name, *a: None if name == {absent!r} else find(name, *a)\n"
    path = os.pathsep.join([str(renamed), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", block + code],
        cwd=renamed, env={**os.environ, "PYTHONPATH": path, "CONVKIT_DB": ":memory:"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"pip install 'convkit-elsewhere[{extras}]'" in done.stdout + done.stderr


def test_name_and_version_come_from_the_metadata(renamed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(renamed)
    assert distribution.name() == "convkit-elsewhere"
    assert machine.versions()["convkit"] == "7.5"


def test_without_metadata_the_name_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Callable[..., tuple[()]] = lambda **_: ()  # noqa: E731
    monkeypatch.setattr("importlib.metadata.entry_points", nothing)
    assert distribution.name() == "convkit-cpu"

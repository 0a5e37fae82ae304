"""``convkit demo --torch``, and the benchmark of whole models with its page."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def test_without_pytorch_the_demo_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("typer", reason="the command line needs typer")
    from convkit.commands.failing import CommandError
    from convkit.commands.torch_demo import unet_demo

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CommandError, match=r"the demo's model is PyTorch's: pip install '.*\[torch\]'"):
        unet_demo(None, 1, 0.0, False)


def test_the_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer", reason="the command line needs typer")
    pytest.importorskip("matplotlib", reason="the demo's photograph is matplotlib's")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from convkit.commands import torch_demo
    from convkit.torch import networks

    narrow = networks.make("unet", narrow=True)
    monkeypatch.setattr(networks, "make", lambda name: narrow)
    monkeypatch.setattr(torch_demo, "_SIZE", 32)
    monkeypatch.setattr(torch_demo, "_SECONDS", 0.0)
    before = torch.get_num_threads()
    try:
        torch_demo.unet_demo(None, 1, 0.0, False)
        assert "as fast" in capsys.readouterr().out
        torch_demo.unet_demo(None, 1, 1.0, True)
        told = json.loads(capsys.readouterr().out)
    finally:
        torch.set_num_threads(before)
    assert set(told["seconds"]) == {"PyTorch", "PyTorch, channels last", "convkit"}
    assert max(told["errors"].values()) < 1e-4


@pytest.fixture
def bench() -> Any:
    """The script bench/torch_models.py as a module."""
    path = ROOT / "bench" / "torch_models.py"
    if not path.exists():
        pytest.skip("a source distribution has no bench/")
    pytest.importorskip("torch", reason="PyTorch is not installed")
    specification = importlib.util.spec_from_file_location("torch_models", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_is_what_is_stored(bench: Any) -> None:
    page = bench.PAGE.read_text(encoding="utf-8")
    folders = sorted(path.parent for path in bench.RESULTS.glob(f"*/{bench.STORED}"))
    assert bench.rewritten(page, folders) == page


def test_rows_are_measured_stored_and_drawn(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the picture is matplotlib's")
    from convkit.torch import networks

    def narrow(name: str, make: Any = networks.make) -> Any:
        return make(name, narrow=True)

    monkeypatch.setattr(networks, "make", narrow)
    monkeypatch.setattr(bench, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "PAGE", tmp_path / "docs" / "torch.md")
    bench.PAGE.parent.mkdir()
    bench.PAGE.write_text("before\n<!-- by bench/torch_models.py -->\n<!-- until here -->\nafter\n")
    for only in ("unet,vgg16", "unet"):
        options = ["--only", only, "--threads", "1", "--against", "eager,channels_last", "--rounds", "1"]
        monkeypatch.setattr(sys, "argv", ["torch_models.py", *options])
        bench.main()
    (stored,) = tmp_path.glob("*/torch-models.json")
    rows = json.loads(stored.read_text())["rows"]
    assert [row["network"] for row in rows] == ["vgg16", "unet"]
    assert all(row["errors"]["convkit"] < 1e-4 and row["ratio"] > 0 for row in rows)
    told = bench.PAGE.read_text()
    assert told.startswith("before\n")
    assert told.endswith("\nafter\n")
    assert "| U-Net @32 | 1 | " in told
    assert len(list(tmp_path.glob("docs/results/*/torch-models.png"))) == 1


def test_bad_options_are_refused(bench: Any) -> None:
    for options in (["--only", "resnet9"], ["--against", "paper"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / "bench" / "torch_models.py"), *options],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 2
        assert "takes" in done.stderr

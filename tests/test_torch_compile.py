"""``torch.compile(model, backend="convkit")``: graphs that are rewritten, and what they compute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from torch_calls import close, no_races  # noqa: E402, F401

import convkit.torch  # noqa: E402
from convkit.torch import compiling, networks  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own
EAGER = {"inner": "eager"}


@pytest.fixture(autouse=True)
def _anew() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The code of the graphs that were rewritten in a test."""
    found: list[str] = []
    before = compiling.rewrite_graph

    def rewrite(graph: Any, fuse: bool = True) -> int:
        count = before(graph, fuse)
        found.append(graph.code)
        return count

    monkeypatch.setattr(compiling, "rewrite_graph", rewrite)
    return found


def recipes(graphs: list[str]) -> list[str]:
    """Of each convolution in the graphs what follows it, sorted."""
    texts = [
        line.partition(" then ")[2].split("'")[0] for code in graphs for line in code.splitlines() if "convkit" in line
    ]
    return sorted(" ".join(word.partition("=")[0] for word in text.split()) for text in texts)


FUSED_IN = {
    "vgg16": ["relu"] * 13,
    "resnet18": ["norm"] + ["norm add relu"] * 3 + ["norm relu"] * 4,
    "mobilenet_v2": ["norm"] * 3 + ["norm add"] * 3 + ["norm clip"] * 13,
    "yolov8n": [""] * 6 + ["norm silu"] * 51 + ["norm silu add"] * 6,
    "esrgan": ["", "", *["add"], *["leaky_relu"] * 15, *["scale add"] * 2, "scale add scale"],
    "unet": [""] * 5 + ["norm relu"] * 18,
}


@pytest.mark.parametrize("name", FUSED_IN)
def test_networks_are_fused(name: str, graphs: list[str]) -> None:
    model, x = networks.make(name, narrow=True)
    made = torch.compile(model, backend=convkit.torch.backend, options=EAGER)
    with torch.no_grad():
        for image in (x, x * 2, x.to(memory_format=torch.channels_last)):
            close(made(image), model(image), 1e-5, strides=False)
    assert recipes(graphs[:1]) == FUSED_IN[name]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", ["resnet18", "unet"])
def test_inductor_compiles_the_rest(name: str, last: bool) -> None:
    model, x = networks.make(name, narrow=True)
    if last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    made = torch.compile(model, backend=convkit.torch.backend)
    with torch.no_grad():
        for _ in range(2):
            close(made(x), model(x), 1e-5, strides=False)
        for p in model.parameters():
            p.mul_(1.1)
        close(made(x), model(x), 1e-5, strides=False)


def test_training_has_gradients() -> None:
    model, x = networks.make("esrgan", narrow=True)
    model = model.double()
    made = torch.compile(model, backend=convkit.torch.backend)
    found, wanted = (torch.autograd.grad(m(x.double()).square().sum(), list(model.parameters())) for m in (made, model))
    for a, b in zip(found, wanted, strict=True):
        close(a, b, 1e-9, strides=False)


class Odd(nn.Module):
    """Convolutions that are not to be touched, or not fused."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        y = self.conv(x) + x.mean((2, 3), keepdim=True)  # a summand that is broadcast
        z = self.conv(x[0])  # no batch
        kept = self.conv(y)
        w = F.conv2d(F.pad(x, (1, 0, 0, 1)), self.conv.weight, stride=x.shape[0], padding="valid")
        half = F.conv2d(x.bfloat16(), self.conv.weight.bfloat16()).float()
        return [y + z, self.norm(kept) + kept, w, half]


def test_what_is_not_fused(graphs: list[str]) -> None:
    model, x = Odd().eval(), torch.randn(1, 4, 6, 5)
    made = torch.compile(model, backend=convkit.torch.backend, options=EAGER)
    with torch.no_grad():
        for a, b in zip(made(x), model(x), strict=True):
            close(a, b, 1e-5)
    assert recipes(graphs) == ["", "", ""]
    assert "padding=0,1,1,0" in "".join(graphs)


def test_sizes_that_change() -> None:
    model, _ = networks.make("unet", narrow=True)
    made = torch.compile(model, backend=convkit.torch.backend, dynamic=True)
    with torch.no_grad():
        for size in (32, 48, 64):
            image = torch.randn(2, 3, size, 32)
            close(made(image), model(image), 1e-5, strides=False)


def test_optimized_models_compile() -> None:
    model, x = networks.make("resnet18", narrow=True)
    optimized = convkit.torch.optimize(model, x, verbose=False)
    for inner in ("inductor", convkit.torch.backend):
        torch._dynamo.reset()
        made = torch.compile(optimized, backend=inner, fullgraph=True)
        with torch.no_grad():
            close(made(x), model(x), 1e-5)
            close(made(x), model(x), 1e-5)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="options may be"):
        convkit.torch.backend(None, [], options={"inner": "fast"})


def test_the_name_is_an_entry_point(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    told = (root / "pyproject.toml").read_text(encoding="utf-8")
    section = told.partition('[project.entry-points."torch_dynamo_backends"]\n')[2].partition("\n\n")[0]
    info = tmp_path / "convkit_cpu-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: convkit-cpu\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[torch_dynamo_backends]\n" + section.replace('"', "") + "\n")
    code = """
import warnings
warnings.simplefilter("ignore")
import torch
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
made = torch.compile(model, backend="convkit", options={"inner": "eager"})
with torch.no_grad():
    torch.testing.assert_close(made(torch.ones(1, 3, 6, 6)), model(torch.ones(1, 3, 6, 6)))
import sys
print("convkit.torch" in sys.modules)
"""
    path = os.pathsep.join([str(tmp_path), str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr

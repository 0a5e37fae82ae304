"""What programs do with models: copies, files, traces, exports, workers, threads."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402
from torch_calls import close, no_races  # noqa: E402, F401

import convkit.torch  # noqa: E402
from convkit.torch import networks  # noqa: E402
from convkit.torch.blocks import block_of  # noqa: E402

NAMES = ("resnet18", "mobilenet_v2", "unet", "yolov8n")


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """A network, an optimized copy that was run once, and an image."""
    model, x = networks.make(request.param, narrow=True)
    return model, convkit.torch.optimize(model, x, verbose=False), x


def fused(model: Any) -> int:
    """The number of chains that are fused."""
    blocks = (block_of(module) for module in model.modules())
    return sum(len(block.chains) for block in blocks if block is not None and not block.why)


@torch.no_grad()
def test_copies_and_pickles(case: tuple[Any, Any, Any]) -> None:
    model, made, x = case
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    whole = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), whole):
        assert list(other.state_dict()) == list(model.state_dict())
        for _ in range(2):
            close(other(x), model(x))
        assert fused(other) == fused(made) > 0
        for p in other.parameters():
            p.mul_(0)
    close(made(x), model(x))


@torch.no_grad()
def test_state_dicts_go_both_ways(case: tuple[Any, Any, Any]) -> None:
    model, made, x = case
    file = io.BytesIO()
    torch.save({k: v * 1.25 for k, v in made.state_dict().items()}, file)
    for m in (model, made):
        file.seek(0)
        m.load_state_dict(torch.load(file, weights_only=True))
    close(made(x), model(x))
    close(made(x), model(x))


def test_inference_mode_and_its_tensors(case: tuple[Any, Any, Any]) -> None:
    model, made, x = case
    with torch.inference_mode():
        wanted, copied = model(x), copy.deepcopy(made)
        for m in (made, copied):
            for _ in range(2):
                close(m(x + 0), wanted)
        assert made(x).is_inference()
    close(made(x).detach(), wanted)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_traces(case: tuple[Any, Any, Any]) -> None:
    model, made, x = case
    traced = torch.jit.trace(made, x)
    assert "convkit::fused" in str(traced.inlined_graph)
    for image in (x, torch.randn(2, *x.shape[1:])):
        for _ in range(3):
            close(traced(image), model(image))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    close(torch.jit.load(file)(x), model(x))
    with pytest.raises(TypeError, match="is a ScriptModule"):
        convkit.torch.optimize(traced)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_scripting_is_refused() -> None:
    for model in (nn.Conv2d(3, 4, 3), nn.Sequential(nn.ConvTranspose1d(3, 4, 3), nn.ReLU())):
        with pytest.raises(TypeError, match=r"use torch\.jit\.trace or torch\.export"):
            torch.jit.script(convkit.torch.optimize(model.eval(), verbose=False))


@torch.no_grad()
def test_exports(case: tuple[Any, Any, Any], tmp_path: Path) -> None:
    model, made, x = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own
        program = torch.export.export(made, (x,))
    targets = {str(node.target) for node in program.graph.nodes}
    assert "convkit.fused.default" in targets
    close(program.module()(x), model(x))
    close(program.module()(x), model(x))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    close(torch.export.load(file).module()(x), model(x))


def test_an_export_that_was_never_run() -> None:
    model, x = networks.make("resnet18", narrow=True)
    made = convkit.torch.optimize(model, verbose=False)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(made, (x,))
    assert "convkit.conv.default" in {str(node.target) for node in program.graph.nodes}
    close(program.module()(x), model(x).detach())


def test_fx_takes_optimized_modules() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2)).eval()
    made, x = convkit.torch.optimize(model, torch.zeros(1, 3, 5, 5), verbose=False), torch.randn(1, 3, 6, 6)
    close(torch.fx.symbolic_trace(made)(x), model(x))


class Images(torch.utils.data.Dataset):
    """Images that a model has looked at."""

    def __init__(self, model: Any, images: Any) -> None:
        self.model, self.images = model, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Any:
        with torch.no_grad():
            return self.model(self.images[i][None])[0]


WORKERS = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
import test_torch_programs as programs
from convkit.torch import measuring, networks, optimize
measuring.in_turns = lambda first, second: 1.0
model, x = networks.make("resnet18", narrow=True, batch=6)
made = optimize(model, x, verbose=False)
with torch.no_grad():
    wanted = model(x)
    made(x)
loader = torch.utils.data.DataLoader(programs.Images(made, x), 2, num_workers=2, multiprocessing_context=sys.argv[1])
for _ in range(2):
    found = torch.cat(list(loader))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
print("as it was")
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(start: str, tmp_path: Path) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", WORKERS, start], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "as it was"), done.stderr


def test_threads_share_a_model() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model, x = networks.make("yolov8n", narrow=True)
    made = convkit.torch.optimize(model, verbose=False)

    def call(i: int) -> Any:
        with torch.no_grad():
            return made(x + i)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, range(12)))
    with torch.no_grad():
        for i, y in enumerate(found):
            close(y, model(x + i), 1e-4)

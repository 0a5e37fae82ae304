"""What `optimize` finds out on a sample: memory formats of regions, layers that PyTorch computes faster, memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402
from torch_calls import close  # noqa: E402

import convkit.torch  # noqa: E402
from convkit.torch import measuring, modules, networks, optimizing, packings  # noqa: E402
from convkit.torch.blocks import block_of  # noqa: E402
from convkit.torch.memory import is_channels_last  # noqa: E402

Ratio = Callable[[Any, Any], float]


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ratio], None]:
    """Sets who wins each race, by what the two calls are."""

    def fix(ratio: Ratio) -> None:
        monkeypatch.setattr(measuring, "in_turns", ratio)

    return fix


def formats(model: Any, x: Any) -> list[bool]:
    """Of each convolution whether its input is channels last, in the order of the calls."""
    seen: list[bool] = []
    handles = [
        m.register_forward_pre_hook(lambda _, given: seen.append(is_channels_last(given[0])))
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return seen


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet", "resnet18", "vae", "yolov8n"])
def test_a_model_that_is_faster_channels_last(name: str, races: Callable[[Ratio], None]) -> None:
    races(lambda first, second: 2.0 if "turned" in first.__qualname__ else 0.5)
    model, x = networks.make(name, narrow=True, batch=2)
    made = convkit.torch.optimize(model, x, verbose=False)
    for other in (made, copy.deepcopy(made)):
        assert all(formats(other, x))
        close(other(x), model(x))  # contiguous, as it was
    last = x.to(memory_format=torch.channels_last)
    close(made(last), model(last))
    made.train()
    assert not any(formats(made, x))


@torch.no_grad()
def test_parts_that_are_faster_channels_last(
    races: Callable[[Ratio], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([1.0, 2.0, 1.0, 2.0])
    races(lambda first, second: next(answers) if "turned" in first.__qualname__ else 0.5)
    part = lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())  # noqa: E731
    model, x = nn.Sequential(part(), part(), part()).eval(), torch.randn(1, 4, 6, 6)
    made = convkit.torch.optimize(model, x)
    assert "channels last inside: 0, 2" in capsys.readouterr().out
    assert formats(made, x) == [True, False, True]
    close(made(x), model(x))


def test_models_whose_owner_chose_stay_as_they_are() -> None:
    model, x = networks.make("unet", narrow=True)
    made = convkit.torch.optimize(model.to(memory_format=torch.channels_last), x, verbose=False)
    assert not any(block.last for m in made.modules() if (block := block_of(m)) is not None)


@torch.no_grad()
def test_layers_that_are_slower_are_given_back(
    races: Callable[[Ratio], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_shortest", lambda call: 1.0)

    def ratio(first: Any, second: Any) -> float:
        return 1.2 if "race" in second.__qualname__ else 1.0  # too little for what is fused

    races(ratio)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.MaxPool2d(2)).eval()
    x = torch.randn(1, 3, 9, 9)
    made = convkit.torch.optimize(model, x, accuracy="fast")
    assert [type(m) for m in made[::2]] == [modules.Conv2d, nn.Conv2d]
    assert "1 of 2 convolutions swapped" in (told := capsys.readouterr().out)
    assert "left: 1 slower than PyTorch's on the sample" in told
    assert "_convkit_options" not in vars(made[2])
    close(made(x), model(x))
    races(lambda first, second: 1.7 if "race" in second.__qualname__ else 1.0)
    made = convkit.torch.optimize(model, x, verbose=False)
    assert not any(isinstance(m, tuple(modules.SWAPPED.values())) for m in made.modules())
    close(made(x), model(x))


def test_races_compare_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    clock = 0.0

    def call(name: str, seconds: float) -> Any:
        def run() -> None:
            nonlocal clock
            calls.append(name)
            clock += seconds

        return run

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock)
    assert measuring.in_turns(call("a", 1.0), call("b", 2.0)) == pytest.approx(2.0)
    assert calls == ["a", "b", "b", "a", "a", "b"]  # once for all that comes first, then until it is clear
    calls.clear()
    assert measuring.in_turns(call("a", 1e-3), call("b", 0.9e-3)) == pytest.approx(0.9)
    assert len(calls) == 12


def test_a_sample_may_be_a_tuple_or_a_dictionary() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Any, *, y: Any = 0.0) -> Any:
            return torch.relu(self.conv(x)) + y

    x = torch.randn(1, 3, 4, 4)
    model = Two()
    for sample in (x, (x,), [x], {"x": x, "y": x}):
        made = convkit.torch.optimize(model, sample, verbose=False)
        assert made.training
        close(made.eval()(x).detach(), model(x).detach())
    assert optimizing._run(model, {"x": x}).shape == x.shape


def test_low_memory_keeps_nothing_packed(races: Callable[[Ratio], None]) -> None:
    races(lambda first, second: 1.0)
    model, x = networks.make("resnet18", narrow=True)
    held = {}
    for memory in ("fast", "low"):
        made = convkit.torch.optimize(model, x, memory=memory, verbose=False)
        with torch.no_grad():
            close(made(x), model(x))
        assert sum(len(block.chains) for m in made.modules() if (block := block_of(m)) is not None) == 8
        weights = [m.weight for m in made.modules() if isinstance(m, tuple(modules.SWAPPED.values()))]
        layers = [p.layer for w in weights for p in packings._weights[id(w)].packings.values()]
        assert len(layers) == len(weights) == 8
        own = [layer.nbytes - layer.packed_nbytes for layer in layers]
        assert all(n < w.nbytes for n, w in zip(own, weights, strict=True))  # weights are borrowed
        held[memory] = sum(layer.packed_nbytes for layer in layers)
    assert held["fast"] > 0
    assert held["low"] == 0


@torch.no_grad()
def test_short_layers_are_not_given_back(races: Callable[[Ratio], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_shortest", lambda call: 1e-6)
    races(lambda first, second: 9.0 if "race" in second.__qualname__ else 1.0)
    made = convkit.torch.optimize(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.randn(1, 3, 9, 9), verbose=False)
    assert type(made[0]) is modules.Conv2d

"""`convkit.torch.optimize`: what is swapped, fused and left, against the models as their authors wrote them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from torch_calls import close, no_races  # noqa: E402, F401

import convkit.torch  # noqa: E402
from convkit.torch import modules, networks, ops  # noqa: E402
from convkit.torch.blocks import block_of  # noqa: E402


def optimized(model: Any, *sample: Any, **keywords: Any) -> Any:
    """An optimized copy that told nothing."""
    return convkit.torch.optimize(model, sample or None, verbose=False, **keywords)


def chains(model: Any) -> list[str]:
    """What is fused in a model, sorted."""
    blocks = [block_of(module) for module in model.modules()]
    return sorted(chain for block in blocks if block is not None and not block.why for chain in block.chains)


def fused_calls(model: Any, *given: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many fused convolutions a call of a model runs, block by block."""
    from convkit.torch import fused_modules, straight

    count = 0

    def counted(*operands: Any) -> Any:
        nonlocal count
        count += 1
        return ops.FUSED(*operands)

    with monkeypatch.context() as patch:
        patch.setattr(fused_modules, "FUSED", counted)
        patch.setattr(straight, "is_plain", lambda _: False)
        model(*given)
    return count


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_networks_compute_what_they_did(name: str, last: bool) -> None:
    model, x = networks.make(name, narrow=True, batch=2)
    if last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    made = optimized(model, x)
    exact = copy.deepcopy(model).double()
    with torch.inference_mode():
        wanted, largest = model(x), exact(x.double())
        for _ in range(2):  # block by block, if the sample is not enough, and as a whole
            found = made(x)
            close(found.double(), largest, 1e-5, strides=False)
            assert found.stride() == wanted.stride()
        assert block_of(made)._codes._codes
        close(made(x[:1].contiguous()).double(), largest[:1], 1e-5, strides=False)
    assert [n for n, _ in made.named_modules()] == [n for n, _ in model.named_modules()]
    assert list(made.state_dict()) == list(model.state_dict())
    assert all(isinstance(m, type(o)) for m, o in zip(made.modules(), model.modules(), strict=True))


FUSED_IN = {
    "vgg16": {"conv+relu"},
    "resnet50": {"conv+norm+relu", "conv+norm+add+relu", "conv+norm"},
    "esrgan": {"conv+leaky_relu", "conv+scale+add", "conv+add"},
    "mobilenet_v2": {"conv+norm+relu6", "conv+norm", "conv+norm+add"},
    "efficientnet_b0": {"conv+norm+silu", "conv+norm", "conv+norm+add", "conv+silu", "conv+sigmoid"},
    "yolov8n": {"conv+norm+silu", "conv+norm+silu+add"},
    "convnext_t": set(),
}


@pytest.mark.parametrize("name", FUSED_IN)
def test_what_is_fused_in_networks(name: str) -> None:
    model, x = networks.make(name, narrow=True)
    assert set(chains(optimized(model, x))) == FUSED_IN[name]


class Block(nn.Module):
    """A convolution and a norm, with something around them."""

    def __init__(self, around: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.conv, self.norm, self.around = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), around
        self.act, self.out = nn.Hardswish(inplace=True), nn.Conv2d(4, 4, 1)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x: Any) -> Any:
        return self.around(self, x)


WRITTEN: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "functions": (lambda m, x: F.relu(m.norm(m.conv(x)), inplace=True), ["conv+norm+relu"]),
    "methods": (lambda m, x: m.conv(x).add_(x).clamp_(min=0.0, max=1.0), ["conv+add+clip"]),
    "a module's activation": (lambda m, x: m.act(m.norm(m.conv(x))), ["conv+norm+hardswish"]),
    "residual first": (lambda m, x: torch.add(x, m.conv(x)).tanh(), ["conv+add+tanh"]),
    "swish by hand": (lambda m, x: (lambda y: y * torch.sigmoid(y))(m.norm(m.conv(x))), ["conv+norm+silu"]),
    "leaky": (lambda m, x: F.leaky_relu(m.conv(x), 0.1), ["conv+leaky_relu"]),
    "gelu": (lambda m, x: F.gelu(m.conv(x), approximate="tanh"), ["conv+gelu_tanh"]),
    "norm last": (lambda m, x: m.norm(F.relu6(m.conv(x))), ["conv+relu6+norm"]),
    "scaled": (lambda m, x: 0.5 * m.conv(x) + x, ["conv+scale+add"]),
    "padded": (lambda m, x: F.hardtanh(m.conv(F.pad(x, (1, 0, 2, 1)))), ["pad+conv+clip"]),
    "two convolutions": (lambda m, x: m.out(F.relu(m.conv(x))), ["conv+relu"]),
    "used twice": (lambda m, x: (lambda y: F.relu(y) + y)(m.conv(x)), []),
    "padded with something": (lambda m, x: m.conv(F.pad(x, (1, 1, 1, 1), value=2.0)), []),
    "cropped": (lambda m, x: m.conv(F.pad(x, (-1, 0, 0, 0))), []),
    "the other summand changes": (lambda m, x: (lambda y, z: y.add_(z) + y)(x * 1, m.conv(x)), []),
    "the input changes": (lambda m, x: (lambda v: m.conv(v) + v.mul_(2.0))(x * 1), []),
    "no number": (lambda m, x: m.conv(x) * x, []),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_ways_to_write_a_block(written: str) -> None:
    around, wanted = WRITTEN[written]
    model, x = Block(around).eval(), torch.randn(2, 4, 6, 7)
    made = optimized(model, x)
    assert chains(made) == wanted
    with torch.no_grad():
        close(made(x), model(x))
        close(made(x[:1, :, :5]), model(x[:1, :, :5]))
    if written == "the input changes":
        return  # autograd refuses that, whoever convolves
    found, expected = (torch.autograd.grad(m(x).square().sum(), list(m.conv.parameters())) for m in (made, model))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


class Chameleon(nn.Module):
    """A forward that torch.fx reads wrongly: a proxy is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Any) -> Any:
        return F.relu(self.conv(x)) if isinstance(x, torch.Tensor) else F.relu(-self.conv(x))


class Counting(nn.Module):
    """A forward that changes its own attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.calls, self.seen = nn.Conv2d(3, 3, 1), 0, [None]

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.seen.append(None)
        return F.relu(self.conv(x))


class Noisy(nn.Module):
    """A forward that draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Any, scale: float = 0.0) -> Any:
        return F.relu(self.conv(x)) + torch.rand_like(x) + scale


def test_forwards_that_are_read_wrongly_stay() -> None:
    x = torch.randn(1, 3, 5, 5)
    for model in (Chameleon().eval(), Counting().eval()):
        made = optimized(model, x)
        assert chains(made) == []
        with torch.no_grad():
            close(made(x), model(x))
    made = optimized(Counting())
    assert (made.calls, made.seen) == (0, [None])
    made(x)
    assert (made.calls, len(made.seen)) == (1, 2)


def test_random_numbers_are_those_of_the_model() -> None:
    model, x = Noisy().eval(), torch.randn(1, 3, 5, 5)
    made = optimized(model)
    assert chains(made) == ["conv+relu+add"]
    with torch.no_grad():
        for _ in range(3):
            torch.manual_seed(5)
            wanted, after = model(x), torch.rand(1)
            torch.manual_seed(5)
            close(made(x), wanted)
            assert torch.equal(torch.rand(1), after)
        torch.manual_seed(5)
        close(made(x, 2.0), wanted + 2.0)


def test_hooks_see_what_they_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = networks.make("resnet18", narrow=True)
    made = optimized(model, x)
    with torch.no_grad():
        most = fused_calls(made, x, monkeypatch=monkeypatch)
        for name in ("conv1", "bn1", "layers.1.0.bn2", "layers.1.0.relu", "layers.1.0", "layers.1.0.conv1"):
            seen: list[Any] = []
            handles = [
                m.get_submodule(name).register_forward_hook(lambda _, __, y, seen=seen: seen.append(y.clone()))
                for m in (model, made)
            ]
            model(x)
            count = fused_calls(made, x, monkeypatch=monkeypatch)
            assert count < most or name == "layers.1.0"
            assert len(seen) >= 2
            assert len(seen) % 2 == 0
            for wanted, found in zip(seen[: len(seen) // 2], seen[len(seen) // 2 :], strict=True):
                close(found, wanted)
            for handle in handles:
                handle.remove()
        assert fused_calls(made, x, monkeypatch=monkeypatch) == most


def test_a_hook_on_what_is_read_into_another_block(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = networks.make("mobilenet_v2", narrow=True)
    made, seen = optimized(model, x), []
    inner = next(m for m in made.modules() if getattr(m, "use_res_connect", False)).conv
    inner.register_forward_hook(lambda _, __, y: seen.append(y))
    with torch.no_grad():
        close(made(x), model(x))
    assert len(seen) == 1


def test_hooks_may_change_values() -> None:
    model, x = Block(WRITTEN["functions"][0]).eval(), torch.randn(1, 4, 5, 5)
    made = optimized(model, x)
    for m in (model, made):
        m.norm.register_forward_hook(lambda _, __, y: y + 1)
        m.conv.register_forward_pre_hook(lambda _, given: (given[0] * 2,))
    with torch.no_grad():
        close(made(x), model(x))


def test_only_exact_classes_are_swapped(capsys: pytest.CaptureFixture[str]) -> None:
    class Own(nn.Conv2d):
        def forward(self, input: Any) -> Any:
            return super().forward(input) + 1

    spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 3))
    model = nn.ModuleDict(
        {
            "plain": nn.Conv2d(3, 3, 3), "own": Own(3, 3, 3), "spectral": spectral, "lazy": nn.LazyConv2d(3, 3),
            "brain": nn.Conv2d(3, 3, 3).bfloat16(), "solid": nn.Conv3d(3, 3, 3),
            "nowhere": nn.Conv2d(3, 3, 3, device="meta"),
            "said": nn.Conv2d(3, 3, 3), "long": nn.ConvTranspose1d(3, 3, 3).double(),
        }
    )  # fmt: skip
    made = convkit.torch.optimize(model, filter_fn=lambda module, name: name != "said")
    swapped = {name for name, m in made.items() if type(m) in modules.SWAPPED.values()}
    assert swapped == {"plain", "long"}
    told = capsys.readouterr().out
    reasons = ("subclass, Own", "subclass, ParametrizedConv2d", "lazy", "bfloat16", "three dim", "on meta", "filter_fn")
    for words in ("2 of 9", *reasons):
        assert words in told
    assert not any(type(m) in modules.SWAPPED.values() for m in model.values())
    assert convkit.torch.optimize(model, inplace=True, verbose=False) is model


def test_old_weight_norm_stays() -> None:
    with pytest.warns(FutureWarning):
        convolution = nn.utils.weight_norm(nn.Conv2d(3, 3, 3))
    model = nn.Sequential(convolution, nn.ReLU()).eval()
    made = optimized(model, inplace=True)
    assert type(made[0]) is nn.Conv2d


def test_what_cannot_be_optimized_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not function"):
        convkit.torch.optimize(lambda x: x)
    for sample in (np.zeros((1, 3, 9, 9), np.float32), "image"):
        refusal = f"sample_input must be a tensor, or a tuple or dict of them, not {type(sample).__name__}"
        with pytest.raises(TypeError, match=refusal):
            convkit.torch.optimize(nn.Conv2d(3, 3, 3), sample)
    with pytest.raises(TypeError, match=r"filter_fn must be callable as filter_fn\(module, name\), not str"):
        convkit.torch.optimize(nn.Conv2d(3, 3, 3), filter_fn="layer1")
    with pytest.raises(ValueError, match="memory must be one of fast, low, got 'tiny'"):
        convkit.torch.optimize(nn.Conv2d(3, 3, 3), memory="tiny")
    with pytest.raises(ValueError, match="accuracy"):
        convkit.torch.optimize(nn.Conv2d(3, 3, 3), accuracy="sloppy")


def test_it_says_that_training_mode_fuses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    waits = "in training mode: 1 of 1 blocks, not fused before model.eval()"
    convkit.torch.optimize(model, {"input": torch.zeros(1, 3, 9, 9)})
    told = capsys.readouterr().out
    assert "1 chain can be fused in 1 block" in told
    assert waits in told
    convkit.torch.optimize(model.eval(), (torch.zeros(1, 3, 9, 9),))
    told = capsys.readouterr().out
    assert "1 chain fused in 1 block" in told
    assert waits not in told


def test_accuracy_reaches_the_kernels() -> None:
    made = optimized(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), torch.zeros(1, 3, 9, 9), accuracy="strict")
    assert "accuracy=strict" in modules.text_of(made[0])
    exact = copy.deepcopy(made).double()
    x = torch.randn(1, 3, 9, 9)
    close(made(x).double(), exact(x.double()), 1e-6)


def test_shapes_without_a_batch_and_signals() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3, padding="same"), nn.ReLU(), nn.ConvTranspose1d(6, 4, 4, 2)).eval()
    made = optimized(model)
    for x in (torch.randn(2, 4, 9), torch.randn(4, 9), torch.randn(0, 4, 9)):
        for _ in range(2):
            with torch.no_grad():
                close(made(x), model(x))
    up = nn.ConvTranspose2d(3, 2, 3, 2)
    x = torch.randn(1, 3, 4, 4)
    close(optimized(up)(x, output_size=(10, 9)), up(x, output_size=(10, 9)))
    for mode in ("reflect", "circular"):
        padded = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1, padding_mode=mode), nn.ReLU()).eval()
        close(optimized(padded)(x), padded(x))


def test_a_second_time_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model, x = networks.make("resnet18", narrow=True)
    made = optimized(model, x)
    again = convkit.torch.optimize(made, x)
    assert "8 of 8 convolutions" in capsys.readouterr().out
    with torch.no_grad():
        close(again(x), made(x))

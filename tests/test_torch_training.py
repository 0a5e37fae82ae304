"""Training with optimized models: gradients, modes, changing weights, and all that a training loop may do."""

from __future__ import annotations

import gc
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_calls import close, no_races  # noqa: E402, F401

import convkit.torch  # noqa: E402
from convkit.torch import networks, packings  # noqa: E402


def pair(name: str) -> tuple[Any, Any, Any]:
    """A narrow network, an optimized copy, and images."""
    model, x = networks.make(name, narrow=True, batch=4)
    return model, convkit.torch.optimize(model, x, verbose=False), x


def gradients(model: Any, loss: Any) -> list[Any]:
    """Gradients of all parameters; those of before are gone."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def agree(found: list[Any], wanted: list[Any], tolerance: float = 1e-4) -> None:
    """Assert that gradients are the same."""
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        close(a, b, tolerance, strides=False)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", ["vgg16", "unet", "esrgan", "yolov8n", "convnext_t", "deeplab"])
def test_gradients(name: str, mode: str) -> None:
    model, made, x = pair(name)
    model, made, x = model.double(), made.double(), x.double()  # without the kinks of rounding
    getattr(model, mode)(), getattr(made, mode)()
    agree(*(gradients(m, m(x).square().sum()) for m in (made, model)), tolerance=1e-9)


def test_gradients_of_the_input_in_inference() -> None:
    model, made, x = pair("vgg16")
    for m in (model, made):
        m.requires_grad_(False)
    found, wanted = (torch.autograd.grad(m(i := x.clone().requires_grad_()).sum(), i)[0] for m in (made, model))
    close(found, wanted, 1e-4)


def test_steps_of_an_optimizer_and_inference_between() -> None:
    model, made, x = pair("resnet18")
    losses: list[list[float]] = [[], []]
    for m, told in zip((model, made), losses, strict=True):
        optimizer = torch.optim.SGD(m.parameters(), 1e-3, momentum=0.9, foreach=True)
        for _ in range(3):
            m.train()
            optimizer.zero_grad()
            loss = m(x).square().mean()
            loss.backward()
            optimizer.step()
            m.eval()
            with torch.no_grad():
                told += [loss.item(), m(x).square().mean().item(), m(x).square().mean().item()]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_statistics_that_moved_are_seen() -> None:
    model, made, x = pair("vgg11_bn")
    for _ in range(2):
        for m in (model, made):
            m.train()(x)
            m.eval()
        with torch.no_grad():
            close(made(x), model(x), 1e-4)
            close(made(x), model(x), 1e-4)


@torch.no_grad()
def test_ways_to_change_weights() -> None:
    model, made, x = pair("vgg11_bn")

    def check() -> None:
        for _ in range(2):
            close(made(x), model(x), 1e-5)

    other, _ = networks.make("vgg11_bn", narrow=True)
    for p in other.parameters():
        p.mul_(1.5)
    for change in (
        lambda m: m[0].weight.mul_(2),
        lambda m: m[1].running_var.add_(1),
        lambda m: m.load_state_dict(other.state_dict()),
        lambda m: m.load_state_dict({k: v * 0.9 for k, v in other.state_dict().items()}, assign=True),
        lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight * 0.5)),
        lambda m: setattr(m[0].weight, "data", m[0].weight.data * 3),
        lambda m: m[0].weight.data.mul_(0.5),
        lambda m: m[1].weight.data.copy_(m[1].weight.data * 2),
        lambda m: m.float(),
    ):
        for m in (model, made):
            change(m)
        check()
    for m in (model, made):  # too little to be seen
        m[0].weight.data[0, 1, 1, 1] += 5
    convkit.torch.refresh(made)
    check()


def test_what_is_packed_dies_with_the_model() -> None:
    gc.collect()
    before = len(packings._weights)
    _, made, x = pair("resnet18")
    made.train()(x).sum().backward()
    assert len(packings._weights) > before
    del made
    gc.collect()
    assert len(packings._weights) == before
    convkit.torch.refresh()
    assert not packings._weights


class Shared(nn.Module):
    """One convolution used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        for _ in range(3):
            x = F.silu(self.conv(x))
        return x


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_shared_modules_checkpoints_and_kept_graphs(mode: str) -> None:
    model, x = Shared().double(), torch.randn(2, 4, 7, 7, dtype=torch.float64, requires_grad=True)
    made = convkit.torch.optimize(model, verbose=False)
    getattr(model, mode)(), getattr(made, mode)()
    wanted = gradients(model, model(x).square().sum())
    for _ in range(2):
        agree(gradients(made, made(x).square().sum()), wanted, 1e-9)
    agree(gradients(made, checkpoint(made, x, use_reentrant=False).square().sum()), wanted, 1e-9)
    loss = made(x).square().sum()
    loss.backward(retain_graph=True)
    agree(gradients_of_second(made, loss), wanted, 1e-9)
    first, second = made(x).square().sum(), made(x).square().sum()  # two passes pending, last in first out and back
    agree(gradients(made, second), wanted, 1e-9)
    agree(gradients(made, first), wanted, 1e-9)


def gradients_of_second(model: Any, loss: Any) -> list[Any]:
    """Gradients of a second pass through a graph that was kept."""
    return gradients(model, loss)


def test_gradients_of_gradients() -> None:
    model, x = Shared().double().eval(), torch.randn(1, 4, 5, 5, dtype=torch.float64)
    made = convkit.torch.optimize(model, verbose=False)
    found, wanted = [], []
    for m, told in ((model, wanted), (made, found)):
        i = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(m(i).sum(), i, create_graph=True)
        told += torch.autograd.grad(slope.square().sum(), [i, *m.parameters()])
    agree(found, wanted, 1e-9)


def test_changing_a_weight_before_backward_is_an_error() -> None:
    made, x = convkit.torch.optimize(Shared(), verbose=False), torch.randn(1, 4, 5, 5)
    loss = made(x).sum()
    with torch.no_grad():
        made.conv.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_autocast_and_half_go_to_pytorch() -> None:
    model, made, x = pair("resnet18")
    for mode in ("train", "eval"):
        getattr(model, mode)(), getattr(made, mode)()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, wanted = made(x), model(x)
        assert found.dtype == wanted.dtype
        close(found.float(), wanted.float(), 0.05)
    model, made, x = model.bfloat16(), made.bfloat16(), x.bfloat16()
    with torch.no_grad():
        close(made(x).float(), model(x).float(), 0.05)


def test_weights_that_are_computed() -> None:
    model, x = Shared().eval(), torch.randn(2, 4, 6, 6)
    made = convkit.torch.optimize(model, x, verbose=False)
    for m in (model, made):
        nn.utils.parametrize.register_parametrization(m.conv, "weight", nn.Softplus())
    agree(*(gradients(m, m(x).square().sum()) for m in (made, model)))
    with torch.no_grad():
        close(made(x), model(x))
    for m in (model, made):
        nn.utils.parametrize.remove_parametrizations(m.conv, "weight")
    with torch.no_grad():
        close(made(x), model(x))
    from torch.nn.utils import prune

    pruned = convkit.torch.optimize(model, verbose=False)
    for m in (model, pruned):
        torch.manual_seed(0)
        prune.random_unstructured(m.conv, "weight", 0.5)
    agree(*(gradients(m, m(x).square().sum()) for m in (pruned, model)))


def test_functional_calls_and_per_sample_gradients() -> None:
    model, made, x = pair("esrgan")
    x = x[:2, :, :6, :6]

    def loss(m: Any, parameters: Any, image: Any) -> Any:
        return torch.func.functional_call(m, parameters, (image[None],)).square().sum()

    found, wanted = (
        torch.vmap(torch.func.grad(lambda p, i, m=m: loss(m, p, i)), (None, 0))(dict(m.named_parameters()), x)
        for m in (made, model)
    )
    agree(list(found.values()), list(wanted.values()))

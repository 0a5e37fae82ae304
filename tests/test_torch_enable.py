"""`convkit.torch.enable` and `enabled`: PyTorch's own calls, computed by convkit, and only where that is asked for."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F  # noqa: E402, N812
from torch_calls import OPS, close, no_races  # noqa: E402, F401

from convkit.torch import disable, enable, enabled, enabling, networks  # noqa: E402


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What convkit computed in a test."""
    found: list[str] = []
    for name in ("convolved", "input_gradient", "weight_gradient"):
        own = getattr(enabling, name)
        monkeypatch.setattr(enabling, name, lambda *a, own=own, name=name: (found.append(name), own(*a))[1])
    yield found
    disable()


def tensors(name: str, dtype: Any = torch.float32) -> tuple[Any, Any, Any]:
    """x, w and bias of a small call."""
    dims, _ = OPS[name]
    shapes = ((2, 4, *(7, 6)[:dims]), (4, 4, *(3, 2)[:dims]), (4,))
    return tuple(torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes)  # type: ignore[return-value]


@pytest.mark.parametrize("name", OPS)
def test_calls_and_their_gradients(name: str, counted: list[str]) -> None:
    call, given = getattr(F, name), tensors(name)
    wanted = call(*given, stride=2, padding=1)
    gradients = torch.autograd.grad(wanted.square().sum(), given)
    with enabled():
        found = call(*given, stride=2, padding=1)
        close(found, wanted)
        for a, b in zip(torch.autograd.grad(found.square().sum(), given), gradients, strict=True):
            close(a, b, 1e-5, strides=False)
    assert set(counted) >= {"convolved", "weight_gradient"}
    counted.clear()
    call(*given)
    assert not counted


def test_what_is_included(counted: list[str]) -> None:
    with enabled(["conv1d", "conv_transpose2d"]):
        for name in OPS:
            getattr(F, name)(*tensors(name))
    assert len(counted) == 2
    with enabled(), enabled(()):
        F.conv2d(*tensors("conv2d"))
    assert len(counted) == 2
    with pytest.raises(ValueError, match=r"include must be some of conv1d, .*, got \['conv4d'\]"):
        enable(["conv4d"])
    with pytest.raises(ValueError, match="include must be some of"):
        enable(())


def test_threads_and_the_process(counted: list[str]) -> None:
    def elsewhere() -> None:
        thread = threading.Thread(target=lambda: F.conv2d(*tensors("conv2d")))
        thread.start()
        thread.join()

    with enabled():
        elsewhere()
        assert not counted
    enable()
    enable("conv2d")
    elsewhere()
    assert len(counted) == 1
    with enabled(()):
        F.conv2d(*tensors("conv2d"))
    assert len(counted) == 1
    disable()
    disable()
    F.conv2d(*tensors("conv2d"))
    assert len(counted) == 1
    assert enabling._library is None


def test_what_stays_pytorch_s(counted: list[str]) -> None:
    x, w, _ = tensors("conv2d")
    with enabled():
        assert F.conv2d(x.bfloat16(), w.bfloat16()).dtype is torch.bfloat16
        F.conv3d(torch.randn(1, 2, 4, 4, 4), torch.randn(2, 2, 3, 3, 3))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            F.conv2d(x, w).sum().backward()
        assert F.conv2d(torch.empty(0, 4, 7, 6), w).shape == (0, 4, 5, 5)
        assert not counted
        with pytest.raises(RuntimeError, match="to have 5 channels"):
            F.conv2d(x, torch.randn(4, 5, 3, 3))
        with pytest.raises(RuntimeError, match="expected stride"):
            F.conv2d(x, w, stride=(1, 1, 1))


FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (1, 1, 6, 5), (2, 4, 1, 1), (20, 4, 6, 5), (2, 4, 1, 6)])
def test_strides_are_pytorch_s(shape: tuple[int, ...], dtype: Any, counted: list[str]) -> None:
    for x_format, w_format, (out, kernel) in itertools.product(FORMATS, FORMATS, ((3, 1), (1, 1), (5, 3))):
        if kernel > min(shape[2:]):
            continue
        for name, size in (("conv2d", (out, shape[1])), ("conv_transpose2d", (shape[1], out))):
            x = torch.randn(shape, dtype=dtype).to(memory_format=x_format)
            w = torch.randn(*size, kernel, kernel, dtype=dtype).to(memory_format=w_format)
            wanted = getattr(F, name)(x, w)
            with enabled():
                close(getattr(F, name)(x, w), wanted)
    assert counted


def test_networks(counted: list[str]) -> None:
    for name in ("unet", "mobilenet_v2", "vae"):
        model, x = networks.make(name, narrow=True)
        with torch.inference_mode():
            wanted = model(x)
            with enabled():
                close(model(x), wanted)
        assert counted
        counted.clear()


def test_steps_of_training(counted: list[str]) -> None:
    losses = []
    for names in ((), OPS):
        model, x = networks.make("resnet18", narrow=True, batch=2)
        optimizer = torch.optim.SGD(model.train().parameters(), 1e-3)
        with enabled(names):
            for _ in range(3):
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                optimizer.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert {"convolved", "input_gradient", "weight_gradient"} <= set(counted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_graphs(counted: list[str]) -> None:
    model, x = networks.make("resnet18", narrow=True)
    torch._dynamo.reset()
    made = torch.compile(model, backend="aot_eager")
    with torch.no_grad(), enabled():
        close(made(x), model(x))
    assert counted

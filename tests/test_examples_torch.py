"""The examples' networks against PyTorch: the same weights, batches and masks give the same losses and gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from examples.training import losses, models, optimizers, schedules
from examples.training.layers import Context
from examples.training.network import Network
from examples.training.trainer import Trainer

torch = pytest.importorskip("torch", reason="PyTorch, which the trainer is held against, is not installed")

from examples.training.torch_twin import Twin  # noqa: E402

NETWORKS = [name for name in models.MODELS if name.endswith("cifar")] + [
    "keras-cnn",
    "autoencoder",
    "inception",
    "mobilenet-v2",
]
# Networks with many normalisations and weights that never learned are chaotic: a rounding error may double with each
# step. Where larger steps would show that instead of mistakes, the steps are smaller.
RATES = {"resnet50": 1e-4, "inception": 1e-6, "mobilenet": 3e-5, "densenet": 1e-3, "resnet": 1e-3}


def small(name: str) -> models.Model:
    """The two small networks as they are; the others with an eighth of the channels, on small images."""
    model = models.get(name)
    if name in ("keras-cnn", "autoencoder"):
        return model
    image = {"inception": (3, 80, 80), "inception-v3-cifar": (3, 64, 64), "mobilenet-v2": (3, 64, 64)}
    classes = model.table[-1][-1]
    return replace(model, image=image.get(name, model.image), table=models.narrow(model.table, 8, classes))


def rate_of(name: str) -> float:
    return next((rate for start, rate in RATES.items() if name.startswith(start)), 0.01)


def batch(name: str, model: models.Model, network: Network, rng: np.random.Generator, size: int) -> tuple[Any, Any]:
    dtype = network.context.dtype
    images = rng.standard_normal((size, *model.image)).astype(dtype)
    if name == "autoencoder":
        return images, rng.random((size, *model.image)).astype(dtype)
    return images, rng.integers(0, network.out[0], size)


def torch_loss(y: Any, target: Any) -> Any:
    target = torch.from_numpy(target)
    return torch.nn.functional.cross_entropy(y, target) if target.ndim == 1 else torch.nn.functional.mse_loss(y, target)


def trainer_of(name: str, network: Network, optimizer: Any) -> Trainer:
    loss: Any = losses.mean_squared_error if name == "autoencoder" else losses.softmax_cross_entropy
    return Trainer(network, optimizer, schedules.constant(rate_of(name)), loss)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


BOTH = ("vgg11-cifar", "resnet18-cifar", "googlenet-cifar", "mobilenet-cifar", "keras-cnn", "autoencoder")


@pytest.mark.parametrize(("name", "layout"), [(name, "NHWC") for name in NETWORKS] + [(name, "NCHW") for name in BOTH])
def test_thirty_steps_in_float64(name: str, layout: str) -> None:
    model = small(name)
    network = Network(model.table, model.image, Context(layout, "float64", threads=1))
    twin = Twin(network, same_masks=True)
    rate = rate_of(name)
    trainer = trainer_of(name, network, optimizers.SGD(network, 0.9, 5e-4))
    theirs = torch.optim.SGD(twin.learned.values(), lr=rate, momentum=0.9, weight_decay=5e-4)
    rng = np.random.default_rng(1)
    first = network.values.copy()
    for _ in range(30):
        images, target = batch(name, model, network, rng, 8 if name.startswith("inception") else 4)
        loss, _ = trainer.step(images, target)
        found = torch_loss(twin(torch.from_numpy(images)), target)
        theirs.zero_grad()
        found.backward()
        theirs.step()
        assert loss == pytest.approx(found.item(), abs=1e-9)
    assert np.abs(network.values - first).max() > 1e-7
    np.testing.assert_allclose(network.values, twin.values(), rtol=0, atol=1e-9)


def smooth(table: Any) -> Any:
    """The same network without kinks.

    With ReLU, one activation in a million is so close to zero that rounding decides whether a gradient passes. With
    many normalisations PyTorch's own gradients then differ by percents, contiguous images against channels_last.
    """
    rows = []
    for kind, *rest in table:
        if kind in ("residual", "concatenate"):
            rows.append((kind, *(smooth(part) for part in rest)))
        elif kind in ("relu", "relu6"):
            rows.append(("tanh",))
        elif kind == "pool":
            padding = {k: v for k, v in rest[-1].items() if k != "ceil"} if isinstance(rest[-1], dict) else {}
            rows.append(("average", *(value for value in rest if not isinstance(value, dict)), padding))
        else:
            rows.append((kind, *rest))
    return tuple(rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_in_float32_from_the_same_weights(name: str) -> None:
    model = small(name)
    model = replace(model, table=smooth(model.table))
    network = Network(model.table, model.image, Context("NHWC", "float32", threads=1))
    twin = Twin(network, same_masks=True)
    trainer = trainer_of(name, network, optimizers.SGD(network, 0.9, 5e-4))
    theirs = torch.optim.SGD(twin.learned.values(), lr=rate_of(name), momentum=0.9, weight_decay=5e-4)
    rng = np.random.default_rng(2)
    for _ in range(3):
        network.values[...] = twin.values()
        images, target = batch(name, model, network, rng, 8)
        trainer.step(images, target)
        theirs.zero_grad()
        torch_loss(twin(torch.from_numpy(images)), target).backward()
        difference = np.linalg.norm(network.gradients - twin.gradients()) / np.linalg.norm(twin.gradients())
        assert difference <= 1e-4
        theirs.step()


def test_adam_and_the_image_gradient() -> None:
    model = small("resnet18-cifar")
    network = Network(model.table, model.image, Context("NHWC", "float64", threads=1), input_gradient=True)
    twin = Twin(network, same_masks=True)
    adam = optimizers.Adam(network, decay=1e-3)
    trainer = Trainer(network, adam, schedules.constant(1e-4))
    theirs = torch.optim.Adam(twin.learned.values(), lr=1e-4, weight_decay=1e-3)
    rng = np.random.default_rng(3)
    for _ in range(5):
        images, target = batch("resnet18", model, network, rng, 4)
        trainer.step(images, target)
        x = torch.from_numpy(images).requires_grad_(True)
        theirs.zero_grad()
        torch_loss(twin(x), target).backward()
        theirs.step()
    np.testing.assert_allclose(network.values, twin.values(), rtol=0, atol=1e-9)
    y = network.forward(network.images(images), training=True)
    dx = network.backward(losses.softmax_cross_entropy(y, target, 4)[1]).transpose(0, 3, 1, 2)
    x = torch.from_numpy(images).requires_grad_(True)
    torch_loss(twin(x), target).backward()
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=0, atol=1e-9)


def test_inference_with_running_statistics() -> None:
    model = small("resnet18-cifar")
    network = Network(model.table, model.image, Context("NHWC", "float64", threads=1))
    twin = Twin(network)
    rng = np.random.default_rng(4)
    for _ in range(3):
        images, _ = batch("resnet18", model, network, rng, 4)
        network.forward(network.images(images), training=True)
        twin(torch.from_numpy(images))
    twin.eval()
    with torch.no_grad():
        expected = twin(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(network.forward(network.images(images)), expected, rtol=0, atol=1e-9)

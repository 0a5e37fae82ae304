"""Models of transformers and diffusers, made from their configurations with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402
from torch_calls import close, no_races  # noqa: E402, F401

import convkit.torch  # noqa: E402
from convkit.torch import modules  # noqa: E402
from convkit.torch.blocks import block_of  # noqa: E402

# Their own warnings, of many kinds and versions, are no matter of ours.
pytestmark = pytest.mark.filterwarnings("ignore")


def _resnet() -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    configuration = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], num_labels=5)
    return transformers.ResNetForImageClassification(configuration), {"pixel_values": torch.randn(2, 3, 32, 32)}


def _mobilenet() -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    configuration = transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.25, num_labels=5, tf_padding=False)
    return transformers.MobileNetV2ForImageClassification(configuration), {"pixel_values": torch.randn(2, 3, 32, 32)}


def _autoencoder() -> tuple[Any, Any]:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    return model, (torch.randn(1, 3, 16, 16),)


CASES: dict[str, tuple[Callable[[], tuple[Any, Any]], int]] = {
    "transformers ResNet": (_resnet, 8),
    "transformers MobileNetV2": (_mobilenet, 40),
    "diffusers AutoencoderKL": (_autoencoder, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_models_of_others(name: str) -> None:
    make, fused = CASES[name]
    torch.manual_seed(0)
    model, given = make()
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    made = convkit.torch.optimize(model, given, verbose=False)
    swapped = [m for m in made.modules() if isinstance(m, tuple(modules.SWAPPED.values()))]
    assert len(swapped) == sum(isinstance(m, nn.Conv2d) for m in model.modules()) > 5
    blocks = [block for m in made.modules() if (block := block_of(m)) is not None and not block.why]
    assert sum(len(block.chains) for block in blocks) >= fused

    def call(m: Any) -> Any:
        return (m(**given) if isinstance(given, dict) else m(*given))[0]

    with torch.no_grad():
        for _ in range(2):
            close(call(made), call(model), 1e-4, strides=False)
    found, wanted = (
        torch.autograd.grad(call(m).square().sum(), list(m.parameters()), allow_unused=True)[0] for m in (made, model)
    )
    close(found, wanted, 1e-3, strides=False)

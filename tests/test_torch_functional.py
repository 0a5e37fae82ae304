"""convkit's calls along one and three dimensions beside PyTorch's of the same names and arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import convkit as ck  # noqa: E402


def normal(*shape: int) -> Any:
    return torch.from_numpy(np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("name", "x", "w", "arguments"),
    [
        ("conv1d", (2, 4, 30), (6, 2, 5), {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}),
        ("conv1d", (4, 30), (6, 4, 4), {"padding": "same"}),
        ("conv_transpose1d", (2, 4, 9), (4, 3, 5),
         {"stride": 3, "padding": 2, "output_padding": 1, "groups": 2, "dilation": 2}),
        ("conv3d", (2, 4, 6, 8, 7), (6, 2, 3, 2, 3),
         {"stride": (1, 2, 1), "padding": (2, 0, 1), "dilation": (2, 1, 1), "groups": 2}),
        ("conv3d", (4, 6, 8, 7), (6, 4, 2, 3, 3), {"padding": "same"}),
    ],
)  # fmt: skip
def test_the_same_as_torch(name: str, x: Any, w: Any, arguments: dict[str, Any]) -> None:
    operands = normal(*x), normal(*w)
    outputs = w[1] * arguments["groups"] if "transpose" in name else w[0]
    bias = normal(outputs)
    theirs = getattr(torch.nn.functional, name)(*operands, bias, **arguments)
    ours = getattr(ck, name)(*operands, bias, **arguments)
    assert ours.shape == tuple(theirs.shape)
    assert np.allclose(ours, theirs.numpy(), atol=1e-4)

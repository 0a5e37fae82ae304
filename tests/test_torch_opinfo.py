"""PyTorch's own samples of its convolutions (OpInfo), through convkit's operators and back."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("expecttest", reason="PyTorch's samples need expecttest, which is not installed")
methods = pytest.importorskip(
    "torch.testing._internal.common_methods_invocations", reason="this PyTorch has no samples"
)

from torch_calls import OPS, close, ours  # noqa: E402

SAMPLED = {op.name.rpartition(".")[2]: op for op in methods.op_db if op.name.rpartition(".")[2] in OPS}


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPS)
def test_samples_and_their_gradients(name: str, dtype: Any) -> None:
    op, count = SAMPLED[name], 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        w, *bias = sample.args
        x, bias = sample.input, bias[0] if bias else None
        wanted, found = op(x, w, bias, **sample.kwargs), ours(name, x, w, bias, **sample.kwargs)
        close(found, wanted, strides=False)
        dy = torch.randn_like(wanted)
        learned = [t for t in (x, w, bias) if t is not None]
        pairs = zip(torch.autograd.grad(found, learned, dy), torch.autograd.grad(wanted, learned, dy), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        count += 1
    assert count >= 10


@pytest.mark.parametrize("name", OPS)
def test_what_pytorch_refuses_is_refused(name: str) -> None:
    op = SAMPLED[name]
    for sample in op.sample_inputs("cpu", torch.float32):
        w, *bias = sample.args
        wrong = torch.randn(sample.input.shape[0], 3 + w.shape[1] * 8, *sample.input.shape[2:])
        if wrong.dim() == w.dim():
            with pytest.raises(RuntimeError, match="channels"):
                ours(name, wrong, w, *bias, **sample.kwargs)

"""The registered operators against PyTorch's own: values, gradients of any order, fakes, transforms, memory formats."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F  # noqa: E402, N812
from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402
from torch_calls import close, ours, recipe  # noqa: E402

from convkit.torch import ops, packings  # noqa: E402
from convkit.torch.recipe import Recipe, recipe_of  # noqa: E402

GEOMETRIES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("conv1d", (2, 4, 9), (6, 2, 3), {"stride": 2, "padding": 1, "groups": 2}),
    ("conv2d", (2, 3, 7, 6), (4, 3, 3, 3), {"padding": 1}),
    ("conv2d", (1, 4, 8, 9), (6, 2, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}),
    ("conv2d", (2, 4, 5, 5), (4, 1, 3, 3), {"padding": 1, "groups": 4}),
    ("conv_transpose1d", (2, 4, 5), (4, 3, 3), {"stride": 2, "output_padding": 1, "groups": 2}),
    ("conv_transpose2d", (2, 4, 4, 5), (4, 3, 3, 2), {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 0)}),
]
NAMES = [f"{name}-{i}" for i, (name, *_) in enumerate(GEOMETRIES)]
geometries = pytest.mark.parametrize(("name", "x_shape", "w_shape", "keywords"), GEOMETRIES, ids=NAMES)

# PyTorch 2.14 reads the gradients of all that it checks an operator with.
opchecked = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def operands(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], outputs: int, dtype: Any = torch.float64, grad: bool = True
) -> tuple[Any, Any, Any]:
    """x, w and bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = (x_shape, w_shape, (outputs,))
    x, w, bias = (torch.randn(s, generator=generator, dtype=dtype).requires_grad_(grad) for s in shapes)
    return x, w, bias


def outputs_of(name: str, w_shape: tuple[int, ...], keywords: dict[str, Any]) -> int:
    """Channels of the result."""
    return w_shape[1] * keywords.get("groups", 1) if "transpose" in name else w_shape[0]


@geometries
def test_gradients_of_first_and_second_order(name: str, x_shape: Any, w_shape: Any, keywords: Any) -> None:
    tensors = operands(x_shape, w_shape, outputs_of(name, w_shape, keywords))

    def call(*given: Any) -> Any:
        return ours(name, *given, **keywords)

    assert gradcheck(call, tensors, fast_mode=True)
    assert gradgradcheck(call, tensors, fast_mode=True)


@opchecked
@geometries
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_registration(name: str, x_shape: Any, w_shape: Any, keywords: Any, dtype: Any) -> None:
    x, w, bias = operands(x_shape, w_shape, outputs_of(name, w_shape, keywords), dtype)
    made = recipe(name, w_shape[2:], **keywords)
    torch.library.opcheck(ops.CONV, (x, w, bias, made.text))
    if "transpose" not in name:
        y = ours(name, x, w, bias, **keywords).detach().requires_grad_()
        torch.library.opcheck(ops.CONV_INPUT, (y, w, list(x_shape), made.text))
        torch.library.opcheck(ops.CONV_WEIGHT, (x, y, list(w_shape), made.text))


STEPS = [
    (("norm", (1e-5,)), ("relu", ())),
    (("norm", (1e-3,)), ("add", ()), ("silu", ())),
    (("leaky_relu", (0.2,)), ("scale", (0.5,)), ("add", ())),
    (("clip", (None, 1.0)),),
    (("scale", (0.2,)), ("add", ())),
    (("gelu_tanh", ()),),
    (("gelu", ()), ("norm", (1e-5,)), ("add", ())),
    (("norm", (1e-5,)), ("scale", (0.5,)), ("tanh", ()), ("scale", (2.0,)), ("add", ())),
    (("scale", (3.0,)), ("add", ()), ("scale", (0.5,))),
    (("add", ()), ("relu", ()), ("norm", (1e-5,))),
]


def fused_operands(dtype: Any) -> list[Any]:
    """All that `convkit::fused` takes but the recipe."""
    x, w, bias = operands((1, 4, 4, 5), (4, 4, 3, 3), 4, dtype)
    generator = torch.Generator().manual_seed(1)
    gamma, beta, mean = (torch.randn(4, generator=generator, dtype=dtype) for _ in range(3))
    residual = torch.randn(1, 4, 4, 5, generator=generator, dtype=dtype)
    variance = torch.rand(4, generator=generator, dtype=dtype) + 0.5
    learned = [t.requires_grad_() for t in (gamma, beta, residual)]
    return [x, w, bias, mean, variance, *learned]


@opchecked
@pytest.mark.parametrize("steps", STEPS, ids=lambda s: "-".join(name for name, _ in s))
def test_fused(steps: Any) -> None:
    made = recipe("conv2d", (3, 3), padding=1, steps=steps)
    tensors = fused_operands(torch.float64)
    torch.library.opcheck(ops.FUSED, (*tensors, made.text))
    assert gradcheck(lambda *given: ops.FUSED(*given, made.text), tensors, fast_mode=True)
    assert gradgradcheck(lambda *given: ops.FUSED(*given, made.text), tensors, fast_mode=True)
    single = [t.detach().float() for t in tensors]
    x, w, bias, *rest = single
    wanted = made.after(F.conv2d(x, w, bias, padding=1), rest[:4], rest[4])
    w = torch.nn.Parameter(w)  # packed at first sight
    close(ops.FUSED(x, w, bias, *rest, made.text).detach(), wanted)
    with torch.no_grad():
        close(ops.FUSED(x, w, bias, *rest, made.text), wanted)


@pytest.mark.parametrize("steps", STEPS, ids=lambda s: "-".join(name for name, _ in s))
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_all_steps_are_the_kernel_s(steps: Any, transposed: bool, biased: bool) -> None:
    made = recipe("conv_transpose2d" if transposed else "conv2d", (3, 3), padding=1, groups=2, steps=steps)
    x, _, bias, *rest = (t.detach().float() for t in fused_operands(torch.float64))
    w, bias = torch.nn.Parameter(torch.randn(4, 2, 3, 3)), bias if biased else None
    wanted = made.after(made.in_torch(x, w, bias), rest[:4], rest[4]).detach()
    with torch.no_grad():
        close(ops.FUSED(x, w, bias, *rest, made.text), wanted)
    (packing,) = packings._weights[id(w)].packings.values()
    assert packing.done == len(steps)


def test_a_residual_that_was_passed_twice() -> None:
    made = recipe("conv2d", (3, 3), padding=1, steps=(("add", ()), ("tanh", ())))
    x, w, *_ = fused_operands(torch.float64)
    (found,) = torch.autograd.grad(ops.FUSED(x, w, *[None] * 5, x, made.text).sum(), x)
    (wanted,) = torch.autograd.grad(torch.tanh(F.conv2d(x, w, padding=1) + x).sum(), x)
    close(found, wanted)


def test_a_residual_that_is_broadcast() -> None:
    made = recipe("conv2d", (3, 3), padding=1, steps=(("add", ()), ("relu", ())))
    x, w, *_ = (t.detach() for t in fused_operands(torch.float32))
    residual = torch.ones(1, 4, 1, 1)
    wanted = F.relu(F.conv2d(x, w, padding=1) + residual)
    close(ops.FUSED(x, torch.nn.Parameter(w), *[None] * 5, residual, made.text).detach(), wanted)


LAST, FIRST = torch.channels_last, torch.contiguous_format


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("x_format", [FIRST, LAST])
@pytest.mark.parametrize("w_format", [FIRST, LAST])
@pytest.mark.parametrize(
    ("x_shape", "w_shape"),
    [
        ((2, 4, 6, 5), (6, 4, 3, 3)), ((2, 1, 6, 5), (6, 1, 3, 3)), ((2, 4, 1, 1), (6, 4, 1, 1)),
        ((1, 4, 6, 5), (1, 4, 3, 3)), ((1, 1, 6, 5), (1, 1, 1, 1)), ((2, 4, 3, 3), (6, 4, 3, 3)),
        ((2, 1, 1, 1), (1, 1, 1, 1)), ((0, 4, 6, 5), (6, 4, 3, 3)), ((2, 4, 1, 5), (6, 4, 1, 1)),
    ],
)  # fmt: skip
def test_strides_are_those_of_the_fake_and_of_pytorch(
    x_shape: Any, w_shape: Any, x_format: Any, w_format: Any, dtype: Any
) -> None:
    x = torch.randn(x_shape, dtype=dtype).to(memory_format=x_format)
    w = torch.randn(w_shape, dtype=dtype).to(memory_format=w_format)
    text = recipe("conv2d", w_shape[2:]).text
    with torch._subclasses.FakeTensorMode() as mode:
        fake = ops.CONV(mode.from_tensor(x), mode.from_tensor(w), None, text)
    for weight in (w, torch.nn.Parameter(w)):
        for _ in range(3):
            with torch.no_grad():
                found = ops.CONV(x, weight, None, text)
            assert (found.stride(), found.shape) == (fake.stride(), fake.shape)
    if dtype == torch.float32:
        close(found, F.conv2d(x, w))


@pytest.mark.parametrize("image", [(1, 3, 12, 9), (2, 3, 12, 9)])
def test_images_of_any_strides(image: tuple[int, ...]) -> None:
    whole = torch.randn(image[0], 6, image[2] * 2, image[3] * 2)
    w = torch.nn.Parameter(torch.randn(4, 3, 3, 3), requires_grad=False)
    for x in (whole[:, ::2, ::2, ::2], whole[:, :3, : image[2], : image[3]], whole.permute(0, 1, 3, 2)[:, :3]):
        torch.testing.assert_close(ours("conv2d", x, w), F.conv2d(x, w), rtol=1e-4, atol=1e-4)


def test_what_convkit_does_not_know_is_pytorch_s() -> None:
    x, w = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    half = ours("conv2d", x.bfloat16(), w.bfloat16(), padding=1)
    assert torch.equal(half, F.conv2d(x.bfloat16(), w.bfloat16(), padding=1))
    assert ours("conv2d", x.to("meta"), w.to("meta")).shape == (1, 4, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours("conv2d", x, w), F.conv2d(x, w))
    with pytest.raises(RuntimeError, match="expected input"):
        ours("conv2d", torch.randn(1, 5, 6, 6), w)
    with pytest.raises(ValueError, match=r"recipe is 'stride=2 speed=9', which convkit\.torch did not write"):
        ops.CONV(x, w, None, "stride=2 speed=9")


def test_asymmetric_padding_has_gradients_everywhere() -> None:
    made = Recipe((2, 1), (1, 0, 2, 1), (1, 1))
    tensors = operands((2, 3, 5, 6), (4, 3, 3, 2), 4)
    assert gradcheck(lambda *given: ops.CONV(*given, made.text), tensors, fast_mode=True)
    x, w = tensors[0].detach().bfloat16(), tensors[1].detach().bfloat16()
    y = ops.CONV(x, w, None, made.text)
    assert ops.CONV_INPUT(y, w, x.shape, made.text).shape == x.shape
    assert ops.CONV_WEIGHT(x, y, w.shape, made.text).shape == w.shape


@pytest.mark.filterwarnings("ignore:.torch.jit.")  # PyTorch's own
def test_vmap_and_the_transforms_of_torch_func() -> None:
    x, w, bias = operands((3, 2, 4, 6, 6), (5, 4, 3, 3), 5, grad=False)
    many = torch.randn(3, 5, 4, 3, 3, dtype=torch.float64)

    def call(x: Any, w: Any) -> Any:
        return ours("conv2d", x, w, bias, padding=1)

    torch.testing.assert_close(torch.vmap(call, (0, None))(x, w), torch.stack([call(i, w) for i in x]))
    torch.testing.assert_close(torch.vmap(call)(x, many), torch.stack([call(*i) for i in zip(x, many, strict=True)]))
    torch.testing.assert_close(torch.vmap(call, (None, 0), 1)(x[0], many)[:, 1], call(x[0], many[1]))
    gradient = torch.func.grad(lambda w, x: call(x, w).square().sum())
    wanted = torch.autograd.grad(call(x[0], w.requires_grad_()).square().sum(), w)[0]
    torch.testing.assert_close(torch.vmap(gradient, (None, 0))(w.detach(), x)[0], wanted)
    tangent = torch.randn_like(x[0])
    found = torch.func.jvp(lambda x: call(x, w.detach()), (x[0],), (tangent,))[1]
    torch.testing.assert_close(found, F.conv2d(tangent, w.detach(), padding=1))
    with forward_ad.dual_level():
        dual = ours("conv2d", forward_ad.make_dual(x[0], tangent), w.detach(), padding=1)
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, found)


def test_a_batch_of_vectors_times_the_jacobian() -> None:
    x, w, bias = operands((1, 3, 5, 5), (4, 3, 3, 3), 4)
    y = ours("conv2d", x, w, bias)
    vectors = torch.randn(6, *y.shape, dtype=y.dtype)
    found = torch.autograd.grad(y, (x, w, bias), vectors, is_grads_batched=True)
    wanted = torch.autograd.grad(F.conv2d(x, w, bias), (x, w, bias), vectors, is_grads_batched=True)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_storages_stay_resizable() -> None:
    x, w = torch.randn(1, 3, 6, 6), torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    with torch.no_grad():
        ours("conv2d", x, w)
    x.untyped_storage().resize_(4096)
    w.untyped_storage().resize_(4096)


@torch.no_grad()
def test_changed_weights_are_seen() -> None:
    x, w = torch.randn(1, 3, 8, 8), torch.nn.Parameter(torch.randn(4, 3, 3, 3))

    def check() -> None:
        for _ in range(3):
            close(ours("conv2d", x, w), F.conv2d(x, w))

    check()
    w.mul_(2)
    check()
    w.data = torch.randn(4, 3, 3, 3)
    check()
    w.data.add_(1)  # moves no version
    check()
    w.detach().numpy()[:] *= 3
    check()
    with torch.inference_mode():
        w = torch.randn(4, 3, 3, 3)
        check()


def test_packings_die_with_their_weights() -> None:
    before = len(packings._weights)
    w = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    with torch.no_grad():
        ours("conv2d", torch.randn(1, 3, 8, 8), w)
    assert len(packings._weights) == before + 1
    assert packings._weights[id(w)].packings
    packings.forget([w])
    assert id(w) not in packings._weights
    with torch.no_grad():
        ours("conv2d", torch.randn(1, 3, 8, 8), w)
    del w
    assert len(packings._weights) == before


@torch.no_grad()
def test_a_thousand_sizes_leave_a_layer_as_it_is() -> None:
    w = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    for h in range(3, 43):
        for width in range(3, 28):
            ours("conv2d", torch.zeros(1, 3, h, width), w)
    (packing,) = packings._weights[id(w)].packings.values()
    assert len(packing.sizes) <= packings._MOST_SIZES


def test_threads_are_pytorch_s() -> None:
    w = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                ours("conv2d", torch.randn(1, 3, 8, 8), w)
        layers = [packing.layer for packing in packings._weights[id(w)].packings.values()]
        assert [copy.deepcopy(layer).__getnewargs_ex__()[1]["num_threads"] for layer in layers] == [1, 2]
    finally:
        torch.set_num_threads(before)


def test_texts_are_read_as_they_were_written() -> None:
    steps = (("norm", (1e-05,)), ("clip", (None, 6.0)), ("scale", (0.2,)), ("add", ()))
    made = Recipe((1, 2), (0, 1, 2, 3), (1, 1), True, (1, 0), 4, steps, (("accuracy", "strict"), ("memory", "low")))
    assert recipe_of(made.text) == made
    assert recipe_of(made.geometry.text).steps == ()

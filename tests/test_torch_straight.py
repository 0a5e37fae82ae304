"""Straight-line code of whole models: what it computes, when it is used, and what it must notice."""

from __future__ import annotations

import copy
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import convkit.torch  # noqa: E402
from convkit import _core  # noqa: E402
from convkit.torch import between, networks, packings, watching  # noqa: E402
from convkit.torch.blocks import block_of  # noqa: E402
from convkit.torch.recipe import Recipe  # noqa: E402


def optimized(model: Any, *sample: Any, **keywords: Any) -> Any:
    return convkit.torch.optimize(model, sample or None, verbose=False, **keywords)


def codes(model: Any) -> list[Any]:
    """The code that a model's own block has for now."""
    return list(block_of(model)._codes._codes.values())


def runs(model: Any, *given: Any) -> tuple[Any, int]:
    """A model's value, and how many times its code has run."""
    count = 0
    for code in codes(model):
        run = code.run

        def counted(*given: Any, run: Any = run) -> Any:
            nonlocal count
            count += 1
            return run(*given)

        code.run = counted
    y = model(*given)
    for code in codes(model):
        code.run = (getattr(code.run, "__kwdefaults__", None) and code.run.__kwdefaults__["run"]) or code.run
    return y, count


def close(found: Any, wanted: Any, limit: float = 1e-5) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert float((found.double() - wanted.double()).abs().max()) <= limit * float(wanted.abs().max())


class Mixed(nn.Module):  # type: ignore[misc]
    """What stands between convolutions in published models."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.pools = nn.ModuleList(
            [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 1, 1, count_include_pad=False)]
        )
        self.norm, self.up = nn.GroupNorm(2, 8), nn.Upsample(scale_factor=2)
        self.gate, self.mix = nn.Conv2d(8, 8, 1), nn.Conv2d(24, 8, 1)
        self.drop, self.same = nn.Dropout(0.5), nn.Identity()
        self.line, self.gain = nn.Linear(8, 8), nn.Parameter(torch.rand(8))
        self.layer_norm = nn.LayerNorm(8)

    def forward(self, x: Any) -> Any:
        x = F.gelu(self.first(x))
        parts = [self.up(pool(x)) if i < 2 else pool(x)[..., :-1, :-1] for i, pool in enumerate(self.pools)]
        size = parts[2].shape[2:]
        x = self.mix(torch.cat([part[:, :, : size[0], : size[1]] for part in parts], dim=1))
        x = F.silu(self.norm(x))
        a, b = x.chunk(2, 1)
        x = torch.cat([b, a], 1) * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        y = self.layer_norm(self.drop(x).permute(0, 2, 3, 1))
        y = self.gain * self.line(F.gelu(self.line(y)))
        x = x + y.permute(0, 3, 1, 2)
        x = (
            F.interpolate(x, size=(size[0] * 3, size[1] * 2))
            - F.interpolate(x, scale_factor=(3, 2), mode="nearest") * 0.5
        )
        return self.same(x).mean((2, 3), keepdim=True), {"image": x, "width": x.shape[3]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_what_stands_between(last: bool, dtype: Any) -> None:
    torch.manual_seed(1)
    model, x = Mixed().eval().to(dtype), torch.randn(2, 3, 13, 15, dtype=dtype)
    if last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    made = optimized(model)
    with torch.no_grad():
        made(x)
        (mean, rest), count = runs(made, x)
        wanted, others = model(x)
    assert count == 1
    close(mean, wanted)
    close(rest["image"], others["image"])
    assert rest["width"] == others["width"]


def test_what_is_not_taken_is_pytorchs() -> None:
    """Functions of `between` leave to PyTorch what they do not know: contiguous images, half, odd arguments."""
    x = torch.randn(1, 4, 6, 6).contiguous(memory_format=torch.channels_last).numpy()
    plain = torch.randn(1, 4, 6, 6).numpy()
    for found in (
        between.max_pool2d(plain, 2),
        between.max_pool2d(x, 2, return_indices=True),
        between.max_pool2d(x, 3, padding=2),
        between.max_pool2d(torch.zeros(1, 4, 6, 6, dtype=torch.half), 2),
        between.avg_pool2d(x, 2, ceil_mode=True),
        between.avg_pool2d(x, 2, divisor_override=3),
        between.adaptive_avg_pool2d(x, 2),
        between.mean(x, 1),
        between.interpolate(x, scale_factor=1.5),
        between.interpolate(x, scale_factor=2, mode="bilinear"),
        between.cat([x, plain], 1),
        between.cat([x, x], 0),
        between.mul(x, x),
        between.mul(x, 2.0),
        between.layer_norm(x, (4,)),
        between.group_norm(plain, 2),
    ):
        assert found is NotImplemented


def test_weights_that_change() -> None:
    model, x = networks.make("mobilenet_v2", narrow=True)
    made = optimized(model, inplace=False)
    with torch.no_grad():
        made(x), made(x)
        for change in (
            lambda m: next(m.parameters()).mul_(1.5),
            lambda m: next(m.parameters()).data.mul_(0.5),
            lambda m: next(n for n in m.modules() if isinstance(n, nn.BatchNorm2d)).running_mean.add_(0.5),
            lambda m: m.load_state_dict({k: v * 0.9 for k, v in m.state_dict().items()}),
            lambda m: setattr(m[0][0][0], "weight", nn.Parameter(m[0][0][0].weight * 2)),
        ):
            change(model), change(made)
            for _ in range(3):
                close(made(x), model(x))
            _, count = runs(made, x)
            assert count == 1


def test_modules_that_change() -> None:
    model, x = networks.make("resnet18", narrow=True)
    made = optimized(model)
    with torch.no_grad():
        made(x), made(x)
        for change in (
            lambda m: setattr(m, "relu", nn.SiLU()),
            lambda m: setattr(m.conv1, "stride", (1, 1)),
            lambda m: setattr(m.bn1, "eps", 0.5),
            lambda m: setattr(m, "fc", nn.Identity()),
        ):
            change(model), change(made)
            for _ in range(3):
                close(made(x), model(x))


def test_a_hook_that_comes_and_goes() -> None:
    model, x = networks.make("resnet18", narrow=True)
    made = optimized(model)
    with torch.no_grad():
        made(x), made(x)
        for name in ("conv1", "bn1", "layers.1.0.bn2", "layers.1.0.relu", "layers.1", "fc"):
            seen: list[Any] = []
            handle = made.get_submodule(name).register_forward_hook(lambda _, __, y, seen=seen: seen.append(y))
            close(made(x), model(x))
            assert seen
            handle.remove()
        assert runs(made, x)[1] == 1


def test_where_it_is_not_used() -> None:
    model, x = networks.make("resnet18", narrow=True)
    made = optimized(model)
    with torch.no_grad():
        made(x), made(x)
        assert runs(made, x)[1] == 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert runs(made, x)[1] == 0
        assert runs(made.train(), x)[1] == 0
        made.eval()
        with pytest.raises(RuntimeError):
            made(x.half())
    assert runs(made, x)[1] == 0  # gradients may be asked for
    with torch.inference_mode():
        made(x), made(x)  # training changed the norms
        assert runs(made, x)[1] == 1
    with torch.no_grad():
        close(torch.func.vmap(made)(x[None])[0], made(x))


def test_copies_read_anew() -> None:
    model, x = networks.make("unet", narrow=True)
    made = copy.deepcopy(optimized(model))
    with torch.no_grad():
        made(x), made(x)
        y, count = runs(made, x)
        close(y, model(x))
    assert count == 1


class Misread(nn.Module):  # type: ignore[misc]
    """What torch.fx reads is not what it computes."""

    def forward(self, x: Any) -> Any:
        return x * (3.0 if isinstance(x, torch.fx.Proxy) else 2.0)


def test_what_is_read_anew_is_compared_anew() -> None:
    model, x = networks.make("resnet18", narrow=True)
    made = copy.deepcopy(optimized(model))  # reads when it is called
    with torch.no_grad():
        made(x), made(x)
        assert runs(made, x)[1] == 1
        model.relu = made.relu = Misread().eval()
        for _ in range(6):
            close(made(x), model(x))


def test_threads_share_the_code() -> None:
    model, x = networks.make("yolov8n", narrow=True)
    made = optimized(model)

    def work(_: int) -> list[Any]:
        with torch.no_grad():
            return [made(x) for _ in range(5)]

    with torch.no_grad():
        wanted = model(x)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            for y in found:
                close(y, wanted)


class Gated(nn.Module):  # type: ignore[misc]
    """An image and its gate, which are used as a function says."""

    def __init__(self, use: Any) -> None:
        super().__init__()
        self.conv, self.gate, self.after = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.use = use

    def forward(self, x: Any) -> Any:
        y = F.relu(self.conv(x))
        return self.use(self, y, torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1))))


@pytest.mark.parametrize(
    ("use", "in_place"),
    [
        (lambda m, y, s: m.after(y * s), True),
        (lambda m, y, s: torch.mul(s, y).mean((2, 3)) + s.flatten(1), True),
        (lambda m, y, s: m.after(y * s) + y, False),
        (lambda m, y, s: m.after(y) + m.after(y * s), False),  # one chain, which reads both
        (lambda m, y, s: (y * s, y.mean((2, 3))), False),
        (lambda m, y, s: (y.flatten(2)[:, 1], y * s, y.flatten(1).sum(1)), False),
        (lambda m, y, s: (y[:, 2:4], y * s), False),
        (lambda m, y, s: m.gate(y * s) + m.gate(y), False),
    ],
)
def test_a_product_takes_the_place_of_what_nobody_reads_again(
    use: Any, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, scale_shift = [], between.images.scale_shift

    def told(*given: Any, in_place: bool, **named: Any) -> Any:
        places.append(in_place)
        return scale_shift(*given, in_place=in_place, **named)

    monkeypatch.setattr(between.images, "scale_shift", told)
    torch.manual_seed(0)
    model, x = Gated(use).eval(), torch.randn(2, 3, 9, 8).contiguous(memory_format=torch.channels_last)
    before, made = x.clone(), optimized(model)
    with torch.no_grad():
        for _ in range(3):
            found, wanted = made(x), model(x)
            for y, other in zip(found, wanted, strict=True) if type(found) is tuple else [(found, wanted)]:
                close(y, other)
    assert torch.equal(x, before)
    assert set(places) == {in_place}


def test_entries_are_seen_to_change() -> None:
    module, entries = nn.LeakyReLU(0.5), watching._Entries()
    entries.all(vars(module))
    entries.one(vars(module), "absent", NotImplemented)
    assert entries.stand()
    assert entries.stand()
    for change, same in (
        (lambda: setattr(module, "negative_slope", float("0.5")), True),  # another object of the same value
        (lambda: setattr(module, "negative_slope", 0.25), False),
        (lambda: vars(module).update(negative_slope=0.5), True),
        (lambda: setattr(module, "absent", None), False),
        (lambda: delattr(module, "absent"), True),
        (lambda: vars(module).pop("inplace"), False),
        (lambda: setattr(module, "inplace", False), True),
    ):
        change()
        for _ in range(2):
            assert entries.stand() is same
    for wrong in (([1], ["a"], [1]), ([{}], [], [])):
        with pytest.raises((TypeError, ValueError), match="dicts"):
            _core.entries_stand(*wrong)


def test_elements_are_seen_to_change() -> None:
    numbers = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    elements = _core.Elements([numbers[::-1, :, ::3], np.zeros((0, 2), np.float32), np.array(np.nan, np.float32)])
    for at, same in (((0, 0, 0), False), ((1, 2, 3), False), ((1, 2, 1), True)):
        assert elements.stand()
        before, numbers[at] = numbers[at], -1
        assert elements.stand() is same
        numbers[at] = before
    for wrong in (1, np.zeros(2, np.int8), np.array([object()])):
        with pytest.raises(TypeError, match="arrays"):
            _core.Elements([wrong])


def test_answers_are_told_in_order() -> None:
    assert np.frombuffer(_core.answers(abs, [3, -(2**64) + 1, -4]), np.uint64).tolist() == [3, 2**64 - 1, 4]
    with pytest.raises(OverflowError):
        _core.answers(int, [-1])
    with pytest.raises(ZeroDivisionError):
        _core.answers(lambda number: 1 // number, [1, 0])
    shrinking = [1, 2, 3]
    assert len(_core.answers(lambda _: shrinking.pop(), shrinking)) == 2 * 8
    _core.prefetch(np.array([0, 1, 2**63, 2**64 - 1], np.uint64).tobytes() + b"odd")


def test_threads_pack_a_weight_once(monkeypatch: pytest.MonkeyPatch) -> None:
    count, prepared, everybody = 0, packings.prepared, threading.Barrier(4)

    def counted(*operands: Any) -> Any:
        nonlocal count
        count += 1
        time.sleep(0.05)  # in which the others would begin, too
        return prepared(*operands)

    monkeypatch.setattr(packings, "prepared", counted)
    weight, recipe = nn.Parameter(torch.randn(4, 3, 3, 3)), Recipe((1, 1), (0, 0, 0, 0), (1, 1))

    def work(_: int) -> Any:
        everybody.wait()
        return packings.packing_of(weight, (None,), recipe, 1)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert count == 1
    assert all(packing is found[0] for packing in found)


def test_a_model_goes_without_the_garbage_collector() -> None:
    model, x = networks.make("resnet18", narrow=True)
    made = optimized(model)
    with torch.no_grad():
        made(x), made(x)
    reference = weakref.ref(made.conv1.weight)
    gc.collect()  # what torch.fx left when it read
    gc.disable()
    try:
        del made
        assert reference() is None
    finally:
        gc.enable()


class Lists(nn.Module):  # type: ignore[misc]
    """Reads of pieces, in every way that they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(2, 2, 1)

    def forward(self, x: Any) -> Any:
        first, *rest = list(self.a(x).chunk(3, 1))
        rest.append(self.b(rest[-1]))
        low, high = torch.split(torch.cat(rest, 1), [2, 4], dim=1)
        return first + low, high


def test_pieces_of_channels() -> None:
    model, x = Lists().eval(), torch.randn(1, 3, 9, 9)
    made = optimized(model)
    with torch.no_grad():
        made(x)
        found, count = runs(made, x)
        for a, b in zip(found, model(x), strict=True):
            close(a, b)
    assert count == 1


def test_results_are_nobody_elses() -> None:
    """A result stays what it is when the model runs again."""
    model, x = networks.make("vgg16", narrow=True)
    made = optimized(model)
    with torch.no_grad():
        made(x)
        first = made(x)
        kept = first.clone()
        for _ in range(40):
            made(torch.randn_like(x))
    assert torch.equal(first, kept)


class Tokens(nn.Module):  # type: ignore[misc]
    """Linear layers with all that may follow them, over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.first = nn.Conv2d(8, 8, 1), nn.Linear(8, 16)
        self.second, self.gain = nn.Linear(16, 8), nn.Parameter(torch.rand(8))
        self.act = nn.GELU()

    def forward(self, x: Any, before: Any) -> Any:
        y = self.gain * self.second(self.act(self.first(x)))
        return self.before(before) + y.permute(0, 3, 1, 2)


def test_linear_layers_over_what_is_not_side_by_side() -> None:
    """Whatever memory order comes, also one that no kernel reads without a copy."""
    torch.manual_seed(2)
    model, x = Tokens().eval(), torch.randn(2, 5, 6, 8)
    made = optimized(model)
    before = torch.randn(2, 8, 5, 6)
    apart = torch.randn(2, 8, 5, 6).permute(0, 2, 3, 1)
    with torch.no_grad():
        made(x, before)
        for given in (
            (x, before),
            (apart, before),
            (x, before.to(memory_format=torch.channels_last)),
            (x[:, ::2], before[:, :, ::2]),
        ):
            y, count = runs(made, *given)
            assert count == 1
            close(y, model(*given))

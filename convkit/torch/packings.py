"""From a weight to its packed layers: weak, and renewed when values change."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from convkit import Conv2d, ConvTranspose2d, _core
from convkit.torch.memory import array_of, is_channels_last, tensor_of
from convkit.torch.recipe import ACTIVATIONS, Recipe, Step
from convkit.tuner.process import ForkSafeLock

__all__ = [
    "Origin",
    "Packing",
    "corners_of",
    "epoch",
    "forget",
    "is_unpacked",
    "packed_nbytes",
    "packing_of",
    "prepared",
    "unpacked",
]

# Input sizes of which a layer remembers how their results come.
_MOST_SIZES = 64
# Packed layers of one weight: recipes, thread counts, folded norms.
_MOST_LAYERS = 8


class Packing:
    """A packed layer, and what it was made of.

    Attributes
    ----------
    layer : convkit.Conv2d or convkit.ConvTranspose2d
    done : int
        How many of the recipe's steps the layer does; the others are PyTorch's.
    adds : bool
        Whether the layer takes the residual.
    made_of : tuple
        What the layer is made of beside the weight.
    last : bool
        Whether the weight is channels last, and with it every result.
    sizes : dict
        Shapes and strides of inputs whose results come with PyTorch's strides.
    """

    __slots__ = ("adds", "done", "last", "layer", "made_of", "sizes")

    def __init__(self, layer: Any, done: int, adds: bool, last: bool, made_of: Any) -> None:
        self.layer, self.done, self.adds, self.last, self.made_of = layer, done, adds, last, made_of
        self.sizes: dict[Any, bool] = {}

    def tensor(self, x: Any, array: Any) -> Any:
        """What the layer computed of `x`, as PyTorch would have it."""
        key = x.shape, x.stride()
        last = self.sizes.get(key)
        if last is None:
            if len(self.sizes) >= _MOST_SIZES:
                self.sizes.clear()
            last = self.last or is_channels_last(x)
            y = tensor_of(array, x.dim() - 2, last)
            if y.stride() != torch.from_numpy(array).stride():
                return y
            self.sizes[key] = last
        return torch.from_numpy(array)


class Origin:
    """A tensor that something was made of, to be asked later whether its values have changed.

    Its version tells of all that PyTorch's operations do to it, but for the statistics of a batch norm and for what is
    written through ``.data`` or an array. So its corners are looked at, too: an update of all values shows there.
    """

    __slots__ = ("corners_stand", "pointer", "shape", "version")

    def __init__(self, tensor: Any) -> None:
        self.pointer, self.shape = tensor.data_ptr(), tensor.shape
        self.version = None if tensor.is_inference() else tensor._version
        self.corners_stand = _core.Elements([corners_of(tensor)]).stand

    def is_as_it_was(self, tensor: Any) -> bool:
        """Whether a tensor has the values that this one had."""
        return bool(
            tensor.data_ptr() == self.pointer
            and (self.version is None or tensor._version == self.version)
            and tensor.shape == self.shape
            and self.corners_stand()
        )


def corners_of(tensor: Any) -> Any:
    """An array over the elements in a tensor's corners."""
    array = array_of(tensor.detach())  # which shares the memory, but does not keep the tensor alive
    return array[tuple(slice(None, None, max(n - 1, 1)) for n in array.shape)]


def _same(origins: tuple[Origin | None, ...], tensors: tuple[Any, ...]) -> bool:
    for origin, tensor in zip_longest(origins, tensors):
        if tensor is None or origin is None:
            if tensor is not origin:
                return False
        elif not origin.is_as_it_was(tensor):
            return False
    return True


class _Weight:
    """What is known of a weight: its values when it was seen last, and its packed layers."""

    __slots__ = ("origin", "packings", "reference")

    def __init__(self, weight: Any, forget: Any) -> None:
        self.reference = weakref.ref(weight, forget)
        self.origin = Origin(weight)
        self.packings: dict[Any, Packing] = {}


_weights: dict[int, _Weight] = {}
_forgotten = 0
_lock = ForkSafeLock()
_unpacked: ContextVar[bool] = ContextVar("convkit_torch_unpacked", default=False)


@contextmanager
def unpacked() -> Iterator[None]:
    """Pack nothing in a block of code, whose calls will not come again."""
    token = _unpacked.set(True)
    try:
        yield
    finally:
        _unpacked.reset(token)


def is_unpacked() -> bool:
    """Whether nothing is packed here."""
    return _unpacked.get()


def _remember(w: Any) -> _Weight:
    """Forget what was made of a weight, and remember its values."""
    key = id(w)

    def forget(reference: Any) -> None:
        held = _weights.get(key)
        if held is not None and held.reference is reference:
            _weights.pop(key, None)  # which somebody else may have forgotten meanwhile

    weight = _weights[key] = _Weight(w, forget)
    return weight


def packing_of(w: Any, beside: tuple[Any, ...], recipe: Recipe, threads: int) -> Packing | None:
    """The packed layer of a weight; None for one that may change before it is used again.

    Parameters are packed at first sight, other tensors the second time they come with the same values, and never those
    that a program differentiates with respect to.

    Parameters
    ----------
    w : Tensor
    beside : tuple
        The bias, and the four tensors of a batch norm where there is one.
    recipe : Recipe
    threads : int
    """
    weight = _weights.get(id(w))
    if weight is not None and weight.reference() is w and weight.origin.is_as_it_was(w):
        packing = weight.packings.get((recipe.text, threads))
        if packing is not None and _same(packing.made_of, beside):
            return packing
    elif _unpacked.get():
        return None
    elif weight is not None or not isinstance(w, torch.nn.Parameter):
        if not w.requires_grad or weight is not None:
            _remember(w)
        return None
    else:
        with _lock:
            weight = _weights.get(id(w))
            if weight is None or weight.reference() is not w or not weight.origin.is_as_it_was(w):
                weight = _remember(w)
    if _unpacked.get():
        return None
    with _lock:
        packing = weight.packings.get((recipe.text, threads))
        if packing is not None and _same(packing.made_of, beside):
            return packing  # another thread's
        if len(weight.packings) >= _MOST_LAYERS:
            weight.packings.clear()
        layer, done = prepared(w, beside, recipe, threads)
        adds = any(name == "add" for name, _ in recipe.steps[:done])
        made_of = tuple(None if t is None else Origin(t) for t in beside)
        packing = weight.packings[recipe.text, threads] = Packing(layer, done, adds, is_channels_last(w), made_of)
    return packing


def prepared(w: Any, beside: tuple[Any, ...], recipe: Recipe, threads: int) -> tuple[Any, int]:
    """A layer with the recipe's first steps in it, and their number.

    What comes before the residual and the activation goes into the weights and the bias, what comes after them is the
    layer's scale and shift.
    """
    bias, *norm = beside
    weights = array_of(w.detach())  # which the layer borrows, without keeping the tensor alive
    if weights.ndim == 2:  # of a linear layer
        weights = weights[:, :, None, None]
    dtype, steps = weights.dtype, recipe.steps
    keywords: dict[str, Any] = recipe.kept()
    factor, biases, done = _line(steps, 0, norm, _doubles(bias))
    if factor is not None:
        keywords["weight_scale"] = _number_or_array(factor, dtype)
    if done < len(steps) and steps[done][0] == "add":
        done += 1
    if done < len(steps) and steps[done][0] in ACTIVATIONS:
        name, numbers = steps[done]
        keywords["activation"] = (name, *numbers) if numbers else name
        done += 1
    scale, shift, done = _line(steps, done, norm, None)
    if done < len(steps) and steps[done][0] == "add" and ("add", ()) not in steps[:done]:
        keywords["residual_after"] = True
        done += 1
    for name, value in (("scale", scale), ("shift", shift)):
        if value is not None:
            keywords[name] = _number_or_array(value, dtype)
    kind = ConvTranspose2d if recipe.transposed else Conv2d
    biases = None if biases is None else np.asarray(biases, dtype)
    return kind(weights, biases, **recipe.keywords(), **keywords, num_threads=threads), done


def _line(steps: tuple[Step, ...], first: int, norm: Any, shift: Any) -> tuple[Any, Any, int]:
    """Norms and scales from a step on, as ``factor * y + shift``; a shift that is there already counts as one of y."""
    factor: Any = None
    while first < len(steps) and steps[first][0] in ("norm", "scale"):
        name, numbers = steps[first]
        if name == "norm":
            mean, variance, gamma, beta = (_doubles(t) for t in norm)
            one = 1.0 / np.sqrt(variance + numbers[0])
            one = one if gamma is None else one * gamma
            shift = (0.0 if shift is None else shift * one) - mean * one + (0.0 if beta is None else beta)
        else:
            one = np.float64(numbers[0] or 0.0)
            shift = None if shift is None else shift * one
        factor = one if factor is None else factor * one
        first += 1
    return factor, shift, first


def _doubles(tensor: Any) -> Any:
    return None if tensor is None else array_of(tensor).astype(np.float64)


def _number_or_array(value: Any, dtype: Any) -> Any:
    return np.asarray(value, dtype) if np.ndim(value) else float(value)


def forget(tensors: Any = None) -> None:
    """Drop the packings of some weights, or of all."""
    global _forgotten
    _forgotten += 1
    if tensors is None:
        _weights.clear()
        return
    for tensor in tensors:
        _weights.pop(id(tensor), None)


def epoch() -> int:
    """How many times something was forgotten: who holds a packing is to ask for it again if this has changed."""
    return _forgotten


def packed_nbytes(tensors: Any) -> int:
    """Bytes that the layers of some weights hold beside the weights."""
    total = 0
    for tensor in tensors:
        weight = _weights.get(id(tensor))
        if weight is not None:
            total += sum(p.layer.nbytes for p in list(weight.packings.values()))
    return total

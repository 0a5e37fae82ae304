"""What code took for granted about modules and tensors when it was written, asked anew before each run.

Asked of lists, whose loops run in C: a network of two hundred modules is asked in some tens of microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, repeat
from operator import attrgetter, contains, eq, is_, itemgetter
from typing import Any

import torch
from torch.nn.modules import module as _module

from convkit.torch import packings

__all__ = ["Structure", "Values", "is_plain"]

_training = itemgetter("training")
_version = attrgetter("_version")
_pointer = torch.Tensor.data_ptr
_layout = torch.strided


def is_plain(given: tuple[Any, ...]) -> bool:
    """Whether a call computes on plain tensors on the CPU, and nobody records, traces, transforms or casts it."""
    return not (
        torch.is_grad_enabled()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch.is_autocast_enabled("cpu")
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._is_tracing()
        or _module._has_any_global_hook()
        or not all(type(x) is torch.Tensor and x.is_cpu and x.layout is _layout for x in given)
    )


class Structure:
    """Modules that are to do what their classes say, with the children that they have.

    The module whose code it is is not held, but its children's container is: the module holds what is held here.
    """

    def __init__(self) -> None:
        self._owners: dict[int, Any] = {}
        self._kinds: list[type] = []
        self._dicts: list[dict[str, Any]] = []
        self._hooks: list[Any] = []
        self._containers: list[dict[str, Any]] = []
        self._children: list[Any] = []
        self._numbers: list[tuple[Callable[[Any], Any], Any]] = []
        self._told: list[Any] = []

    def children(self, module: Any) -> None:
        """A module's children are to be the same objects."""
        if module._modules:
            self._containers.append(module._modules)
            self._children += module._modules.values()

    def does_as_told(self, module: Any, names: Iterable[str] = ()) -> None:
        """A module is to be of its class, in inference and without hooks; numbers among its attributes stay."""
        names = tuple(names)
        if names:
            getter = itemgetter(*names)
            self._numbers.append((getter, vars(module)))
            self._told.append(getter(vars(module)))
        if id(module) in self._owners:
            return
        self._owners[id(module)] = module
        self._kinds.append(type(module))
        self._dicts.append(vars(module))
        self._hooks += (
            module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks,
        )  # fmt: skip
        self.children(module)

    def stands(self) -> bool:
        """Whether modules are as they were."""
        now = [*chain.from_iterable(map(dict.values, self._containers))]
        return bool(
            not any(self._hooks)
            and not any(map(_training, self._dicts))
            and not any(map(contains, self._dicts, repeat("forward")))
            and all(map(is_, map(type, self._owners.values()), self._kinds))
            and len(now) == len(self._children)
            and all(map(is_, now, self._children))
            and all(map(eq, [getter(d) for getter, d in self._numbers], self._told))
        )


class Values:
    """Parameters and buffers that are to be the same objects, and tensors that are to keep their values."""

    def __init__(self) -> None:
        self._containers: list[dict[str, Any]] = []
        self._contents: list[Any] = []
        self._tensors: list[Any] = []
        self._versioned: list[Any] = []
        self._versions: list[int] = []
        self._pointers: list[int] = []
        self._corners: list[Any] = []
        self._bytes: list[bytes] = []
        self._epoch = packings.epoch()

    def tensors_of(self, module: Any) -> None:
        """A module's parameters and buffers are to be the same objects."""
        for container in (module._parameters, module._buffers):
            if container:
                self._containers.append(container)
                self._contents += container.values()

    def stay(self, tensors: Iterable[Any]) -> None:
        """Tensors are to keep their values, as far as `convkit.torch.refresh` says."""
        for tensor in tensors:
            if tensor is None:
                continue
            origin = packings.Origin(tensor)
            self._tensors.append(tensor)
            self._pointers.append(origin.pointer)
            if origin.version is not None:
                self._versioned.append(tensor)
                self._versions.append(origin.version)
            self._corners.append(origin.corners)
            self._bytes.append(origin.values)

    def stand(self) -> bool:
        """Whether tensors are as they were."""
        now = [*chain.from_iterable(map(dict.values, self._containers))]
        return bool(
            self._epoch == packings.epoch()
            and len(now) == len(self._contents)
            and all(map(is_, now, self._contents))
            and [*map(_version, self._versioned)] == self._versions
            and [*map(_pointer, self._tensors)] == self._pointers
            and [corners.tobytes() for corners in self._corners] == self._bytes
        )

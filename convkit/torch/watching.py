"""What code took for granted about modules and tensors when it was written, asked anew before each run.

Most of it is asked by compiled loops: a network has hundreds of modules, and between two runs they leave the caches.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as _module

from convkit import _core
from convkit.torch import packings

__all__ = ["Structure", "Values", "is_plain"]

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


class _Entries:
    """Entries of dicts that are to stay as they are."""

    def __init__(self) -> None:
        self._dicts: list[Any] = []
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._containers: dict[int, Any] = {}
        self._known: list[Any] = []  # the containers
        self._versions = b""

    def one(self, container: Any, key: str | None, value: Any) -> None:
        """An entry; NotImplemented says that there is none, and without a key the value is the number of entries."""
        if id(container) not in self._containers:
            self._containers[id(container)] = container
            self._known.append(container)
        self._dicts.append(container)
        self._keys.append(key)
        self._values.append(value)

    def all(self, container: Any) -> None:
        """All entries, and that there are no more."""
        self.one(container, None, len(container))
        for key, value in container.items():
            self.one(container, key, value)

    def stand(self) -> bool:
        """Whether they are. Dicts that nobody touched since they were looked at last need no second look."""
        versions = _core.dict_versions(self._known)
        if versions and versions == self._versions:
            return True
        if not _core.entries_stand(self._dicts, self._keys, self._values):
            return False
        self._versions = versions
        return True


class Structure:
    """Modules that are to do what their classes say, with the children that they have.

    The module whose code it is is not held, but its children's container is: the module holds what is held here.
    """

    def __init__(self) -> None:
        self._entries = _Entries()
        self._modules: list[Any] = []
        self._types: list[type] = []
        self._known: set[int] = set()

    def children(self, module: Any) -> None:
        """A module's children are to be the same objects."""
        self._entries.all(module._modules)

    def does_as_told(self, module: Any, names: Iterable[str] = ()) -> None:
        """A module is to be of its class, in inference and without hooks; numbers among its attributes stay."""
        for name in names:
            self._entries.one(vars(module), name, vars(module)[name])
        if id(module) in self._known:
            return
        self._known.add(id(module))
        self._modules.append(module)
        self._types.append(type(module))
        self._entries.one(vars(module), "training", False)
        self._entries.one(vars(module), "forward", NotImplemented)
        # Hooks of backward passes say nothing here.
        self._entries.one(module._forward_hooks, None, 0)
        self._entries.one(module._forward_pre_hooks, None, 0)
        self.children(module)

    def stands(self) -> bool:
        """Whether modules are as they were."""
        return _core.types_stand(self._modules, self._types) and self._entries.stand()


class Values:
    """Parameters and buffers that are to be the same objects, and tensors that are to keep their values."""

    def __init__(self) -> None:
        self._entries = _Entries()
        self._tensors: list[Any] = []
        self._counted: list[Any] = []  # those whose versions count
        self._corners: list[Any] = []
        self._told: Any = None
        self._elements: Any = None
        self._addresses = b""
        self._epoch = packings.epoch()

    def tensors_of(self, module: Any) -> None:
        """A module's parameters and buffers are to be the same objects."""
        self._entries.all(module._parameters)
        self._entries.all(module._buffers)

    def stay(self, tensors: Iterable[Any]) -> None:
        """Tensors are to keep their values, as far as `convkit.torch.refresh` says."""
        for tensor in tensors:
            if tensor is not None:
                self._tensors.append(tensor)
                if not tensor.is_inference():
                    self._counted.append(tensor)
                self._corners.append(packings.corners_of(tensor))

    def close(self) -> None:
        """Nothing is added any more."""
        self._told = self._tell()
        self._elements = _core.Elements(self._corners)
        self._addresses = _addresses_of(self._tensors)

    def stand(self) -> bool:
        """Whether tensors are as they were."""
        _core.prefetch(self._addresses)
        return bool(
            self._epoch == packings.epoch()
            and self._entries.stand()
            and self._tell() == self._told
            and self._elements.stand()
        )

    def _tell(self) -> Any:
        """What PyTorch says of values: how often each was changed, and where it is."""
        return _core.answers(_version, self._counted), _core.answers(torch.Tensor.data_ptr, self._tensors)


_version = attrgetter("_version")
_LINE = 64  # bytes that come from memory together


def _addresses_of(tensors: list[Any]) -> bytes:
    """Of what tensors are asked for: the object in Python, PyTorch's own, and those that this one begins by naming.

    Between two runs all of that leaves the caches.
    """
    lines: set[int] = set()
    for tensor in tensors:
        own = tensor._cdata
        named = np.frombuffer(ctypes.string_at(own, _LINE), np.uintp)
        for address, size in ((id(tensor), 1), (own, 3), *((n, 2) for n in named.tolist())):
            lines.update(range(address // _LINE, address // _LINE + size))
    return (np.array(sorted(lines), np.uintp) * _LINE).tobytes()

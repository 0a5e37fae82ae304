"""Names of a package that load their modules on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A package's ``__getattr__``: `homes` says in which of its modules each name is."""

    def attribute(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from convkit.tuner.process import planning

        # A fork while another thread imports would leave the child waiting for that thread.
        with planning:
            return getattr(import_module(f"{package}.{homes[name]}"), name)

    return attribute

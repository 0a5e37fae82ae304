"""Docstrings of everything public are complete by numpydoc's own rules, and their examples are right."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import convkit
import convkit.ndimage

validate = pytest.importorskip("numpydoc.validate", reason="numpydoc is not installed")

# What need not be everywhere: an extended summary, a section See Also, an example.
OPTIONAL = {"ES01", "SA01", "EX01"}


def public(name: str, module: ModuleType) -> Iterator[str]:
    """Names of all that a module calls its own, with the methods and properties of its classes."""
    for own in module.__all__:
        value: Any = getattr(module, own)
        if inspect.ismodule(value):
            yield from public(f"{name}.{own}", value)
        elif callable(value):
            yield f"{name}.{own}"
        if inspect.isclass(value):
            described = (property, classmethod, staticmethod)
            for member, held in vars(value).items():
                if member[0] != "_" and (
                    callable(held) or isinstance(held, described) or inspect.isdatadescriptor(held)
                ):
                    yield f"{name}.{own}.{member}"


NAMES = sorted([*public("convkit", convkit), *public("convkit.ndimage", convkit.ndimage)])


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_complete(name: str) -> None:
    found = validate.validate(name)["errors"]
    assert [f"{code} {text}" for code, text in found if code not in OPTIONAL] == []


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_right(name: str) -> None:
    value: Any = convkit
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    for example in doctest.DocTestFinder(recurse=False).find(value, name, module=False, globs={}):
        found: list[str] = []
        doctest.DocTestRunner().run(example, out=found.append)
        assert found == []

"""Functions that are alike lie side by side in a wheel."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "src/order_functions.py"
NAMES = [
    "_ZN7convkit4avx24tileIdLi2ELi10EEEvv",
    "_ZN7convkit4avx24tileIfLi10ELi2EEEvv",
    "_ZN7convkit4avx24tileIdLi10ELi2EEEvv",
    "_ZN7convkit4avx24tileIfLi2ELi10EEEvv",
    "_ZN7convkit4avx24tileIfLi2ELi9EEEvv",
    "_ZN7convkit4avx25otherIfEEvv",
]
ORDERED = [NAMES[4], NAMES[0], NAMES[3], NAMES[2], NAMES[1], NAMES[5]]


def test_types_are_neighbours_and_sizes_are_numbers() -> None:
    specification = importlib.util.spec_from_file_location("order_functions", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert sorted(NAMES, key=lambda name: module.likeness(("convkit_avx2.dir", name))) == ORDERED


def test_a_script_has_every_function_once_and_instruction_sets_side_by_side(tmp_path: Path) -> None:
    if not shutil.which("c++") or not shutil.which("nm"):
        pytest.skip("there is no compiler")
    objects = []
    for isa in ("avx512", "avx2"):
        folder = tmp_path / f"convkit_{isa}.dir"
        folder.mkdir()
        text = "template <class T> void f(T) {} template void f(float); template void f(double); void g() {}"
        (folder / "x.cpp").write_text(f"namespace {isa} {{ {text} }}")
        objects.append(folder / "x.o")
        subprocess.run(["c++", "-c", folder / "x.cpp", "-o", objects[-1]], check=True)
    subprocess.run([sys.executable, SCRIPT, "nm", tmp_path / "order.ld", *objects, *objects], check=True)
    lines = (tmp_path / "order.ld").read_text().split("{\n")[-1].split("  }")[0].split()
    names = [
        f"_ZN{len(isa)}{isa}1{function}" for function in ("fIdEEvT_", "fIfEEvT_", "gEv") for isa in ("avx2", "avx512")
    ]
    assert lines == [f"*(.text.{name})" for name in (names[0], names[2], names[1], names[3], *names[4:])]

"""The pages of results: every table of theirs can be made from the results in the repository."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages() -> Any:
    """The script bench/pages.py as a module."""
    pytest.importorskip("matplotlib", reason="the pictures need it")
    script = ROOT / "bench" / "pages.py"
    if not script.exists():
        pytest.skip("a source distribution has no bench/")
    spec = importlib.util.spec_from_file_location("pages", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_block_of_the_pages_can_be_made(pages: Any) -> None:
    folder = min(path for path in pages.RESULTS.iterdir() if path.is_dir())
    results = pages.Results(folder)
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        found += re.findall(r"<!-- begin ([\w-]+) -->", text)
        assert pages.rewritten(pages.rewritten(text, results), results) == pages.rewritten(text, results)
    assert sorted(found) == sorted(pages.BLOCKS)
    for name in ("totals", "layers-vgg19", "bestof", "training", "scaling", "overhead", "accuracy"):
        made = pages.BLOCKS[name](results)
        lines = [line for line in made.splitlines() if line.startswith("|")]
        assert len(lines) > 2, name
        assert not re.search(r"\bnan\b|\binf\b", made), name


def test_pictures_that_the_pages_show_exist() -> None:
    for page in sorted((ROOT / "docs").glob("*.md")):
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / name).is_file(), f"{page.name}: {name}"


def test_a_table_is_markdown(pages: Any) -> None:
    assert pages.table(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | ---: |\n| x | 1 |"

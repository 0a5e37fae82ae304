"""The pages of results: every table of theirs can be made from the results in the repository."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def script(name: str) -> Any:
    """A script of bench/ as a module."""
    path = ROOT / "bench" / f"{name}.py"
    if not path.exists():
        pytest.skip("a source distribution has no bench/")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages() -> Any:
    """The script bench/pages.py as a module."""
    pytest.importorskip("matplotlib", reason="the pictures need it")
    return script("pages")


def test_every_block_of_the_pages_can_be_made(pages: Any) -> None:
    measured = pages.machines()
    found = []
    # The table of onnx.md is written by bench/onnx_models.py.
    for page in sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs/onnx.md"}):
        text = page.read_text()
        found += re.findall(r"<!-- begin ([\w-]+) -->", text)
        assert pages.rewritten(pages.rewritten(text, measured), measured) == pages.rewritten(text, measured)
    assert sorted(found) == sorted(pages.BLOCKS)
    for name in ("totals", "layers-vgg19", "bestof", "training", "scaling", "overhead", "accuracy"):
        made = pages.block(name, measured)
        lines = [line for line in made.splitlines() if line.startswith("|")]
        assert len(lines) > 2, name
        assert not re.search(r"\bnan\b|\binf\b", made), name


def test_machines_follow_one_another_and_may_lack_results(pages: Any, tmp_path: Path) -> None:
    first = pages.machines()[0]
    report = json.loads((first.folder / "forward-vgg19-nchw-1t.json").read_text())
    report["machine"] |= {"cpu": "Another CPU", "class": "another"}
    contestant = report["columns"].index("contestant")
    report["rows"] = [row for row in report["rows"] if row[contestant].startswith("convkit")]
    folder = tmp_path / "Another-1-2-avx512"
    folder.mkdir()
    (folder / "forward-vgg19-nchw-1t.json").write_text(json.dumps(report))
    second = pages.Results(folder)
    both = [first, second]

    def on(results: Any, name: str) -> str:
        return f"On {results.machine}:\n\n{pages.block(name, [results])}"

    for name in ("totals", "layers-vgg19", "roofline", "kernels", "commands"):
        assert pages.block(name, both) == f"{on(first, name)}\n\n{on(second, name)}"
    assert "| - | 1 |" in pages.block("layers-vgg19", [second])
    assert pages.block("machine", both).split("\n\n")[1].startswith("Another CPU, ")
    for name in ("losses", "layers-resnet50", "scaling", "bestof", "training", "overhead", "error"):
        assert pages.block(name, [second]) == ""
        assert pages.block(name, both) == on(first, name)
    errors = next(results for results in pages.machines() if results.read("accuracy") is not None)
    assert pages.block("accuracy", [second]) == ""
    assert pages.block("accuracy", [errors, second]) == on(errors, "accuracy")

    text = "".join((ROOT / "docs" / name).read_text() for name in pages.PAGES if name != "accuracy.md")
    page = pages.rewritten(text, both)
    assert pages.rewritten(page, both) == page
    assert pages.rewritten(page, [first]) == pages.rewritten(text, [first])
    for name, (_, draw) in pages.pictures(second).items():
        assert f"(results/{folder.name}/{name}.png)" in page
        # The map of kernels knows those of this CPU only.
        if not name.startswith("kernels"):
            draw()


def test_pictures_that_the_pages_show_exist() -> None:
    for page in sorted((ROOT / "docs").glob("*.md")):
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / name).is_file(), f"{page.name}: {name}"


def test_a_table_is_markdown(pages: Any) -> None:
    assert pages.table(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_only_what_a_command_finished_is_a_result(tmp_path: Path) -> None:
    measure = script("measure")
    code = "import pathlib, sys; pathlib.Path(sys.argv[2]).write_text('{}'); sys.exit(int(sys.argv[1]))"
    target = tmp_path / "machine" / "step.json"
    assert not measure.made([sys.executable, "-c", code, "1"], target)
    assert not target.parent.exists()
    assert measure.made([sys.executable, "-c", code, "0"], target)
    assert target.read_text() == "{}"


def test_a_list_of_the_commands_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = script("measure")
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["measure.py", "--list"])
    assert measure.main() == 0
    assert len(capsys.readouterr().out.splitlines()) >= len(measure.steps((1,)))
    assert not (tmp_path / "results").exists()


def test_a_broken_link_of_the_site_is_found(tmp_path: Path) -> None:
    path = ROOT / "docs" / "check_links.py"
    done = subprocess.run([sys.executable, str(path), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1  # no page, no site
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        "<h1 id='top'><a href='sub/a.html#one'>a</a><a href='https://example.org/x'>x</a>"
    )
    (tmp_path / "sub" / "a.html").write_text("<p id='one'><a href='../index.html#top'>b</a><a href='#one'>c</a>")
    done = subprocess.run([sys.executable, str(path), str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "3 links within the site, 0 broken")
    (tmp_path / "sub" / "a.html").write_text("<img src='none.png'><a href='../index.html#bottom'>b</a>")
    done = subprocess.run([sys.executable, str(path), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for text in ("sub/a.html#one: no such anchor", "none.png: no such file", "index.html#bottom: no such anchor"):
        assert text in done.stdout

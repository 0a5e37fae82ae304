"""Every fenced example of the README and of the pages in docs/: Python runs, commands are understood."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import convkit.ndimage
from convkit import networks
from convkit.commands import app

sybil = pytest.importorskip("sybil", reason="sybil is not installed")

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# What the reader of a page has already, by the page's name.
SETUP = {
    "guide.md": """
rng = np.random.default_rng(0)
x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((2, 4, 9, 9), (4, 4, 3, 3)))
x_nhwc, w_hwio = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
bias = gamma = var = np.ones(4, np.float32)
signal, taps = x[:, :, 0], w[:, :, 0]
volume, cubes = x[:, :, None], w[:, :, None]
dy, eps, a, k = np.ones((2, 4, 9, 9), np.float32), 1e-5, x[0, 0], w[0, 0]
""",
    "performance.md": "conv, x = ck.Conv2d(np.ones((4, 4, 3, 3), np.float32)), np.ones((1, 4, 9, 9), np.float32)",
    "ndimage.md": "image, weights, bank = np.ones((9, 9)), np.ones((3, 3)), np.ones((2, 3, 3))",
    "README.md": """
images, image = [], np.ones((9, 9))
class Model:
    pass
model = Model()
""",
    "tuning.md": """
x, w, dy = np.ones((1, 8, 9, 9), np.float32), np.ones((8, 8, 3, 3), np.float32), np.ones((1, 8, 9, 9), np.float32)
batches = [x] * 3
""",
}
SCRIPT: Any = typer.main.get_command(app)
# Modules that the examples of a page need; without them they are not run.
NEEDS = {"torch": "torch", "onnx": "onnx", "patch_scipy": "scipy"}


def model_file(path: Path) -> None:
    """An ONNX model that takes an `x` of the README's shape."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 64, 56, 56]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def python_blocks(page: Path) -> Iterator[Any]:
    """The Python examples of a page, in its order and with one namespace, as sybil finds them."""
    from sybil.parsers.markdown import PythonCodeBlockParser

    document = sybil.Document.parse(str(page), PythonCodeBlockParser())
    yield document
    yield from document.examples()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("database")
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, *examples = python_blocks(page)
    if not examples:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    exec("import numpy as np\nimport convkit as ck\n" + SETUP.get(page.name, ""), document.namespace)
    ran = 0
    for example in examples:
        source = str(example.parsed)
        missing = [name for name, module in NEEDS.items() if re.search(rf"\b{name}\b", source) and not has(module)]
        if missing:
            continue
        if "torch.hub.load" in source or "convkit.torch" in source:
            torch_stands_in(document.namespace, monkeypatch)
        if '"model.onnx"' in source:
            model_file(tmp_path / "model.onnx")
            document.namespace.setdefault("x", document.namespace["np"].ones((1, 64, 56, 56), "float32"))
        example.evaluate()
        ran += 1
        if "patch_scipy" in source:
            convkit.ndimage.unpatch_scipy()
    if not ran:
        pytest.skip("what these examples need is not installed")


def has(module: str) -> bool:
    """The module can be imported."""
    import importlib.util

    return importlib.util.find_spec(module) is not None


def torch_stands_in(namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model instead of one that would have to be downloaded."""
    import torch

    def load(*arguments: Any, **keywords: Any) -> Any:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())

    monkeypatch.setattr(torch.hub, "load", load)
    namespace.update(model=load().eval(), images=torch.ones(1, 3, 16, 16))


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command in a page's shell blocks: those without a language, and those of the console."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if language not in ("", "console", "sh"):
            continue
        for line in block.splitlines():
            for part in re.split(r"&&", line):
                words = shlex.split(re.sub(r"^\$ ", "", part), comments=True)
                if words:
                    yield words


def understood(words: list[str], folder: Path) -> None:
    """Parse a command as the script would, without running it; the files that it names are there."""
    for word in words:
        if re.fullmatch(r"[\w.-]+\.\w+|[A-Z]{3,}(?:\.\.\.)?", word):
            (folder / word.removesuffix("...")).touch()
    group = SCRIPT
    arguments = [word.removesuffix("...") for word in words]
    context = group.make_context("convkit", list(arguments), resilient_parsing=False)
    command = group
    rest = arguments
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        if hasattr(command, "resolve_command"):
            context = command.make_context(name, list(rest), parent=context)
    command.make_context(command.name, list(rest), parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    whole = (ROOT / "bench").exists()  # a source distribution has no scripts
    for words in commands(page):
        program, *rest = words
        if program.rpartition("/")[2] == "convkit":
            for one in alternatives(rest):
                understood(one, tmp_path)
        elif program.rpartition("/")[2] == "pip" or rest[:2] == ["-m", "pip"]:
            named = re.findall(r"\[([\w,]+)\]", " ".join(rest))
            assert {extra for text in named for extra in text.split(",")} <= {*extras, "distributed"}, words
        elif "python" in program and rest and rest[0] == "-m" and rest[1] not in ("venv", "pytest", "build"):
            assert (
                not whole
                or (ROOT / rest[1].replace(".", "/")).with_suffix(".py").exists()
                or (ROOT / rest[1].replace(".", "/") / "__main__.py").exists()
            ), words
        elif "python" in program and rest and rest[0].endswith(".py"):
            assert not whole or (ROOT / rest[0]).exists(), words
        if "--network" in words:
            for name in words[words.index("--network") + 1].split(","):
                assert name in networks.names(), words


def alternatives(words: list[str]) -> list[list[str]]:
    """A command with names to choose from, `db show | ls`, as one command for each; three dots stand for nothing."""
    if "|" not in words:
        return [[word for word in words if word != "..."]]
    head, found, current = words[0], [], []
    for word in [*words[1:], "|"]:
        if word == "|":
            found.append([head, *current])
            current = []
        else:
            current.append(word)
    return found


def test_every_block_says_what_it_is() -> None:
    """A fence without a language holds commands, so that what is displayed and what is run cannot be confused."""
    known = ("convkit", "pip", "python", "python3", "git", "cmake", "docker", "perf", "mpiexec", "mpirun")
    for page in PAGES:
        for words in commands(page):
            program = words[0].rpartition("/")[2]
            assert program in known or re.match(r"[A-Z_]+=", words[0]) or words[0].startswith(".ci/"), (
                page.name,
                words,
            )

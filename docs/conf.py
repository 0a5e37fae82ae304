"""The documentation site: `python -m sphinx -W --keep-going docs build/site`, with the extra `docs`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
# Neither this user's database nor their settings may show in a tutorial; what tutorials measure is thrown away.
for variable in [name for name in os.environ if name.startswith("CONVKIT_")]:
    del os.environ[variable]
os.environ["CONVKIT_DB"] = os.path.join(tempfile.mkdtemp(prefix="convkit-docs-"), "trials.sqlite")

import convkit  # noqa: E402 # after its environment

project = "convkit"
author = "the convkit authors"
copyright = author
release = version = convkit.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["tutorials", "sg_execution_times.rst", "_tutorials/sg_execution_times.rst"]

html_theme = "furo"
html_title = "convkit"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072b2", "color-brand-content": "#0063a3"},
    "dark_css_variables": {"color-brand-primary": "#56b4e9", "color-brand-content": "#72bdf0"},
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
highlight_language = "none"

myst_enable_extensions = ["deflist", "linkify"] if importlib.util.find_spec("linkify_it") else ["deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# A tutorial that needs an extra is executed if the extra is there; otherwise it is shown as it is.
_NEEDS = {"torch_model": ("torch",), "onnx_model": ("onnx", "onnx_ir")}
_executed = [
    path.stem
    for path in sorted((DOCS / "tutorials").glob("*.py"))
    if all(importlib.util.find_spec(module) for module in _NEEDS.get(path.stem, ()))
]
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "_tutorials",
    "filename_pattern": rf"/({'|'.join(map(re.escape, _executed))})\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "reset_modules": ("matplotlib",),
}

_GROUPS = (
    ("Functions and layers", lambda value: not isinstance(value, type) or not issubclass(value, Exception)),
    ("Exceptions", lambda value: isinstance(value, type) and issubclass(value, Exception)),
)


def _doors() -> list[str]:
    """Packages in other libraries' language that can be imported here."""
    found = []
    for name in ("ndimage", "onnx", "torch"):
        try:
            importlib.import_module(f"convkit.{name}")
        except ImportError:
            continue
        found.append(name)
    return found


def _reference() -> str:
    """The page of the reference: everything that the package calls public, so that no name can be forgotten."""
    modules = [name for name in convkit.__all__ if type(getattr(convkit, name)) is type(sys)]
    names = [name for name in convkit.__all__ if name not in modules and not name.startswith("_")]
    lines = ["API reference", "=============", "", "``import convkit as ck`` is assumed in the examples.", ""]

    def table(title: str, found: list[str]) -> None:
        lines.extend(
            [title, "-" * len(title), "", ".. autosummary::", "   :toctree: reference", "   :nosignatures:", ""]
        )
        lines.extend([*(f"   {name}" for name in sorted(found, key=str.lower)), ""])

    lines.extend([".. currentmodule:: convkit", ""])
    for title, belongs in _GROUPS:
        table(title, [name for name in names if belongs(getattr(convkit, name))])
    # The doors that an extra brings are described where it is there.
    for module in [*modules, *_doors()]:
        table(f"convkit.{module}", [f"{module}.{name}" for name in getattr(convkit, module).__all__])
    return "\n".join(lines)


shutil.rmtree(DOCS / "reference", ignore_errors=True)  # pages of names that are no longer there
(DOCS / "api.rst").write_text(_reference(), encoding="utf-8")

# Files of the repository's root that are pages here, and their pictures.
_ROOT = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def _page(app: object, name: str, source: list[str]) -> None:
    """Take in files of the root, and make their links right here: what is no page is named instead of linked."""

    def included(match: re.Match[str]) -> str:
        return re.sub(r"(\]\()docs/", r"\1", (DOCS / match[1]).read_text(encoding="utf-8"))

    def linked(match: re.Match[str]) -> str:
        text, target = match[1], match[2].removeprefix("../")
        if target in _ROOT:
            return f"[{text}]({os.path.relpath(DOCS / _ROOT[target], (DOCS / name).parent)})"
        path, _, _ = target.partition("#")
        if (DOCS / name).parent.joinpath(match[2].partition("#")[0]).exists() and not match[2].startswith("../"):
            return match[0]
        return f"`{path}`" if text == path else f"{text} (`{path}`)"

    text = re.sub(r"```\{include\} (\S+)\n```", included, source[0])
    if name == "index":  # a page that no list names yet has a place all the same
        listed = set(re.findall(r"^\w+$", source[0], re.MULTILINE)) | {"index"}
        others = sorted(path.stem for path in DOCS.glob("*.md") if path.stem not in listed)
        text = text.replace("(others)\n", "".join(f"{page}\n" for page in others))
    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)", linked, text)


def setup(app: object) -> None:
    """What Sphinx calls."""
    app.connect("source-read", _page)  # type: ignore[attr-defined]

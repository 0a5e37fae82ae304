#!/usr/bin/env -S uv run

# /// script
# dependencies = ["nox>=2025.2.9"]
# ///

"""Tasks that need an environment of their own: `nox -l` lists them, `nox -s NAME` runs one."""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|venv"
nox.options.error_on_missing_interpreters = True

GROUPS = {
    name: nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), name)
    for name in ("lint", "github", "release")
}
# What each Python needs at least: NumPy's first release with wheels for it. What the package promises is the first.
OLDEST_NUMPY = {"3.11": "1.26", "3.12": "1.26", "3.13": "2.1", "3.14": "2.3.2"}
# Whatever depends on NumPy's version: arrays in and out, dtypes, scalars, memory, messages.
WITH_NUMPY = (
    "test_functional.py", "test_errors.py", "test_interpreter.py", "test_epilogues.py", "test_grad.py",
    "test_limits.py", "test_layers.py", "test_transpose.py", "test_reference.py",
)  # fmt: skip


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and spelling."""
    session.install("-e", ".[test]", *GROUPS["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    sources = session.run("git", "ls-files", "src/*.cpp", "src/*.hpp", external=True, silent=True)
    session.run("clang-format", "--dry-run", "-Werror", *str(sources).split(), silent=True)
    session.run("codespell")
    session.run("rumdl", "check", ".")


@nox.session
def github(session: nox.Session) -> None:
    """The files that GitHub reads, and the guidelines of Scientific Python."""
    session.install(*GROUPS["github"])
    session.run("sp-repo-review", ".")
    session.run("actionlint")
    session.run("zizmor", "--offline", ".github")
    forms = Path(".github/ISSUE_TEMPLATE")
    for schema, files in {
        "vendor.github-workflows": Path(".github/workflows").glob("*.yml"),
        "vendor.dependabot": [".github/dependabot.yml"],
        "vendor.github-issue-forms": {*forms.glob("*.yml")} - {forms / "config.yml"},
        "vendor.github-issue-config": [forms / "config.yml"],
        "vendor.citation-file-format": ["CITATION.cff"],
    }.items():
        session.run("check-jsonschema", "--builtin-schema", schema, *map(str, files))


@nox.session(default=False)
def tests(session: nox.Session) -> None:
    """Run the tests as the README does."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def order(session: nox.Session) -> None:
    """Run the tests in an order that no run had before; the seed is in the first lines."""
    session.install("-e", ".[test]")
    session.run("pytest", "-p", "randomly", *session.posargs)


@nox.session(default=False, name="numpy", python=sorted(OLDEST_NUMPY))
def numpy_versions(session: nox.Session) -> None:
    """Build once, then run what touches arrays with the oldest NumPy promised for this Python and with the newest."""
    session.install(".[test]")
    files = [f"tests/{name}" for name in WITH_NUMPY]
    for wanted in (f"numpy=={OLDEST_NUMPY[str(session.python)]}.*", "numpy"):
        session.install("--upgrade", wanted)
        session.run("python", "-c", "import numpy, sys; print('NumPy', numpy.__version__, 'on', sys.version)")
        session.run("pytest", *files, *session.posargs)


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Build a wheel and an sdist twice and check them: contents, metadata, size, the same bytes both times."""
    session.install(*GROUPS["release"])
    session.run("python", ".ci/wheel.py", *session.posargs)


@nox.session(default=False, venv_backend="none")
def coverage(session: nox.Session) -> None:
    """Lines of the package and of the bindings that the tests run; fails below what is promised."""
    session.run(".ci/coverage", *session.posargs, external=True)


if __name__ == "__main__":
    nox.main()

"""Small libraries that tests compile or alter, to build situations that a process cannot bring about by itself."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

SYSTEM_LIBGOMP = "libgomp.so.1"


def compiled(folder: Path, source: str, name: str = "shim.so", *options: str) -> str:
    """A shared library made from C; its path. Skips the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    code = folder / f"{name}.c"
    code.write_text(textwrap.dedent(source))
    library = str(folder / name)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(code), *options, "-ldl"], check=True, timeout=120)
    return library


def without_sanitizer(reason: str) -> None:
    """Skip the test where a sanitizer watches, for a reason."""
    if "san.so" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip(f"under a sanitizer {reason}")


def preloaded(library: str) -> dict[str, str]:
    """The environment of a process that loads this library before all others. Skips the test under a sanitizer."""
    without_sanitizer("nothing else can be loaded first")
    return {"LD_PRELOAD": library}


def fresh(script: str, *arguments: str, flags: Sequence[str] = (), **environment: str) -> str:
    """Run a script in a fresh interpreter, which must end by itself; its standard output."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(script), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def run(script: str, *arguments: str, **environment: str) -> str:
    """Run a script in a fresh interpreter that takes any runtime, whatever this test run wants."""
    return fresh(script, *arguments, **({"CONVKIT_OPENMP": "auto"} | environment))


@functools.cache
def _libgomp() -> str:
    script = """
        import ctypes, sys
        try:
            ctypes.CDLL(sys.argv[1])
        except OSError:
            sys.exit()
        with open("/proc/self/maps") as maps:
            print(next(line.split()[-1] for line in maps if "libgomp" in line))
    """
    return run(script, SYSTEM_LIBGOMP).strip()


def libgomp() -> Path:
    """The file of the system's libgomp. Skips the test where there is none, or none is wanted."""
    if not _libgomp():
        pytest.skip("the system has no libgomp")
    if os.environ.get("CONVKIT_OPENMP") == "none":
        pytest.skip("this run is about convkit's own threads")
    return Path(_libgomp())


def renamed_libgomp(folder: Path, name: str, *without: str) -> str:
    """A copy of libgomp under a name of as many letters, as wheels bring it, `without` some of its functions."""
    assert len(name) == len(SYSTEM_LIBGOMP)
    code = libgomp().read_bytes()
    for old, new in ((SYSTEM_LIBGOMP, name), *((symbol, "x" + symbol[1:]) for symbol in without)):
        code = code.replace(b"\0" + old.encode() + b"\0", b"\0" + new.encode() + b"\0")
    (folder / name).write_bytes(code)
    return str(folder / name)

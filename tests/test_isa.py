"""One ISA is forced and runs, a wrong one is refused, and no instruction leaks from one ISA's objects into the rest.

The second half reads the object files of the build with nm and objdump: it is the only way to see that code compiled
for AVX-512 cannot run before the CPU was asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest
from shims import without_sanitizer

from convkit import _core

ISAS = tuple(_core.build_info()["isas"])  # the most preferred last
ROOT = Path(__file__).parents[1]

FORCED = """
import json
import numpy as np
import convkit as ck
from convkit import _core
from convkit.problem import of_call
from convkit.tuner import choose

x, w = np.ones((1, 8, 9, 9), np.float32), np.ones((16, 8, 3, 3), np.float32)
y = ck.conv2d(x, w, padding=1)
choice = choose(of_call(x, w, padding=1)[0], 1)
forced = ck.conv2d(x, w, padding=1, algorithm=choice.kernel, num_threads=1)
try:
    ck.conv2d(x, w, padding=1, algorithm=choice.kernel.replace("__" + _core.active_isa(), "__none"))
except ck.UnsupportedAlgorithmError:
    pass
else:
    raise AssertionError("a kernel of another name ran")
print(json.dumps({
    "active": _core.active_isa(),
    "kernel": choice.kernel,
    "isas": [kernel["isa"] for kernel in _core.kernels()],
    "right": bool(np.allclose(y[0, 0, 1:-1, 1:-1], 72) and np.allclose(forced, y)),
}))
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("isa", ISAS)
def test_a_forced_isa_runs(isa: str) -> None:
    if isa not in _core.usable_isas():
        pytest.skip(f"this CPU cannot run {isa}")
    done = python(FORCED, CONVKIT_ISA=isa, CONVKIT_DB=":memory:")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["active"] == isa
    assert told["kernel"].endswith(f"__{isa}") or f"__{isa}_" in told["kernel"]
    assert told["right"]
    assert set(told["isas"]) <= set(ISAS[: ISAS.index(isa) + 1])


def test_the_best_isa_is_the_default() -> None:
    assert _core.active_isa() == max(_core.usable_isas(), key=ISAS.index)


@pytest.mark.parametrize("value", ["sse9", "AVX2", " ", "avx512 "])
def test_a_bad_isa_is_refused_with_the_allowed_ones(value: str) -> None:
    done = python(
        "import numpy as np, convkit as ck; ck.conv2d(np.ones((1,1,3,3)), np.ones((1,1,3,3)))", CONVKIT_ISA=value
    )
    assert done.returncode == 1
    assert "ValueError" in done.stderr
    for isa in _core.usable_isas():
        assert isa in done.stderr


def test_importing_does_not_ask() -> None:
    done = python("import convkit", CONVKIT_ISA="sse9")
    assert done.returncode == 0, done.stderr


# --- the object files -------------------------------------------------------------------------------------------------


def current(folder: Path) -> tuple[Path, ...]:
    """Objects in the folder of a target whose sources still exist: a file that moved leaves its old one behind."""
    return tuple(
        path for path in sorted(folder.rglob("*.o")) if (ROOT / path.relative_to(folder).with_suffix("")).exists()
    )


@cache
def objects() -> dict[str, tuple[Path, ...]]:
    """Object files of the build behind the imported module: by ISA, and under "shared"."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    built = [path.parent for path in (ROOT / "build").glob(f"*/_core{suffix}")]
    for folder in sorted(built, key=lambda path: path.stat().st_mtime, reverse=True):
        targets = {**{isa: f"convkit_{isa}" for isa in ISAS}, "shared": "_core"}
        found = {kind: current(folder / f"CMakeFiles/{target}.dir") for kind, target in targets.items()}
        if all(found.values()):
            return found
    return {}


def require(tool: str) -> None:
    without_sanitizer("objects hold its code as well")
    if not objects():
        pytest.skip("there is no build directory with object files beside the sources (installed from a wheel)")
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")


def output(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def symbols(path: Path) -> list[tuple[str, str]]:
    """(type letter, mangled name) of the symbols that an object defines for others."""
    found = []
    for line in output("nm", "--extern-only", "--defined-only", path).splitlines():
        _, kind, name = line.split(maxsplit=2)
        found.append((kind, name))
    return found


def in_namespace(name: str, isa: str) -> bool:
    """True for anything whose name, or enclosing function, is in namespace convkit::<isa>."""
    return re.match(rf"_Z(?:Z|GV|TV|TI|TS|GR)*NK?7convkit{len(isa)}{isa}", name) is not None


@pytest.mark.parametrize("isa", ISAS)
def test_an_algorithm_of_the_inventory_shows_its_table_and_nothing_else(isa: str) -> None:
    require("nm")
    registry = (ROOT / "src/cpp/algorithms/registry.def").read_text(encoding="utf-8")
    registered = set(re.findall(r"^CONVKIT_ALGORITHM\((\w+)\)", registry, re.MULTILINE))
    paths = [path for path in objects()[isa] if path.name.split(".")[0] in registered and "algorithms" in path.parts]
    assert {path.name.split(".")[0] for path in paths} == registered
    for path in paths:
        table = path.name.split(".")[0] + "_table"
        strong = [name for kind, name in symbols(path) if kind not in "VWu"]
        assert strong == [f"_ZN7convkit{len(isa)}{isa}{len(table)}{table}E"], path


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_the_namespace_can_be_merged(isa: str) -> None:
    """The linker keeps one of many weak symbols of a name: it might be the AVX-512 copy of a shared template."""
    require("nm")
    for path in objects()[isa]:
        for kind, name in symbols(path):
            assert in_namespace(name, isa), f"{path.name}: {kind} {name}"


# From outside of its namespace: the doors of parallel.hpp and inventory.hpp, and what compilers make of loops and of
# 128-bit numbers.
OUTSIDE = r"_ZN7convkit(8run_team|12team_barrier|13multiply_adds)E\w+|__divti3|mem(cpy|move|set)|strlen|_GLOBAL_\w+"


@pytest.mark.parametrize("isa", ISAS)
def test_kernels_ask_nothing_else_of_the_rest(isa: str) -> None:
    """No allocation, no lock, no exception: a kernel has the memory that it was given."""
    require("nm")
    for path in objects()[isa]:
        for line in output("nm", "--undefined-only", path).splitlines():
            name = line.split()[-1]
            assert in_namespace(name, isa) or re.fullmatch(OUTSIDE, name), f"{path.name}: {name}"


def included(path: Path, seen: set[Path]) -> list[tuple[Path, str]]:
    """Headers in angle brackets that a file of src/cpp pulls in, and who does; CONVKIT_VEC_HEADER is no file.

    isa/built.def, which the build writes, holds lines of isa/isa.def and includes nothing.
    """
    found = []
    for kind, name in re.findall(r'^#include ([<"])([^>"]+)', path.read_text(encoding="utf-8"), re.MULTILINE):
        own = ROOT / "src/cpp" / name
        if kind == "<":
            found.append((path, name))
        elif own not in seen and name != "isa/built.def":
            seen.add(own)
            found += included(own, seen)
    return found


def test_kernels_include_headers_of_c_only() -> None:
    seen: set[Path] = set()
    for folder in ("algorithms", "microkernels", "isa"):
        for path in sorted((ROOT / "src/cpp" / folder).rglob("*.[ch]pp")):
            for who, name in included(path, seen):
                assert name in ("cstddef", "cstdint", "cstring", "emmintrin.h", "immintrin.h"), (
                    f"{who.name} includes <{name}>"
                )


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_runs_at_load_time(isa: str) -> None:
    require("objdump")
    for path in objects()[isa]:
        assert not re.search(r"\.(init_array|ctors|preinit_array)", output("objdump", "-h", path)), path


@cache
def disassembly(path: Path) -> str:
    return output("objdump", "-d", "--no-show-raw-insn", "-M", "att", path)


def offending(path: Path, pattern: str) -> list[str]:
    return [line for line in disassembly(path).splitlines() if re.search(pattern, line)][:5]


# VEX and EVEX mnemonics begin with v; verr and verw are the only others that do.
VEX = r"\t(?!verr|verw)v[a-z0-9]+ "


def test_only_avx512_objects_use_its_registers() -> None:
    require("objdump")
    for kind, paths in objects().items():
        for path in paths:
            if kind != "avx512":
                assert not offending(path, r"%zmm|%k[0-7]\b|%[xy]mm(1[6-9]|2\d|3[01])\b"), path
    assert any(offending(path, "%zmm") for path in objects()["avx512"])


def test_portable_and_shared_objects_use_no_avx_at_all() -> None:
    require("objdump")
    for kind in ("portable", "shared"):
        for path in objects()[kind]:
            assert not offending(path, r"%ymm|" + VEX), path
    assert any(offending(path, "%ymm") for path in objects()["avx2"])


def test_every_source_has_a_name_of_its_own() -> None:
    names = [path.name for path in (ROOT / "src/cpp").rglob("*") if path.suffix in (".cpp", ".hpp", ".def")]
    assert sorted(names) == sorted(set(names))

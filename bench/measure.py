"""Everything that docs/performance.md and docs/accuracy.md show, measured: JSON under bench/results/<machine>/.

    python bench/measure.py --list                   the commands
    python bench/measure.py                          run those whose result is missing
    python bench/measure.py --again forward-vgg19    run again what begins like this
    python bench/pages.py                            then rewrite the pages and their pictures

Each command takes one to three minutes on an idle machine and may be repeated by itself. ``--wrap COMMAND`` puts
something before each of them, such as ``nice -n -5``.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
PEERS = "torch,onnxruntime,openvino,ncnn"
CONVKIT = [sys.executable, "-m", "convkit"]


def steps(teams: tuple[int, ...]) -> dict[str, list[str]]:
    """Name of each result, and the command that makes it (without the option for its file)."""
    found: dict[str, list[str]] = {}
    for network, batch, layouts in (
        ("vgg19", 1, ("NCHW", "NHWC")),
        ("resnet50", 1, ("NCHW", "NHWC")),
        ("mobilenet_v2", 1, ("NHWC",)),
        ("vgg19_cifar", 64, ("NCHW",)),
    ):
        which = ["--network", network, "--batch", str(batch)]
        for layout in layouts:
            for team in teams:
                found[f"forward-{network}-{layout.lower()}-{team}t"] = [
                    *CONVKIT, "bench", *which, "--layout", layout, "--threads", str(team), "--against", PEERS,
                ]  # fmt: skip
        if not network.startswith("vgg19"):
            continue
        for op, peers in (("forward", "none"), ("training", "torch")):
            for team in teams:
                found[f"bestof-{op}-{network}-{team}t"] = [
                    *CONVKIT, "bench", *which, "--op", op, "--threads", str(team), "--against", peers,
                    "--table", "bestof", "--seconds", "0.2",
                ]  # fmt: skip
    found["kernels-vgg19"] = [
        *CONVKIT, "bench", "--network", "vgg19", "--kernels", "all", "--threads", "1", "--against", "none",
        "--seconds", "0.1",
    ]  # fmt: skip
    found["overhead"] = [sys.executable, str(Path(__file__).with_name("overhead.py"))]
    found["accuracy"] = [sys.executable, str(Path(__file__).with_name("accuracy.py"))]
    return found


def machine() -> str:
    """The folder of this machine's results."""
    from convkit.tuner.machine import machine_class

    kind = machine_class()
    return f"{kind.vendor}-{kind.family}-{kind.model}-{kind.isa}"


def made(command: list[str], target: Path) -> bool:
    """Run a command that writes a file, and put the file in its place; False where the command failed."""
    # An interrupted command may write what it has so far, which would then pass for the result.
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / target.name
        if subprocess.run([*command, str(written)], stdout=subprocess.DEVNULL, check=False).returncode:
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(written, target)
    return True


def main() -> int:
    """Run what is missing or asked for."""
    from convkit import _core

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only results whose names begin like this")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    parser.add_argument("--wrap", default="", help="a command to put before each")
    arguments = parser.parse_args()
    folder = RESULTS / machine()
    failed = []
    for name, command in steps(tuple(sorted({1, _core.available_cpus()}))).items():
        target = folder / f"{name}.json"
        if arguments.names and not name.startswith(tuple(arguments.names)):
            continue
        if target.exists() and not arguments.again and not arguments.list:
            continue
        whole = [*shlex.split(arguments.wrap), *command, "--json"]
        print(shlex.join([*whole, str(target)]), flush=True)
        if not arguments.list and not made(whole, target):
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Resident memory of processes that compute a PyTorch model, without convkit and with both choices of its memory.

Takes names of `convkit.torch.networks`: ``python bench/torch_memory.py vgg16 unet``.
"""

from __future__ import annotations

import subprocess
import sys

import torch
from first_sight import resident

from convkit.tables import aligned
from convkit.torch import networks, optimize

KINDS = ("eager", "low", "fast")


def compute(name: str, kind: str) -> None:
    """Run a model some times, and print what the process has then."""
    model, x = networks.make(name)
    with torch.no_grad():
        if kind != "eager":
            model = optimize(model, x, inplace=True, memory=kind, verbose=False)
        for _ in range(4):
            model(x)
    print(resident() / 1e6)


def measured(name: str, kind: str) -> str:
    """`compute` in a process of its own."""
    command = [sys.executable, __file__, "--one", name, kind]
    return f"{float(subprocess.run(command, capture_output=True, text=True, check=True).stdout):.0f}"


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--one"]:
        compute(*sys.argv[2:])
        return
    rows = [(name, *(measured(name, kind) for kind in KINDS)) for name in sys.argv[1:] or ("vgg16", "unet")]
    print("\n".join(aligned([("resident, MB", *KINDS), *rows], left=(0,))))


if __name__ == "__main__":
    main()

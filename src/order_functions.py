"""Writes a linker script that puts functions side by side that are alike: so a wheel compresses best.

    python src/order_functions.py NM SCRIPT OBJECT...

Alike are the instances of a template for float and double and for each instruction set, then those for other sizes. The
objects are compiled with -ffunction-sections.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CONSTANT = re.compile(r"L[bil]n?(\d+)E")


def likeness(place: tuple[str, str]) -> tuple[str, list[int], str, str]:
    """What to sort a mangled name by, in its folder of objects; f is float there, and d is double."""
    folder, name = place
    isa = folder.removeprefix("convkit_").removesuffix(".dir")
    shared = CONSTANT.sub("", name).replace(f"{len(isa)}{isa}", "").replace("d", "f")
    return shared, [int(number) for number in CONSTANT.findall(name)], isa, name


def main() -> None:
    nm, script, *objects = sys.argv[1:]
    listing = subprocess.run(
        [nm, "--print-file-name", "--defined-only", *objects], capture_output=True, text=True, check=True
    ).stdout
    functions = set()
    for line in listing.splitlines():
        path, _, symbol = line.rpartition(":")
        _, kind, name = symbol.split()
        if kind in "tTwW":
            functions.add((next(part for part in Path(path).parts if part.endswith(".dir")), name))
    order = dict.fromkeys(name for _, name in sorted(functions, key=likeness))
    sections = "\n".join(f"    *(.text.{name})" for name in order)
    Path(script).write_text(f"SECTIONS\n{{\n  .text.kernels :\n  {{\n{sections}\n  }}\n}}\nINSERT AFTER .text;\n")


if __name__ == "__main__":
    main()

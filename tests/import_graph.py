"""Which module imports which: rooms from top to bottom, what each asks of those below, and arrows that go up.

    python tests/import_graph.py

Every import counts: those within functions and those for type checkers too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "convkit"

# From top to bottom; a name stands for the package or module and all within it that is not named elsewhere.
ROOMS: tuple[tuple[str, ...], ...] = (
    ("convkit.__main__",),
    ("convkit.cli",),
    ("convkit.commands",),
    ("convkit.pictures",),
    ("convkit.contest",),
    ("convkit.torch", "convkit.onnx", "convkit.ndimage"),
    ("convkit",),
    ("convkit.config", "convkit.doctor"),
    ("convkit.training",),
    ("convkit.functional", "convkit.signals", "convkit.volumes"),
    ("convkit.grad", "convkit.images", "convkit.profiling", "convkit.reference"),
    ("convkit.best_of", "convkit.report", "convkit.calibration", "convkit.fleet"),
    ("convkit.networks",),
    ("convkit.tuner",),
    ("convkit.tuner.modes",),
    ("convkit.tuner.measuring",),
    ("convkit.tuner.choosing",),
    ("convkit.tuner.evidence",),
    ("convkit.tuner.inventory", "convkit.tuner.machine", "convkit.lazy"),
    ("convkit.tuner.process",),
    ("convkit.problem",),
    ("convkit._core",),
    ("convkit.typing", "convkit.tables", "convkit.distribution"),
)


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Files of the package by module name; the compiled core by its stub."""
    found = {}
    for path in sorted([*package.rglob("*.py"), package / "_core.pyi"]):
        name = ".".join([package.name, *path.relative_to(package).with_suffix("").parts])
        found[name.removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """The package's own modules that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in known else node.module)
    return {target for target in found if target in known and target != name}


def room(name: str) -> int:
    """The place of a module's room, the topmost is 0."""
    while name:
        for place, names in enumerate(ROOMS):
            if name in names:
                return place
        name = name.rpartition(".")[0]
    raise LookupError


def graph() -> dict[str, set[str]]:
    """Of each module those that it imports."""
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def upward(arrows: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Imports from a room above."""
    for name, targets in arrows.items():
        for target in sorted(targets):
            if room(target) < room(name):
                yield name, target


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty if there are none."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for target in sorted(arrows[name]):
                found = search(target, [*path, name])
                if found:
                    return found
            done.add(name)
        return []

    return next(filter(None, (search(name, []) for name in sorted(arrows))), [])


def main() -> int:
    """Print the graph; exit status 1 where an arrow goes up or round."""
    arrows = graph()
    for place, names in enumerate(ROOMS):
        print(", ".join(names))
        here = [name for name in arrows if room(name) == place]
        for name in here:
            below = sorted(target.removeprefix("convkit.") for target in arrows[name])
            print(f"    {name.removeprefix('convkit.'):32} {', '.join(below)}".rstrip())
    wrong = [f"upwards: {name} -> {target}" for name, target in upward(arrows)]
    wrong += [f"in a circle: {' -> '.join(circle(arrows))}"] if circle(arrows) else []
    print(*wrong, f"{len(arrows)} modules, {sum(map(len, arrows.values()))} arrows, {len(wrong)} wrong", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

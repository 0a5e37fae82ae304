"""show_config: what somebody who reads a bug report wants to know, in one paste."""

from __future__ import annotations

import os

from convkit.tuner.process import planning

_VARIABLES = (
    "CONVKIT_ISA", "CONVKIT_DB", "CONVKIT_MODE", "CONVKIT_ACCURACY", "CONVKIT_NUM_THREADS", "CONVKIT_VERBOSE",
    "CONVKIT_OPENMP", "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY",
)  # fmt: skip


def show_config() -> None:
    """Print versions, machine, kernels, threads, database and environment."""
    print(config_text())


def config_text() -> str:
    """What `show_config` prints."""
    with planning:
        return _config_text()


def _config_text() -> str:
    import numpy as np

    from convkit import _core
    from convkit.tuner import machine
    from convkit.tuner.choosing.selector import selector
    from convkit.tuner.modes import settings

    build, cpu = _core.build_info(), _core.cpu()
    now = settings()
    lines = [
        ("convkit", ", ".join(f"{key} {value}" for key, value in machine.versions().items())),
        ("build", ", ".join(f"{key} {value}" for key, value in build.items() if key not in ("version", "compiler"))),
        ("numpy", np.__version__),
        ("cpu", str(cpu.get("brand", "")).strip()),
        ("machine class", str(machine.machine_class())),
        ("isa", f"{_core.active_isa()} (usable: {', '.join(_core.usable_isas())})"),
        ("kernels", f"{len(selector().inventory.kernels)} of families {', '.join(selector().inventory.families)}"),
        ("threads", f"{_core.default_threads()} by default, {_core.available_cpus()} CPUs, "
                    f"{machine.affinity_class()}"),
        ("thread runtime", _core.thread_runtime() or "convkit's own threads"),
        ("mode", now.mode),
        ("cost model", selector().constants.source),
        *_databases(),
        *((name, os.environ[name]) for name in _VARIABLES if name in os.environ),
    ]  # fmt: skip
    return "\n".join(f"{name:20} {value}" for name, value in lines)


def _databases() -> list[tuple[str, str]]:
    import sqlite3
    from pathlib import Path

    from convkit.tuner.evidence.database import Database, DatabaseError
    from convkit.tuner.evidence.paths import paths

    def describe(path: Path, owned: bool) -> str:
        try:
            counts = Database(path, owned=owned).counts()
        except DatabaseError as error:
            return str(error)
        return f"{path}: {counts['trials']} trials of {counts['problems']} problems"

    found = paths()
    user = f"none: {found.reason}" if found.user is None else describe(Path(found.user), True)
    lines = [("user database", user)]
    lines += [("site database", describe(Path(path), False)) for path in found.sites if os.path.exists(path)]
    return [*lines, ("sqlite", sqlite3.sqlite_version)]

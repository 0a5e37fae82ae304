"""What this package is called where it is installed from: the import name `convkit` is another project's there."""

from __future__ import annotations

__all__ = ["install_line", "name"]

_NAME = "convkit-cpu"
_SCRIPT = "convkit.cli:main"


def name() -> str:
    """The name of the installed distribution that the script `convkit` came with; ours if nothing is installed."""
    from importlib.metadata import entry_points

    for script in entry_points(group="console_scripts", name="convkit"):
        if script.value == _SCRIPT and script.dist is not None:
            return script.dist.name
    return _NAME


def install_line(*extras: str) -> str:
    """The command that adds extras to what is installed."""
    return f"pip install '{name()}[{','.join(extras)}]'"

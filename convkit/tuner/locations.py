"""Where tuning databases are: the user's file, the site's files, and what CONVKIT_DB says instead."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

FILE_NAME = "trials-v1.sqlite"
_MEMORY = ":memory:"


@dataclass(frozen=True, slots=True)
class Paths:
    """The database files of this process.

    Attributes
    ----------
    user : Path or None
        Read and written; None where only memory is used.
    sites : list of Path
        Read only, in order.
    reason : str
        Why `user` is None, and what would change that.
    """

    user: Path | None
    sites: list[Path] = field(default_factory=list)
    reason: str = ""


def paths() -> Paths:
    """Where this process looks, from CONVKIT_DB or else the user and site data directories. Touches no file.

    CONVKIT_DB is a path list: its first entry is read and written, the others are read. The entry ``:memory:`` stands
    for no file.
    """
    text = os.environ.get("CONVKIT_DB")
    if text:
        entries = [part for part in re.split(f"({re.escape(_MEMORY)})|{os.pathsep}", text) if part]
        first, *rest = entries or [_MEMORY]
        sites = [Path(entry).absolute() for entry in rest if entry != _MEMORY]
        if first == _MEMORY:
            return Paths(None, sites, "CONVKIT_DB asks for memory only")
        return Paths(Path(first).absolute(), sites)
    import platformdirs

    site = platformdirs.PlatformDirs("convkit", appauthor=False, multipath=True).site_data_dir
    sites = [Path(part) / FILE_NAME for part in site.split(os.pathsep) if os.path.isabs(part)]
    user = Path(platformdirs.user_data_dir("convkit", appauthor=False))
    if not user.is_absolute():
        return Paths(None, sites, "there is no absolute home directory; set HOME, XDG_DATA_HOME or CONVKIT_DB")
    return Paths(user / FILE_NAME, sites)


def is_default(path: Path) -> bool:
    """True for the file in the user data directory, which is convkit's own by its place."""
    import platformdirs

    user = Path(platformdirs.user_data_dir("convkit", appauthor=False))
    return user.is_absolute() and path == user / FILE_NAME

"""Where tuning databases are: the user's file, the site's files, and what CONVKIT_DB says instead.

Paths are strings here: a first call that finds no file need not import pathlib.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "trials-v1.sqlite"
_MEMORY = ":memory:"


class Paths(NamedTuple):
    """The database files of this process.

    Attributes
    ----------
    user : str or None
        Read and written; None if only memory is used.
    sites : list of str
        Read only, in order.
    reason : str
        Why `user` is None, and what would change that.
    """

    user: str | None
    sites: list[str]
    reason: str = ""


def paths() -> Paths:
    """Where this process looks, from CONVKIT_DB or else the user and site data directories. Touches no file.

    CONVKIT_DB is a path list: its first entry is read and written, the others are read. "~" is the home directory, the
    entry ``:memory:`` stands for no file.
    """
    text = os.environ.get("CONVKIT_DB")
    if text:
        entries = [part for part in re.split(f"({re.escape(_MEMORY)})|{os.pathsep}", text) if part]
        # Nobody but a shell turns "~" into a home, and not in the middle of a list or in a service's settings.
        first, *rest = map(os.path.expanduser, entries or [_MEMORY])
        sites = [os.path.abspath(entry) for entry in rest if entry != _MEMORY and not entry.startswith("~")]
        if first == _MEMORY:
            return Paths(None, sites, "CONVKIT_DB asks for memory only")
        if first.startswith("~"):
            return Paths(None, sites, f"CONVKIT_DB begins with a home directory that is not known: {first}")
        return Paths(os.path.abspath(first), sites)
    import platformdirs

    site = platformdirs.PlatformDirs("convkit", appauthor=False, multipath=True).site_data_dir
    sites = [os.path.join(part, FILE_NAME) for part in site.split(os.pathsep) if os.path.isabs(part)]
    user = _default()
    if user is None:
        return Paths(None, sites, "there is no absolute home directory; set HOME, XDG_DATA_HOME or CONVKIT_DB")
    return Paths(user, sites)


def is_default(path: Path) -> bool:
    """True for the file in the user data directory, which is convkit's own by its place."""
    return os.fspath(path) == _default()


def _default() -> str | None:
    """The file in the user data directory; None for somebody without a home, as there are in containers."""
    import platformdirs

    try:
        user = platformdirs.user_data_dir("convkit", appauthor=False)
    except RuntimeError:  # platformdirs before 4.12 returned what begins with "~"
        return None
    return os.path.join(user, FILE_NAME) if os.path.isabs(user) else None

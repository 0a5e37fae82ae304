"""Files that commands write. Each is tried before the work begins, and in the end it is whole or was never there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

__all__ = ["STDOUT", "Outputs", "try_file"]

# The path that stands for standard output.
STDOUT = Path("-")


class Outputs:
    """What one command writes, as a context manager.

    `file` and `folder` return where to write until the block ends; then everything is put in its place, or thrown away
    if the block raised. They raise OSError at once if that place cannot be written.
    """

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []
        self._scratch: list[Path] = []

    def file(self, path: Path) -> Path:
        """Where to write a file; "-" is standard output, and what is there but no regular file is written in place."""
        if path == STDOUT or (path.exists() and not path.is_file() and not path.is_dir()):
            staged = Path(tempfile.mkdtemp(prefix="convkit-"))
            self._scratch.append(staged)
            staged /= "output"
        else:
            path = path.resolve()
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            if path.exists() and not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            staged = path.with_name(f".{path.name}.{os.getpid()}.part")
            self._scratch.append(staged)
            with _blamed(path):
                staged.open("w").close()
        self._staged.append((staged, path))
        return staged

    def folder(self, path: Path) -> Path:
        """Where to write any number of files that belong beside each other in the folder `path`."""
        path = path.resolve()
        staged = path / f".convkit.{os.getpid()}.part"
        with _blamed(path):
            staged.mkdir(exist_ok=True)
        self._scratch.append(staged)
        self._staged.append((staged, path))
        return staged

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for staged, path in self._staged:
                    _put(staged, path)
        finally:
            for scratch in self._scratch:
                if scratch.is_dir():
                    shutil.rmtree(scratch, ignore_errors=True)
                else:
                    scratch.unlink(missing_ok=True)


def try_file(path: Path) -> None:
    """Raise OSError if a file could not be written at the end of long work; make its folder."""
    with _blamed(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextlib.contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Name the path that was asked for in an OSError, not the one beside it that was tried."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _put(staged: Path, path: Path) -> None:
    if staged.is_dir():
        for one in sorted(staged.iterdir()):
            os.replace(one, path / one.name)
    elif path == STDOUT:
        sys.stdout.write(staged.read_text(encoding="utf-8"))
        sys.stdout.flush()
    elif path.is_file() or not path.exists():
        if path.exists():
            shutil.copymode(path, staged)
        os.replace(staged, path)
    else:
        with _blamed(path), staged.open("rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)

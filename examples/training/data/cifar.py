"""CIFAR-10 from its binary version (https://www.cs.toronto.edu/~kriz/cifar.html): a folder, or the archive itself."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np

from examples.training.data import DataError, Dataset
from examples.training.workers import Array

__all__ = ["ARCHIVE", "CHECKSUM", "load", "read"]

ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
CHECKSUM = "c32a1d4ab5d03f1284b67883e8d87530"  # as published beside the archive
TRAIN, TEST = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"
RECORD = 1 + 3 * 32 * 32


def read(data: bytes, name: str) -> tuple[Array, Array]:
    """Images and labels of one file: records of a label and 3 x 32 x 32 bytes."""
    if not data or len(data) % RECORD:
        raise DataError(f"{name} should be a whole number of records of {RECORD} bytes, it has {len(data)} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0].astype(int)
    if labels.max() > 9:
        raise DataError(f"{name} has the label {labels.max()}; CIFAR-10 has 0 to 9")
    return records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255), labels


def load(folder: Path, checksum: str = CHECKSUM) -> Dataset:
    """The data set from `folder`, which holds the binary files, their folder, or the archive."""
    for place in (folder, folder / FOLDER):
        if (place / TEST).is_file():
            return _dataset({name: _bytes(place / name) for name in (*TRAIN, TEST)})
    path = folder / ARCHIVE
    if not path.is_file():
        raise DataError(f"CIFAR-10 needs {TEST} or {FOLDER}/ or {ARCHIVE} in {folder}; there is none of them")
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != checksum:
        raise DataError(f"{path} is not the published file: its MD5 is {found}, not {checksum}. Get it again.")
    parts = {}
    try:
        with tarfile.open(path) as archive:
            for name in (*TRAIN, TEST):
                member = archive.extractfile(f"{FOLDER}/{name}")
                parts[name] = member.read() if member else b""
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return _dataset(parts)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _dataset(parts: dict[str, bytes]) -> Dataset:
    read_parts = {name: read(data, name) for name, data in parts.items()}
    train = np.concatenate([read_parts[name][0] for name in TRAIN])
    return Dataset("cifar-10", train, np.concatenate([read_parts[name][1] for name in TRAIN]), *read_parts[TEST])

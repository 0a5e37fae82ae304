"""MNIST and Fashion-MNIST from their published IDX files (http://yann.lecun.com/exdb/mnist describes the format)."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from examples.training.data import DataError, Dataset
from examples.training.workers import Array

__all__ = ["CHECKSUMS", "load", "read"]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
# Of the compressed files as they were published; torchvision lists the same.
CHECKSUMS: dict[str, tuple[str, ...]] = {
    "mnist": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion-mnist": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
}


def read(path: Path) -> Array:
    """The array in an IDX file, compressed or not; DataError says what is wrong with it."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES:
        raise DataError(f"{path} is not an IDX file: it begins with {data[:4]!r}")
    dtype, ndim = np.dtype(TYPES[data[2]]), data[3]
    begin = 4 + 4 * ndim
    if len(data) < begin:
        raise DataError(f"{path} ends within its header")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    expected = begin + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise DataError(f"{path} should have {expected} bytes for shape {shape}, it has {len(data)}")
    return np.frombuffer(data, dtype, offset=begin).reshape(shape)


def load(folder: Path, name: str, checksums: Mapping[str, tuple[str, ...]] = CHECKSUMS) -> Dataset:
    """A data set from the four files in a folder, or in its subfolder of the set's name.

    Compressed files are held against their published checksums; what was unpacked is held against its header.
    """
    parts = []
    for file, checksum in zip(FILES, checksums[name], strict=True):
        path = _find(folder, name, file)
        if path.suffix == ".gz":
            found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            if found != checksum:
                raise DataError(f"{path} is not the published file: its MD5 is {found}, not {checksum}. Get it again.")
        parts.append(read(path))
    train, train_labels, test, test_labels = parts
    for images, labels, part in ((train, train_labels, "training"), (test, test_labels, "test")):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{folder}: the {part} part of {name} has images {images.shape} and labels {labels.shape}; "
                "expected (count, rows, columns) and (count,)"
            )
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= 9:
            raise DataError(f"{folder}: labels of the {part} part of {name} are not within 0 to 9")
    return Dataset(name, _scaled(train), train_labels.astype(int), _scaled(test), test_labels.astype(int))


def _find(folder: Path, name: str, file: str) -> Path:
    tried = [place / end for place in (folder, folder / name) for end in (file, f"{file}.gz")]
    for path in tried:
        if path.is_file():
            return path
    raise DataError(f"{name} needs {file} or {file}.gz in {folder} or {folder / name}; there is neither")


def _scaled(images: Array) -> Array:
    return np.asarray(images[:, None], np.float32) / np.float32(255)

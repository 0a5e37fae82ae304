"""Pictures from a folder with a subfolder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.training.data import DataError, Dataset
from examples.training.workers import Array

__all__ = ["load", "read"]

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".ppm"}


def read(path: Path, size: int) -> Array:
    """One picture as (3, size, size), float32, zero to one: its middle square, resized."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            square = picture.convert("RGB").resize((size, size), box=(left, top, left + side, top + side))
            return np.asarray(square, np.float32).transpose(2, 0, 1) / np.float32(255)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from None


def load(folder: Path, size: int, seed: int = 0) -> Dataset:
    """All pictures of the classes in `folder`; every fifth, in an order of the seed's, is for tests."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    files = [(path, i) for i, name in enumerate(names) for path in sorted((folder / name).iterdir())]
    files = [(path, i) for path, i in files if path.suffix.lower() in ENDINGS]
    if len(names) < 2 or len(files) < 5:
        raise DataError(f"{folder} must have a subfolder with pictures for each of two or more classes, got {names}")
    order = np.random.default_rng(seed).permutation(len(files))
    images = np.stack([read(files[i][0], size) for i in order])
    labels = np.array([files[i][1] for i in order])
    test = np.arange(len(files)) % 5 == 0
    return Dataset(folder.name, images[~test], labels[~test], images[test], labels[test])

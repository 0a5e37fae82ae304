"""The examples' data sets: loaders on small files that these tests write, and what damaged ones are told."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.training.data import DataError, batches, cifar, digits, folder, idx, shapes


def idx_bytes(array: np.ndarray[Any, Any], code: int = 8) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def write_mnist(place: Path, compressed: bool) -> tuple[str, ...]:
    """Four small files of MNIST's form, and their checksums."""
    rng = np.random.default_rng(0)
    checksums = []
    place.mkdir(parents=True, exist_ok=True)
    for name, count in zip(idx.FILES, (7, 7, 3, 3), strict=True):
        shape: tuple[int, ...] = (count, 28, 28) if "images" in name else (count,)
        data = idx_bytes(rng.integers(0, 256 if "images" in name else 10, shape).astype(np.uint8))
        data = gzip.compress(data, mtime=0) if compressed else data
        (place / (name + ".gz" * compressed)).write_bytes(data)
        checksums.append(hashlib.md5(data, usedforsecurity=False).hexdigest())
    return tuple(checksums)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("sub", ["", "fashion-mnist"])
def test_idx_files(tmp_path: Path, compressed: bool, sub: str) -> None:
    checksums = write_mnist(tmp_path / sub, compressed)
    data = idx.load(tmp_path, "fashion-mnist", {"fashion-mnist": checksums})
    assert data.train.shape == (7, 1, 28, 28)
    assert data.test.shape == (3, 1, 28, 28)
    assert data.train.dtype == np.float32
    assert 0 <= data.train.min() < data.train.max() <= 1
    raw = idx.read(next((tmp_path / sub).glob("train-images*")))
    np.testing.assert_allclose(data.train[:, 0] * 255, raw, rtol=1e-6)
    assert data.train_labels.dtype.kind == "i"
    assert data.cut(2, 1).train.shape == (2, 1, 28, 28)


def test_the_digits_name_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install '\.\[examples\]'"):
        digits.load()


def test_the_published_files_only(tmp_path: Path) -> None:
    write_mnist(tmp_path, compressed=True)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is not the published file: its MD5 is"):
        idx.load(tmp_path, "mnist")
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"mnist needs train-images-idx3-ubyte or .*there is neither"):
        idx.load(tmp_path, "mnist")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x1f\x8b\x08\x00", "not an IDX file"),
        (b"\0\0\x07\x01\0\0\0\x01\0", "not an IDX file"),
        (b"\0\0\x08\x03\0\0", "ends within its header"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8))[:-1], r"should have 34 bytes for shape \(2, 3, 3\), it has 33"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8)) + b"!", "it has 35"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"1", "should have"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        idx.read(path)


def test_damaged_compression_and_types(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    for data in (b"no gzip", gzip.compress(b"0" * 1000)[:20]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="cannot be read"):
            idx.read(path)
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    path = tmp_path / "numbers"
    path.write_bytes(idx_bytes(array, 12))
    np.testing.assert_array_equal(idx.read(path), array)
    with pytest.raises(DataError, match="cannot be read"):
        idx.read(tmp_path / "nowhere")


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    write_mnist(tmp_path, compressed=False)
    (tmp_path / idx.FILES[1]).write_bytes(idx_bytes(np.zeros(6, np.uint8)))
    with pytest.raises(DataError, match=r"training part of mnist has images \(7, 28, 28\) and labels \(6,\)"):
        idx.load(tmp_path, "mnist")
    (tmp_path / idx.FILES[1]).write_bytes(idx_bytes(np.full(7, 10, np.uint8)))
    with pytest.raises(DataError, match="labels of the training part of mnist are not within 0 to 9"):
        idx.load(tmp_path, "mnist")


def cifar_records(count: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (count, cifar.RECORD)).astype(np.uint8)
    records[:, 0] = np.arange(count) % 10
    return records.tobytes()


@pytest.mark.parametrize("form", ["files", "folder", "archive"])
def test_cifar_files(tmp_path: Path, form: str) -> None:
    parts = {name: cifar_records(4, i) for i, name in enumerate((*cifar.TRAIN, cifar.TEST))}
    checksum = cifar.CHECKSUM
    if form == "archive":
        path = tmp_path / cifar.ARCHIVE
        with tarfile.open(path, "w:gz") as archive:
            for name, data in parts.items():
                info = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        with pytest.raises(DataError, match="is not the published file"):
            cifar.load(tmp_path)
        checksum = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    else:
        place = tmp_path / cifar.FOLDER if form == "folder" else tmp_path
        place.mkdir(exist_ok=True)
        for name, data in parts.items():
            (place / name).write_bytes(data)
    data_set = cifar.load(tmp_path, checksum)
    assert data_set.train.shape == (20, 3, 32, 32)
    assert data_set.test_labels.tolist() == [0, 1, 2, 3]
    record = np.frombuffer(parts["data_batch_2.bin"], np.uint8).reshape(4, -1)[1]
    np.testing.assert_allclose(data_set.train[5].ravel() * 255, record[1:], rtol=1e-6)


def test_damaged_cifar_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is none of them"):
        cifar.load(tmp_path)
    with pytest.raises(DataError, match="whole number of records of 3073 bytes, it has 3072"):
        cifar.read(cifar_records(1, 0)[:-1], "x.bin")
    with pytest.raises(DataError, match="label 255"):
        cifar.read(b"\xff" + cifar_records(1, 0)[1:], "x.bin")
    (tmp_path / cifar.TEST).write_bytes(cifar_records(1, 0))
    with pytest.raises(DataError, match=r"data_batch_1\.bin cannot be read"):
        cifar.load(tmp_path)
    (tmp_path / cifar.TEST).unlink()
    path = tmp_path / cifar.ARCHIVE
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        cifar.load(tmp_path, hashlib.md5(b"no archive", usedforsecurity=False).hexdigest())


def test_digits_fill_twenty_eight_pixels() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    data = digits.load()
    assert data.train.shape == (1437, 1, 28, 28)
    assert data.test.shape == (360, 1, 28, 28)
    assert data.train.min() == 0.0
    assert 0.9 < data.train.max() <= 1.0
    assert sorted(set(data.test_labels.tolist())) == list(range(10))
    np.testing.assert_array_equal(data.train, digits.load().train)


def test_enlarging_keeps_even_images_and_lines() -> None:
    np.testing.assert_allclose(digits.enlarged(np.ones((1, 8, 8)))[0, 2:26, 2:26], 1.0)
    line = np.broadcast_to(np.arange(8.0), (1, 8, 8))
    found = digits.enlarged(line)[0, 14, 2:26]
    np.testing.assert_allclose(np.diff(found)[1:-1], 1 / 3, atol=1e-12)


def test_drawn_shapes_come_from_the_seed() -> None:
    one, same, other = (shapes.load("shapes", 32, 10, 20, 10, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train, same.train)
    assert (one.train != other.train).any()
    assert one.train.shape == (20, 3, 32, 32)
    assert one.train.dtype == np.float32
    assert one.train_labels.tolist() == list(range(10)) * 2
    rng = np.random.default_rng(0)
    for kind in shapes.KINDS:
        image = shapes.draw(kind, 64, rng)
        assert 0 <= image.min() < image.max() <= 1
        assert image.std() > 0.05


def test_pictures_from_folders(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name, colour in (("cats", (255, 0, 0)), ("dogs", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for i in range(5):
            pil.new("RGB", (40 + i, 30), colour).save(tmp_path / name / f"{i}.png")
        (tmp_path / name / "notes.txt").write_text("no picture")
    data = folder.load(tmp_path, 16)
    assert data.train.shape == (8, 3, 16, 16)
    assert data.test.shape == (2, 3, 16, 16)
    for image, label in zip(data.train, data.train_labels, strict=True):
        np.testing.assert_allclose(image[:, 0, 0], (0, 0, 1) if label else (1, 0, 0))
    (tmp_path / "cats" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png cannot be read as a picture"):
        folder.load(tmp_path, 16)
    with pytest.raises(DataError, match="two or more classes"):
        folder.load(tmp_path / "cats", 16)


def test_every_epoch_sees_every_image_once() -> None:
    first, again, second = ([b.tolist() for b in batches(10, 4, 3, epoch)] for epoch in (0, 0, 1))
    assert first == again != second
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(i for batch in first for i in batch) == list(range(10))

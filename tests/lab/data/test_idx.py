"""The IDX parser on whole and on broken files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from normwright.errors import DataError
from normwright.lab.data.idx import read_idx

WriteIdx = Callable[[Path, np.ndarray], Path]
IMAGES = np.arange(2 * 3 * 5).reshape(2, 3, 5)


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_reads_what_was_written(tmp_path: Path, write_idx: WriteIdx, name: str) -> None:
    read = read_idx(write_idx(tmp_path / name, IMAGES), axes=3)
    assert np.array_equal(read.numpy(), IMAGES)


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_length_names_file_and_both_counts(tmp_path: Path, write_idx: WriteIdx, change: int) -> None:
    path = write_idx(tmp_path / "images", IMAGES)
    content = path.read_bytes()
    path.write_bytes(content[:-1] if change < 0 else content + b"\0")
    with pytest.raises(DataError, match=rf"{path}.* 46 bytes .* {46 + change} were found.*fetch it again"):
        read_idx(path, axes=3)


def test_half_written_gz_names_file_and_both_counts(tmp_path: Path, write_idx: WriteIdx) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (100, 28, 28))
    path = write_idx(tmp_path / "images.gz", noise)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{path}.* 78,416 bytes .*but [\d,]+ were found.*fetch it again"):
        read_idx(path, axes=3)


def test_every_shortened_gz_is_refused(tmp_path: Path, write_idx: WriteIdx) -> None:
    path = write_idx(tmp_path / "images.gz", IMAGES)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"images\.gz"):
            read_idx(path, axes=3)


def test_gz_with_a_wrong_checksum(tmp_path: Path, write_idx: WriteIdx) -> None:
    path = write_idx(tmp_path / "images.gz", IMAGES)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_idx(path, axes=3)


def test_gz_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="Not a gzipped file"):
        read_idx(path, axes=3)


def test_wrong_magic(tmp_path: Path, write_idx: WriteIdx) -> None:
    labels = write_idx(tmp_path / "labels", np.arange(20))
    with pytest.raises(DataError, match=r"must begin with the bytes 00 00 08 03.* begins with 00 00 08 01"):
        read_idx(labels, axes=3)


def test_no_samples(tmp_path: Path, write_idx: WriteIdx) -> None:
    with pytest.raises(DataError, match="must hold samples"):
        read_idx(write_idx(tmp_path / "labels", np.empty(0)), axes=1)


def test_stated_size_beyond_memory_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12))
    with pytest.raises(DataError, match=r"but 16 were found"):
        read_idx(path, axes=3)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be readable"):
        read_idx(tmp_path, axes=1)

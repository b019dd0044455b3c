"""CIFAR-10's binary version, small and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from normwright.errors import DataError
from normwright.lab.data import load
from normwright.lab.data.cifar import read_cifar10
from normwright.lab.recipe import DataRecipe

CIFAR10 = DataRecipe(name="cifar10", validation=0.2)
WriteCifar = Callable[[Path], Path]


def test_splits_and_shapes(tmp_path: Path, write_cifar10: WriteCifar) -> None:
    data = load(CIFAR10, directory=write_cifar10(tmp_path))
    assert data.sample_shape == (3, 32, 32)
    assert (len(data.train_x), len(data.validation_x), len(data.test_x)) == (80, 20, 20)
    assert data.classes[0] == "airplane"


def test_planes_are_red_green_blue_by_rows(tmp_path: Path, write_cifar10: WriteCifar) -> None:
    content = (write_cifar10(tmp_path) / "data_batch_2.bin").read_bytes()
    raw = read_cifar10(tmp_path)
    # Record 3 of the second batch of 20: pixel (green, row 1, column 2).
    assert raw.train_x[23, 1, 1, 2] == content[3 * 3073 + 1 + 1024 + 32 + 2]
    assert raw.train_y[23] == content[3 * 3073]


@pytest.mark.parametrize("length", [0, 1, 3072, 20 * 3073 - 1, 30_000])
def test_half_written_batch_names_file_and_counts(
    tmp_path: Path, write_cifar10: WriteCifar, length: int
) -> None:
    path = write_cifar10(tmp_path) / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        DataError, match=rf"{path}.* 3,073 bytes .* {length:,} bytes were found.*fetch it again"
    ):
        load(CIFAR10, directory=tmp_path)


def test_batch_cut_between_records(tmp_path: Path, write_cifar10: WriteCifar) -> None:
    path = write_cifar10(tmp_path) / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[: 7 * 3073])
    with pytest.raises(DataError, match=rf"{path} .* 7 records where data_batch_1.bin holds 20"):
        load(CIFAR10, directory=tmp_path)


def test_label_out_of_range(tmp_path: Path, write_cifar10: WriteCifar) -> None:
    path = write_cifar10(tmp_path) / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[5 * 3073] = 10
    path.write_bytes(content)
    with pytest.raises(DataError, match="10 came at sample 5 of the test split"):
        load(CIFAR10, directory=tmp_path)


def test_pickled_version_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"not even a pickle")
    with pytest.raises(DataError, match=r"cifar-10-batches-py.* is not read"):
        load(CIFAR10, directory=tmp_path)


def test_channels_are_standardised_one_by_one(tmp_path: Path, write_cifar10: WriteCifar) -> None:
    for path in write_cifar10(tmp_path).glob("*.bin"):
        content = bytearray(path.read_bytes())
        for record in range(20):
            start = record * 3073 + 1
            content[start : start + 1024] = bytes(byte // 16 for byte in content[start : start + 1024])
        path.write_bytes(content)
    x = load(CIFAR10, directory=tmp_path).train_x.double()
    deviation = x.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-6)

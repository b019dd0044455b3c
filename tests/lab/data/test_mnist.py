"""MNIST and Fashion-MNIST, out of small real files and out of the Debian package."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from normwright.errors import DataError
from normwright.lab.data import load
from normwright.lab.data.mnist import FASHION_MNIST, FIRST_LABELS
from normwright.lab.recipe import DataRecipe

WriteMnist = Callable[..., Path]
WriteIdx = Callable[[Path, np.ndarray], Path]
MNIST = DataRecipe(name="mnist", validation=0.25)


def test_splits_shapes_and_classes(tmp_path: Path, write_mnist: WriteMnist) -> None:
    data = load(MNIST, directory=write_mnist(tmp_path))
    assert data.sample_shape == (1, 4, 4)
    assert (len(data.train_x), len(data.validation_x), len(data.test_x)) == (30, 10, 20)
    assert data.classes == tuple("0123456789")
    assert data.train_x.dtype == torch.float32


def test_label_out_of_range_names_label_place_and_split(
    tmp_path: Path, write_mnist: WriteMnist, write_idx: WriteIdx
) -> None:
    labels = np.arange(40) % 10
    labels[7] = 12
    write_idx(write_mnist(tmp_path) / "train-labels-idx1-ubyte.gz", labels)
    with pytest.raises(DataError, match=r"from 0 to 9, but 12 came at sample 7 of the training split"):
        load(MNIST, directory=tmp_path)


def test_fewer_labels_than_images(tmp_path: Path, write_mnist: WriteMnist, write_idx: WriteIdx) -> None:
    write_idx(write_mnist(tmp_path) / "t10k-labels-idx1-ubyte.gz", np.arange(19) % 10)
    with pytest.raises(DataError, match=r"the test split .* 20 samples and 19 labels"):
        load(MNIST, directory=tmp_path)


def test_the_other_sets_files_are_refused(
    tmp_path: Path, write_mnist: WriteMnist, write_idx: WriteIdx
) -> None:
    labels = np.resize(FIRST_LABELS["fashion-mnist"], 40)
    write_idx(write_mnist(tmp_path) / "train-labels-idx1-ubyte.gz", labels)
    with pytest.raises(DataError, match="must belong to mnist, but its labels are those of fashion-mnist"):
        load(MNIST, directory=tmp_path)


@pytest.fixture(scope="module")
def installed_fashion_mnist() -> Path:
    folder = FASHION_MNIST.installed
    assert folder is not None
    if not folder.is_dir():
        required = os.environ.get("NORMWRIGHT_REQUIRE", "").split(",")
        assert "fashion-mnist" not in required, f"{folder} must be there: apt install {FASHION_MNIST.package}"
        pytest.skip(f"{folder} is not there: apt install {FASHION_MNIST.package}")
    return folder


def test_the_debian_package(installed_fashion_mnist: Path) -> None:
    data = load(DataRecipe(name="fashion-mnist"))
    assert data.sample_shape == (1, 28, 28)
    assert torch.bincount(data.train_y).tolist() == [5400] * 10
    assert torch.bincount(data.validation_y).tolist() == [600] * 10
    assert torch.bincount(data.test_y).tolist() == [1000] * 10
    assert data.test_y[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]


def test_the_debian_package_is_not_mnist(installed_fashion_mnist: Path) -> None:
    with pytest.raises(DataError, match="those of fashion-mnist"):
        load(DataRecipe(name="mnist"), directory=installed_fashion_mnist)

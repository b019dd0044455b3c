"""MNIST and Fashion-MNIST: 60,000 training and 10,000 test images of 28 × 28 grey pixels, 10 classes.

References:
    LeCun, Bottou, Bengio & Haffner 1998, Proceedings of the IEEE 86(11).
    Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747.
"""

from __future__ import annotations

from pathlib import Path

import torch

from normwright.errors import DataError
from normwright.lab.data.archive import Archive, Download
from normwright.lab.data.dataset import Raw
from normwright.lab.data.find import find
from normwright.lab.data.idx import read_idx

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _downloads(site: str, *md5s: str) -> tuple[Download, ...]:
    return tuple(Download(f"{site}{file}.gz", md5) for file, md5 in zip(FILES, md5s, strict=True))


MNIST = Archive(
    name="mnist",
    files=FILES,
    folders=("MNIST/raw", "mnist/MNIST/raw", "mnist", "."),
    downloads=_downloads(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)

FASHION_MNIST = Archive(
    name="fashion-mnist",
    files=FILES,
    folders=("FashionMNIST/raw", "fashion-mnist/FashionMNIST/raw", "fashion-mnist", "."),
    downloads=_downloads(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    installed=Path("/usr/share/datasets/fashion-mnist"),
    package="dataset-fashion-mnist",
)

CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
}

# The two sets' files have the same names and sizes; the first training labels tell them apart.
FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7),
    "fashion-mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9, 5, 5, 7, 9),
}


def read_mnist(directory: Path | None) -> Raw:
    """MNIST, from where `find` finds it."""
    return _read(MNIST, directory)


def read_fashion_mnist(directory: Path | None) -> Raw:
    """Fashion-MNIST, from where `find` finds it."""
    return _read(FASHION_MNIST, directory)


def _read(archive: Archive, directory: Path | None) -> Raw:
    train_images, train_labels, test_images, test_labels = find(archive, directory)
    labels = read_idx(train_labels, axes=1)
    _check_which(archive.name, labels, train_labels)
    return Raw(
        name=archive.name,
        train_x=read_idx(train_images, axes=3).unsqueeze(1),
        train_y=labels.to(torch.int64),
        test_x=read_idx(test_images, axes=3).unsqueeze(1),
        test_y=read_idx(test_labels, axes=1).to(torch.int64),
        classes=CLASSES[archive.name],
    )


def _check_which(name: str, labels: torch.Tensor, path: Path) -> None:
    for other, first in FIRST_LABELS.items():
        if other != name and tuple(labels[: len(first)].tolist()) == first:
            raise DataError(
                f"{path} must belong to {name}, but its labels are those of {other}; "
                f"ask for {other}, or put the files of {name} into a folder of that name"
            )

"""CIFAR-10: 50,000 training and 10,000 test images of 32 × 32 RGB pixels, 10 classes.

Read from its binary version, of records of 3,073 bytes: the label, then the red, the green and the blue
plane. The better known Python version is pickled, and unpickling can run any code, so it is never read.

References:
    Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

from pathlib import Path

import torch

from normwright.errors import DataError
from normwright.lab.data.archive import Archive, Download
from normwright.lab.data.dataset import Raw
from normwright.lab.data.find import find
from normwright.lab.data.idx import REMEDY, content_of

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32

CIFAR10 = Archive(
    name="cifar10",
    files=(*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
    folders=("cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar10", "."),
    downloads=(
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
        ),
    ),
    unpacked="cifar-10-batches-bin",
    note=(
        "It is the binary version, cifar-10-binary.tar.gz; the Python version (cifar-10-batches-py) "
        "is not read, because unpickling it could run any code."
    ),
)

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def read_cifar10(directory: Path | None) -> Raw:
    """CIFAR-10, from where `find` finds it."""
    paths = find(CIFAR10, directory)
    *training, test = [_records(path) for path in paths]
    _check_equal(training, paths)
    train_x, train_y = _images(torch.cat(training))
    test_x, test_y = _images(test)
    return Raw("cifar10", train_x, train_y, test_x, test_y, CLASSES)


def _records(path: Path) -> torch.Tensor:
    content, broken = content_of(path)
    if broken or not content or len(content) % RECORD:
        raise DataError(
            f"{path} must hold whole records of {RECORD:,} bytes (30,730,000 bytes in the original), "
            f"but {len(content):,} bytes were found{broken}; {REMEDY}"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(-1, RECORD)


def _check_equal(batches: list[torch.Tensor], paths: list[Path]) -> None:
    # A batch that was cut between two records has whole records, but fewer of them.
    longest = max(range(len(batches)), key=lambda index: len(batches[index]))
    for batch, path in zip(batches, paths, strict=False):
        if len(batch) != len(batches[longest]):
            raise DataError(
                f"{path} must hold as many records as the other training batches, but holds {len(batch):,} "
                f"records where {paths[longest].name} holds {len(batches[longest]):,}; {REMEDY}"
            )


def _images(records: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0].to(torch.int64)

"""What the tests of the data sets share: a machine without data, and writers of small real files."""

from __future__ import annotations

import gzip
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data directory, an empty home, no torchvision."""
    monkeypatch.delenv("NORMWRIGHT_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "torchvision", None)


@pytest.fixture
def write_idx() -> Callable[[Path, np.ndarray], Path]:
    """Writes an IDX file, compressed when its name ends in .gz."""

    def write(path: Path, values: np.ndarray) -> Path:
        content = idx_bytes(values)
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def write_mnist(write_idx: Callable[[Path, np.ndarray], Path]) -> Callable[..., Path]:
    """Writes a small MNIST: 40 training and 20 test images of 4 × 4, ten classes."""

    def write(folder: Path, *, ending: str = ".gz") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(0)
        for images, labels, count in ((FILES[0], FILES[1], 40), (FILES[2], FILES[3], 20)):
            write_idx(folder / f"{images}{ending}", pixels.randint(0, 256, (count, 4, 4)))
            write_idx(folder / f"{labels}{ending}", np.arange(count) % 10)
        return folder

    return write


@pytest.fixture
def write_cifar10() -> Callable[[Path], Path]:
    """Writes a small CIFAR-10: five training batches and a test batch of 20 records each."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(0)
        for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
            records = pixels.randint(0, 256, (20, 3073)).astype(np.uint8)
            records[:, 0] = np.arange(20) % 10
            (folder / name).write_bytes(records.tobytes())
        return folder

    return write

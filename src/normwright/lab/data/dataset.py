"""A data set in memory: as its source holds it, as a network is trained on it, and the checks on both."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

import torch

from normwright.errors import DataError


@dataclass(frozen=True, eq=False)
class Raw:
    """What a source holds: no validation split taken yet, nothing standardised.

    Args:
        name: the data set, for messages.
        train_x, test_x: (N, ...), uint8 pixels (N, C, H, W), or float32 of any shape.
        train_y, test_y: (N,), int64, each in [0, classes).
        classes: the classes' names, in the order of the labels.
        top: the greatest value that a pixel can have.
    Raises:
        DataError: a split is empty, its lengths differ, a label is out of range or a value not finite.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: tuple[str, ...]
    top: int = 255

    def __post_init__(self) -> None:
        _check_split(self.name, "training", self.train_x, self.train_y, len(self.classes))
        _check_split(self.name, "test", self.test_x, self.test_y, len(self.classes))
        _check_same_shape(self.name, self.train_x, "test", self.test_x)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set as networks are trained on it, in memory, checked when it is made.

    Args:
        name: as in the recipe.
        train_x, validation_x, test_x: (N, C, H, W) for images, else (N, ...); float32 and finite.
        train_y, validation_y, test_y: (N,), int64, each in [0, classes).
        classes: the classes' names, in the order of the labels.
        digest: SHA-256 of what the source holds, in hexadecimal; `load` fills it in.
    Raises:
        DataError: a split is empty, its lengths differ, a label is out of range or a value not finite.
    Example:
        >>> x, y = torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
        >>> Data("blank", x, y, x, y, x, y, classes=("cat", "dog")).sample_shape
        (1, 2, 2)
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    validation_x: torch.Tensor
    validation_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: tuple[str, ...]
    digest: str = ""

    def __post_init__(self) -> None:
        for split in ("train", "validation", "test"):
            x, y = getattr(self, f"{split}_x"), getattr(self, f"{split}_y")
            label = "training" if split == "train" else split
            _check_split(self.name, label, x, y, len(self.classes))
            if x.dtype != torch.float32:
                raise DataError(f"{self.name}: the {label} x must be float32, but is {x.dtype}; use .float()")
            _check_same_shape(self.name, self.train_x, label, x)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) for images."""
        return tuple(self.train_x.shape[1:])

    def to(self, device: torch.device | str) -> Data:
        """The same data on the device."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **moved)


def digest_of(*tensors: torch.Tensor) -> str:
    """SHA-256 over each tensor's shape, dtype and values, in hexadecimal; layout and device do not count.

    Example:
        >>> digest_of(torch.zeros(2, 3)) == digest_of(torch.zeros(3, 2).t()) != digest_of(torch.zeros(3, 2))
        True
    """
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tuple(tensor.shape)} {tensor.dtype};".encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().reshape(-1).view("uint8").data)
    return sha.hexdigest()


def _check_split(name: str, split: str, x: object, y: object, classes: int) -> None:
    if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)):
        raise DataError(
            f"{name}: the {split} x and labels must be tensors, but are {type(x).__name__} and "
            f"{type(y).__name__}; torch.from_numpy makes tensors of NumPy arrays"
        )
    if y.dtype != torch.int64 or y.ndim != 1:
        raise DataError(
            f"{name}: the {split} labels must be (N,) class numbers of dtype int64, but are "
            f"{tuple(y.shape)} of {y.dtype}; give one whole number per sample"
        )
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise DataError(
            f"{name}: the {split} x must be (N, ...) with at least one value per sample, "
            f"but is {tuple(x.shape)}"
        )
    if len(x) != len(y):
        raise DataError(
            f"{name}: the {split} split must have as many labels as samples, but has {len(x):,} samples "
            f"and {len(y):,} labels"
        )
    if len(x) == 0:
        raise DataError(f"{name}: the {split} split must have samples, but is empty")
    _check_labels(name, split, y, classes)
    if x.is_floating_point():
        _check_finite(name, split, x)


def _check_labels(name: str, split: str, y: torch.Tensor, classes: int) -> None:
    bad = ((y < 0) | (y >= classes)).nonzero()
    if len(bad):
        first = int(bad[0])
        raise DataError(
            f"{name}: labels must be class numbers from 0 to {classes - 1}, but {int(y[first])} came at "
            f"sample {first} of the {split} split ({len(bad):,} such in all); "
            "correct or leave out those samples"
        )


def _check_finite(name: str, split: str, x: torch.Tensor) -> None:
    # The least and the greatest tell of any NaN or infinity without a mask as large as the data.
    low, high = torch.aminmax(x)
    if torch.isfinite(low) and torch.isfinite(high):
        return
    finite = x.isfinite().flatten(1).all(1)
    first = int((~finite).nonzero()[0])
    raise DataError(
        f"{name}: x must be finite, but sample {first} of the {split} split holds NaN or infinity "
        f"({int((~finite).sum()):,} such in all); correct or leave out those samples"
    )


def _check_same_shape(name: str, train_x: torch.Tensor, split: str, x: torch.Tensor) -> None:
    if train_x.shape[1:] != x.shape[1:]:
        raise DataError(
            f"{name}: samples of every split must have one shape, but the training split has "
            f"{tuple(train_x.shape[1:])} and the {split} split {tuple(x.shape[1:])}"
        )

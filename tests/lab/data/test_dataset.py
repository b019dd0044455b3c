"""The checks of `Data`, moving it, and its digest."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import pytest
import torch

from normwright.errors import DataError
from normwright.lab.data import Data
from normwright.lab.data.dataset import digest_of


def data() -> Data:
    x, y = torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    return Data("blank", x, y, x, y, x, y, classes=("cat", "dog"))


def test_sample_shape_and_device() -> None:
    moved = data().to("cpu")
    assert moved.sample_shape == (1, 2, 2)
    assert moved.classes == ("cat", "dog")


NAN = torch.zeros(4, 1, 2, 2)
NAN[2, 0, 1, 1] = torch.nan
INFINITE = torch.zeros(4, 1, 2, 2)
INFINITE[3, 0, 0, 0] = -torch.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_y": torch.tensor([0, 1, 0])}, "training split .* 4 samples and 3 labels"),
        ({"test_x": torch.zeros(0, 1, 2, 2), "test_y": torch.zeros(0).long()}, "test split .* is empty"),
        ({"validation_y": torch.tensor([0, 1, 2, 3])}, "2 came at sample 2 of the validation split .2 such"),
        ({"train_y": torch.tensor([0, 1, -1, 0])}, "from 0 to 1, but -1 came at sample 2 of the training"),
        ({"train_y": torch.tensor([0.0, 1, 0, 1])}, "training labels must be .N,. class numbers"),
        ({"train_y": torch.zeros(4, 2).long()}, r"but are \(4, 2\)"),
        ({"train_x": NAN}, "sample 2 of the training split holds NaN"),
        ({"test_x": INFINITE}, "sample 3 of the test split holds NaN or infinity"),
        ({"test_x": torch.zeros(4, 1, 2, 3)}, r"\(1, 2, 2\) and the test split \(1, 2, 3\)"),
        ({"train_x": torch.zeros(4)}, r"must be \(N, ...\)"),
        ({"train_x": torch.zeros(4, 0)}, "at least one value"),
        ({"test_x": torch.zeros(4, 1, 2, 2).double()}, "test x must be float32"),
        ({"train_x": NAN.numpy()}, "must be tensors, but are ndarray"),
    ],
)
def test_every_inconsistency_is_named(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataclasses.replace(data(), **change)


def test_digest_sees_values_shape_and_dtype_but_not_layout() -> None:
    x = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2)
    same = digest_of(x)
    assert digest_of(x.to(memory_format=torch.channels_last)) == same
    changed = x.clone()
    changed[1, 2, 1, 1] += 1
    others = [digest_of(changed), digest_of(x.reshape(2, 12)), digest_of(x.int()), digest_of(x[:1], x[1:])]
    assert len({same, *others}) == 5


def test_digest_is_the_same_on_every_machine() -> None:
    # Recipes hold digests, so a change of the definition would disown every finished run.
    expected = hashlib.sha256(b"(3,) torch.int64;" + struct.pack("<3q", 1, 2, 3)).hexdigest()
    assert digest_of(torch.tensor([1, 2, 3])) == expected

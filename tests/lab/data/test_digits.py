"""The embedded data set."""

from __future__ import annotations

import sys

import pytest
import torch

from normwright.errors import MissingExtraError
from normwright.lab.data import load
from normwright.lab.data.digits import read_digits
from normwright.lab.recipe import DataRecipe


def test_splits_shapes_and_classes() -> None:
    data = load(DataRecipe(name="digits"))
    assert data.sample_shape == (1, 8, 8)
    assert len(data.train_x) + len(data.validation_x) + len(data.test_x) == 1797
    assert data.classes == tuple("0123456789")
    for labels in (data.train_y, data.validation_y, data.test_y):
        assert len(labels.unique()) == 10


def test_no_sample_is_in_two_splits() -> None:
    raw = read_digits()
    every = torch.cat((raw.train_x, raw.test_x)).flatten(1)
    assert len(every) == 1797
    assert int(every.max()) == 16
    assert len(every.unique(dim=0)) == 1797, "the 1,797 digits are all different, so no sample came twice"


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'normwright\[lab\]'"):
        read_digits()

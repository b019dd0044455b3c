"""Batches of a data set by name, and those that a user's function makes."""

from __future__ import annotations

import pytest
import torch

from normwright.errors import OptionError
from normwright.lab.batches import open_batches
from normwright.lab.data import load
from normwright.lab.recipe import DataRecipe

OWN = """
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

calls = []

def loader():
    calls.append("loader")
    return DataLoader(TensorDataset(torch.arange(5.0)), batch_size=2)

def generator():
    calls.append("generator")
    yield torch.zeros(2)
    yield torch.ones(2)

class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.zeros(2)])

def stream():
    return Stream()

def data():
    calls.append("data")
    x, y = torch.randn(40, 3), torch.arange(40) % 2
    return x, y, x[:7], y[:7]
"""


@pytest.fixture
def own(tmp_path):
    """The name of a function in a file of the user's own."""
    (tmp_path / "own.py").write_text(OWN)
    return lambda function: DataRecipe(name=f"{tmp_path / 'own.py'}:{function}")


@pytest.mark.parametrize(
    ("split", "of"), [(None, ("train",)), ("test", ("test",)), ("all", ("train", "validation", "test"))]
)
def test_named_set_comes_in_its_own_order(split, of):
    data = load(DataRecipe(name="digits"))
    batches = open_batches(DataRecipe(name="digits"), split=split, batch_size=100)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(x, torch.cat([getattr(data, f"{part}_x") for part in of]))
    assert torch.equal(y, torch.cat([getattr(data, f"{part}_y") for part in of]))
    assert batches.count == len(list(batches)) == -(-len(y) // 100)
    assert (batches.sample_shape, batches.classes) == ((1, 8, 8), 10)


def test_usual_split_and_size():
    batches = open_batches(DataRecipe(name="digits"), usual_split="test")
    assert sum(len(y) for _, y in batches) == len(load(DataRecipe(name="digits")).test_y)
    assert len(next(iter(batches))[0]) == 64


def test_own_data_set_is_asked_for_once(own):
    batches = open_batches(own("data"), split="test")
    assert sum(len(y) for _, y in batches) == 7
    assert (batches.sample_shape, batches.classes) == ((3,), 2)


@pytest.mark.parametrize(
    ("function", "count", "length"), [("loader", 3, 3), ("generator", None, 2), ("stream", None, 1)]
)
def test_own_batches_come_as_they_are_again_and_again(own, function, count, length):
    batches = open_batches(own(function))
    first, second = list(batches), list(batches)
    assert batches.count == count
    assert len(first) == len(second) == length
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert batches.sample_shape is None


@pytest.mark.parametrize("how", [{"split": "test"}, {"batch_size": 3}])
def test_own_batches_have_no_split_and_no_size(own, how):
    with pytest.raises(OptionError, match="leave it out"):
        open_batches(own("loader"), **how)


def test_unknown_split_and_a_size_of_nothing():
    with pytest.raises(OptionError, match="must be one of train, validation, test, all, but is 'tset'"):
        open_batches(DataRecipe(name="digits"), split="tset")
    with pytest.raises(OptionError, match="at least 1, but is 0"):
        open_batches(DataRecipe(name="digits"), batch_size=0)

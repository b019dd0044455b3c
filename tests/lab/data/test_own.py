"""Data sets that the user's own functions return."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from normwright.errors import DataError, UserCodeError
from normwright.lab.data import load
from normwright.lab.recipe import DataRecipe

SOURCE = """
import numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
from normwright.lab.data import Data

x = np.arange(60, dtype=np.float64).reshape(20, 3) + 1000
y = np.arange(20) % 2
tx, ty = torch.from_numpy(x), torch.from_numpy(y)

def arrays(): return x, y, x[:4], y[:4]
def tensors(): return tx, ty, tx[:4], ty[:4]
def a_list(): return [x, y, x[:4], y[:4]]
def foreign(): return x.astype(">f4")[::-1], y.astype(">i2")[::-1], x[:4], y[:4]
def read_only():
    frozen = x.copy(); frozen.flags.writeable = False
    return frozen, y, frozen[:4], y[:4]
def sets(): return TensorDataset(tx, ty), TensorDataset(tx[:4], ty[:4])
def pairs(): return [(row, int(label)) for row, label in zip(x, y)], [(x[0], y[0]), (x[1], ty[1])]
def own_data():
    f = tx.float()
    return Data("mine", f, ty, f[:2], ty[:2], f[:4], ty[:4], classes=("even", "odd"))
def needs(argument): return None
def quadruples(): return [(tx[0], tx[0], 0, 0)] * 4, [(tx[0], tx[0], 0, 0)]
def texts(): return [("a word", 0)] * 4, [("a word", 0)]
def sparse(): return tx.to_sparse(), ty, tx[:4], ty[:4]
def meta(): return tx.to("meta"), ty, tx[:4], ty[:4]
def has_default(argument=1): return arrays()

def nothing(): return None
def three(): return x, y, x
def two_arrays(): return x, y
def two_dicts(): return {}, {}
def lists(): return [[1.0]], [0], [[1.0]], [0]
def loaders(): return DataLoader(sets()[0]), DataLoader(sets()[1])
def singles(): return [x[0]], [x[0]]
def float_labels(): return x, y.astype(float), x[:4], y[:4]
def bool_labels(): return x, y > 0, x[:4], y[:4]
def one_hot(): return x, np.eye(2, dtype=int)[y], x[:4], y[:4]
def strange_test_label(): return x, y, x[:4], np.array([0, 1, 2, 0])
def negative(): return x, y - 1, x[:4], y[:4]
def huge_label(): return x, y * 10**12, x[:4], y[:4]
def nan():
    bad = x.copy(); bad[5, 1] = np.nan
    return bad, y, x[:4], y[:4]
def too_great(): return x * 1e300, y, x[:4], y[:4]
def strings(): return x.astype(str), y, x[:4], y[:4]
def imaginary(): return x * 1j, y, x[:4], y[:4]
def empty_test(): return x, y, x[:0], y[:0]
def no_training(): return x[:0], y[:0], x, y
def empty_set(): return [], sets()[1]
def fractional(): return [(x[0], 0.5)], [(x[0], 0)]
def ragged(): return [(x[0], 0), (x[1, :2], 1)], [(x[0], 0)]
def all_single(): return x[:2], y[:2], x[:2], y[:2]
def raises(): raise KeyError("the user's own")
calls = 0
def random():
    global calls
    calls += 1
    return x + calls, y, x[:4], y[:4]
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return str(path)


@pytest.mark.parametrize("function", ["arrays", "tensors", "a_list", "read_only", "sets", "has_default"])
def test_every_form_gives_the_same_data(source: str, function: str) -> None:
    data = load(DataRecipe(name=f"{source}:{function}"))
    assert (len(data.train_x), len(data.validation_x), len(data.test_x)) == (18, 2, 4)
    assert data.classes == ("0", "1")
    assert data.train_x.dtype == torch.float32
    assert data.test_x[1].tolist() == [1003, 1004, 1005], "as it came, not standardised"
    assert data.digest == load(DataRecipe(name=f"{source}:arrays")).digest


@pytest.mark.parametrize("function", ["foreign", "pairs"])
def test_byte_order_strides_and_mixed_pairs(source: str, function: str) -> None:
    data = load(DataRecipe(name=f"{source}:{function}"))
    assert len(data.train_x) == 18
    for x, y in zip(data.train_x, data.train_y, strict=True):
        assert (int(x[0]) - 1000) // 3 % 2 == y


def test_a_data_of_ones_own_keeps_its_splits_and_classes(source: str) -> None:
    data = load(DataRecipe(name=f"{source}:own_data"))
    assert (len(data.train_x), len(data.validation_x)) == (20, 2)
    assert data.classes == ("even", "odd")
    assert data.name == f"{source}:own_data"
    assert len(data.digest) == 64


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "must return .x_train.* but a NoneType came"),
        ("three", r"must return .* but a tuple of 3 \(ndarray, ndarray, ndarray\) came"),
        ("two_arrays", r"a tuple of 2 \(ndarray, ndarray\) came"),
        ("two_dicts", r"a tuple of 2 \(dict, dict\) came"),
        ("lists", r"a tuple of 4 \(list, list, list, list\) came"),
        ("loaders", r"a tuple of 2 \(DataLoader, DataLoader\) came"),
        ("singles", r"sample 0 of the training split must be a pair .* a ndarray came"),
        (
            "quadruples",
            r"a tuple of 4 .* came; a network is given one tensor a sample, and judged",
        ),
        ("texts", r"a tuple of 2 \(str, int\) came; a transform"),
        ("needs", "callable without arguments, but missing a required argument: 'argument'"),
    ],
)
def test_wrong_return_is_described(source: str, function: str, message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        load(DataRecipe(name=f"{source}:{function}"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("float_labels", "training labels must be class numbers of an integer dtype, but are torch.float64"),
        ("bool_labels", "but are torch.bool"),
        ("one_hot", r"training labels must be \(N,\) class numbers .* \(20, 2\)"),
        ("strange_test_label", "from 0 to 1, but 2 came at sample 2 of the test split"),
        ("negative", "-1 came at sample 0 of the training split"),
        ("huge_label", "the greatest is 1,000,000,000,000 with 20 training samples"),
        ("nan", "sample 5 of the training split holds NaN"),
        ("too_great", "sample 0 of the training split holds NaN or infinity"),
        ("strings", "training x must hold numbers, but is of dtype <U"),
        ("imaginary", "training x must hold real numbers"),
        ("empty_test", "test split must have samples, but is empty"),
        ("no_training", "training split must have samples, but is empty"),
        ("empty_set", "training split must have samples, but is empty"),
        ("fractional", "sample 0 of the training split must have a class number .* has 0.5"),
        ("ragged", r"sample 1 of the training split must have the shape of sample 0, \(3,\), but has \(2,\)"),
        ("sparse", "training x must be a dense tensor in memory, but is torch.sparse_coo on cpu"),
        ("meta", "training x must be a dense tensor in memory, but is torch.strided on meta"),
        ("all_single", "at least two training samples"),
    ],
)
def test_inconsistent_data_is_described(source: str, function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(DataRecipe(name=f"{source}:{function}"))


def test_the_users_own_exception_passes_unchanged(source: str) -> None:
    with pytest.raises(KeyError, match="the user's own"):
        load(DataRecipe(name=f"{source}:raises"))


def test_data_that_change_between_loads_are_refused(source: str) -> None:
    recipe = DataRecipe(name=f"{source}:random")
    first = load(recipe)
    with pytest.raises(DataError, match=r"the data changed since.* fix its seed"):
        load(DataRecipe(name=recipe.name, digest=first.digest))

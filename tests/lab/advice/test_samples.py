"""Samples of every form that data come in, and what cannot be trained on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from advised import blobs
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from normwright.errors import DataError, OptionError
from normwright.lab.advice.samples import MOST_READ, read_samples
from normwright.lab.data import load
from normwright.lab.recipe import DataRecipe

CPU = torch.device("cpu")
X, Y = blobs(10)

OWN = """
import torch
from torch.utils.data import DataLoader, TensorDataset

X, Y = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 2

def loader():
    return DataLoader(TensorDataset(X, Y), batch_size=4)

def data():
    return X, Y, X[:4], Y[:4]
"""


class Endless(IterableDataset):
    def __iter__(self):
        return (blobs(1024) for _ in itertools.count())


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X.numpy(), Y.numpy()),
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=4),
        [(X[:4], Y[:4]), (X[4:], Y[4:])],
        [[X, Y]],
        [(X.numpy(), Y.numpy())],
        iter([(X, Y)]),
    ],
)
def test_every_form_gives_the_same_samples(data):
    samples = read_samples(data)
    x, labels = samples.take(slice(0, None), CPU)
    assert torch.equal(x, X)
    assert torch.equal(labels, Y)
    assert (samples.count, samples.sample_shape, samples.classes) == (10, (8,), ("0", "1"))


def test_mappings_keep_their_keys():
    batch = {"pixel_values": X, "labels": Y}
    samples = read_samples([batch, batch])
    taken = samples.take(torch.tensor([0, 10]), CPU)
    assert taken.keys() == batch.keys()
    assert torch.equal(taken["pixel_values"], X[[0, 0]])


def test_a_named_set_is_its_training_split():
    data = load(DataRecipe(name="digits"))
    x, labels = read_samples("digits").take(slice(0, None), CPU)
    assert torch.equal(x, data.train_x)
    assert torch.equal(labels, data.train_y)
    assert torch.equal(read_samples(data).take(slice(0, None), CPU)[0], data.train_x)


@pytest.mark.parametrize(("function", "count"), [("loader", 10), ("data", 8)])
def test_functions_of_the_user_s_own(tmp_path, function, count):
    (tmp_path / "own.py").write_text(OWN)
    # Of (x_train, y_train, …) one of each class is held out for validation, as `compare` does.
    assert read_samples(f"{tmp_path / 'own.py'}:{function}").count == count


@pytest.mark.parametrize("form", [torch.as_tensor, torch.Tensor.numpy])
def test_four_tensors_are_what_a_function_of_the_user_s_returns(form):
    samples = read_samples(tuple(map(form, (X, Y, X[:4], Y[:4]))))
    x, labels = samples.take(slice(0, None), CPU)
    assert samples.count == 8
    assert all(any(torch.equal(row, given) for given in X) for row in x)
    assert set(labels.tolist()) == {0, 1}


def test_a_stream_without_an_end_is_read_in_part():
    assert read_samples(Endless()).count == MOST_READ


def test_mini_batches_are_whole_and_cover_all_samples():
    samples = read_samples((X, Y))
    parts = samples.parts(4, torch.Generator().manual_seed(0))
    first, second, third = (next(parts) for _ in range(3))
    assert len(first) == len(second) == len(third) == 4
    assert not set(first.tolist()) & set(second.tolist())


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([X], DataError, r"needs labels, .* but a tensor \(10, 8\) alone came"),
        ([(X,)], DataError, r"needs labels, .* but \(10, 8\) came"),
        ([{"x": X}], DataError, r"needs labels, .* but x \(10, 8\) came"),
        ([], DataError, "at least one batch, but none came"),
        ((X[:0], Y[:0]), DataError, "at least one sample, but hold none"),
        ((X, Y[:4]), DataError, "as many labels as samples, but their numbers are 4 and 10"),
        ([(X, Y), (X, Y, Y)], DataError, "must hold the same tensors, but the first held 2 and batch 1 3"),
        ((X, Y, X), OptionError, "four .x_train, y_train, x_test, y_test., .* came as a tuple of 3"),
        ((X, Y, X, Y[:4]), DataError, "data: "),
        (X, OptionError, "but came as a Tensor"),
        (3, OptionError, "but came as a int"),
        (np.zeros(3), OptionError, "but came as a ndarray"),
    ],
)
def test_what_cannot_be_trained_on(data, error, message):
    with pytest.raises(error, match=message):
        read_samples(data)

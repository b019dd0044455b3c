"""A batch as loaders give it becomes a call. PEERS: fixed call signature model(inputs) (pytorch#49082)."""

from __future__ import annotations

import collections

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, TensorDataset

import normwright as nw
from normwright.errors import OptionError

X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) + 2
OTHER = torch.ones(8, 3)
TARGET = torch.zeros(8, dtype=torch.long)


class Two(nn.Module):
    """Takes a second input, which it adds."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x, other=None, *, scale=1.0):
        return self.norm(x if other is None else (x + other) * scale)


class Anything(Two):
    def forward(self, **inputs):
        assert set(inputs) == {"x", "labels"}
        return self.norm(inputs["x"])


Pair = collections.namedtuple("Pair", "image target")

CALLS = {
    "a tensor": (Two, X, X),
    "a pair": (Two, (X, TARGET), X),
    "a pair as a list": (Two, [X, TARGET], X),
    "a named pair": (Two, Pair(X, TARGET), X),
    "the input alone in a tuple": (Two, (X,), X),
    "positional arguments and a target": (Two, ((X, OTHER), TARGET), X + 1),
    "keyword arguments": (Two, {"x": X, "other": OTHER, "scale": 2.0}, 2 * X + 2),
    "keyword arguments with labels": (Two, {"x": X, "labels": TARGET}, X),
    "keyword arguments and a target": (Two, ({"x": X, "other": OTHER}, TARGET), X + 1),
    "a network that takes any keyword": (Anything, {"x": X, "labels": TARGET}, X),
}


@pytest.mark.parametrize("case", CALLS)
def test_batches_as_loaders_give_them(case):
    make, batch, seen = CALLS[case]
    network = make().eval()
    handle = nw.recalibrate(network, [batch])
    torch.testing.assert_close(network.norm.running_mean, seen.mean(0))
    assert handle.samples == 8


def test_a_data_loader():
    network = Two().eval()
    loader = DataLoader(TensorDataset(X, TARGET), batch_size=3)
    assert nw.recalibrate(network, loader).samples == 8
    torch.testing.assert_close(network.norm.running_mean, X.mean(0))


def test_forward_fn_for_any_other_signature():
    network = Two().eval()
    batches = [{"image": X, "more": [OTHER]}]
    handle = nw.recalibrate(
        network, batches, forward_fn=lambda network, batch: network(batch["image"], other=batch["more"][0])
    )
    torch.testing.assert_close(network.norm.running_mean, X.mean(0) + 1)
    assert handle.samples == 8


class Sequences(nn.Module):
    """Takes packed sequences, whose steps it normalises."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, packed):
        return self.norm(packed.data)


@pytest.mark.parametrize("with_target", [False, True])
def test_packed_sequences_are_one_input(with_target):
    packed = pack_sequence([X[:4], X[4:7], X[7:]])
    network = Sequences().eval()
    handle = nw.recalibrate(network, [(packed, TARGET[:3]) if with_target else packed])
    torch.testing.assert_close(network.norm.running_mean, X.mean(0))
    assert handle.samples == 3


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ({"y": X}, r"Two\.forward.*missing.*'x'.*forward_fn="),
        (((X, OTHER, OTHER), TARGET), "too many positional"),
        ("text", "but str came: .* by forward_fn="),
        ([], "a list of 0"),
    ],
    ids=["a keyword that is not taken", "too many", "text", "nothing"],
)
def test_a_batch_that_forward_does_not_take(batch, match):
    with pytest.raises(OptionError, match=match):
        nw.recalibrate(Two(), [batch])

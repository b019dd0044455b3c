"""Batches of any make go to the network's device. Here that is "meta", which every machine has."""

from collections import UserDict, namedtuple

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from normwright.network.calling import moved

Pair = namedtuple("Pair", "left right")
ON_META = nn.Linear(2, 2, device="meta")


def x():
    return torch.ones(2)


@pytest.mark.parametrize(
    ("batch", "tensors"),
    [
        (x(), lambda batch: [batch]),
        ((x(), [x(), "a word"]), lambda batch: [batch[0], batch[1][0]]),
        (Pair(x(), 3), lambda batch: [batch.left]),
        ({"a": {"b": x()}, "c": None}, lambda batch: [batch["a"]["b"]]),
        (UserDict(a=x()), lambda batch: [batch["a"]]),
        (pack_sequence([x(), x()[:1]]), lambda batch: [batch.data]),
        (
            pack_sequence([x()[:1], x()], enforce_sorted=False),
            lambda batch: [batch.data, batch.sorted_indices],
        ),
    ],
    ids=["tensor", "tuple and list", "named tuple", "dicts", "mapping", "packed", "packed and sorted"],
)
def test_tensors_go_to_the_network(batch, tensors):
    there = moved(batch, ON_META)
    assert {tensor.device.type for tensor in tensors(there)} == {"meta"}
    assert {tensor.device.type for tensor in tensors(batch)} == {"cpu"}


def test_the_sizes_of_a_packed_sequence_stay():
    assert moved(pack_sequence([x()]), ON_META).batch_sizes.device.type == "cpu"


def test_a_buffer_is_where_a_network_without_parameters_is():
    network = nn.BatchNorm1d(2, affine=False, device="meta")
    assert moved(x(), network).is_meta


def test_a_network_that_holds_nothing_is_anywhere():
    batch = [x()]
    assert moved(batch, nn.ReLU()) is batch

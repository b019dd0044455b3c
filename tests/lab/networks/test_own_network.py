"""A user's function is called as it can be, and what it returns is a network."""

from __future__ import annotations

import pytest

from normwright.errors import UserCodeError
from normwright.lab.networks.own_network import OwnNetwork

OWN = """
from torch import nn

def plain():
    return nn.Linear(2, 2)

def defaults(width=3, depth=1):
    return nn.Linear(width, depth)

def sized(shape, classes):
    return nn.Linear(shape[0], classes)

def three(a, b, c):
    return nn.Linear(2, 2)

def number():
    return 3

built = nn.Linear(2, 2)
"""


@pytest.fixture
def own(tmp_path, restored_imports):
    """The name of a function in a file of the user's own."""
    (tmp_path / "nets.py").write_text(OWN)
    return lambda function: f"{tmp_path / 'nets.py'}:{function}"


@pytest.mark.parametrize(
    ("function", "call", "size"),
    [("plain", "plain()", (2, 2)), ("defaults", "defaults()", (3, 1)), ("sized", "sized((7,), 4)", (7, 4))],
)
def test_function_is_called_without_arguments_where_it_can_be(own, function, call, size):
    network = OwnNetwork(own(function), (7,), 4)
    built = network.build()
    assert network.call == call
    assert (built.in_features, built.out_features) == size
    assert not built.training
    assert network.build() is not built


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("three", r"takes \(a, b, c\)"),
        ("sized", "which only a data set tells"),
        ("number", "returned int: 3"),
        ("built", r"must be a function that makes the network, but is the network itself \(Linear\)"),
    ],
)
def test_what_cannot_be_called_or_is_no_network(own, function, words):
    with pytest.raises(UserCodeError, match=words):
        OwnNetwork(own(function)).build()

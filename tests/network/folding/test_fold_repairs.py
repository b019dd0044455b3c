"""Folding where it once failed, or changed what it should have left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from same import randomise
from test_fold import EXACT, draw, folded
from torch import nn

import normwright as nw
from normwright.network.folding import fold as fold_module


@pytest.fixture(autouse=True)
def _no_long_timing(monkeypatch):
    monkeypatch.setattr(fold_module, "SECONDS", 0.0)


def apart(network, other, *call):
    """The largest difference of two networks' outputs, relative to the largest output."""
    with torch.no_grad():
        expected, actual = network(*call), other(*call)
    return float((expected - actual).abs().max() / expected.abs().max())


# In place, all or nothing.


def test_a_fold_in_place_that_fails_leaves_the_network_as_it_was():
    network = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        nn.BatchNorm1d(3),
        nn.ReLU(),
        nn.Linear(3, 4),
        nn.BatchNorm1d(4),
    )
    randomise(network).eval()
    # Each element is the same number in memory: it cannot be written to, where its copy can.
    network[3].weight = nn.Parameter(draw(1).expand(4, 3))
    before, weight = copy.deepcopy(network.state_dict()), network[3].weight
    x = draw(5, 3)
    with torch.no_grad():
        expected = network(x)
    with pytest.raises(RuntimeError):
        nw.fold(network, x, inplace=True)
    assert isinstance(network[1], nn.BatchNorm1d)
    assert nn.utils.parametrize.is_parametrized(network[0], "weight")
    assert network[3].weight is weight
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    with torch.no_grad():
        assert torch.equal(network(x), expected)


def test_a_layer_made_in_inference_mode_is_folded_in_place():
    with torch.inference_mode():
        made = nn.Conv2d(3, 4, 1).double()
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), made, nn.BatchNorm2d(4))
    randomise(network[:2])
    randomise(network[3])
    network.eval()
    before, x = copy.deepcopy(network), draw(2, 3, 4, 4)
    nw.fold(network, x, inplace=True)
    assert isinstance(network[3], nn.Identity)
    assert apart(before, network, x) <= EXACT


# Parameters that are made.


@pytest.mark.parametrize("trained", [False, True])
def test_a_multiply_add_is_trained_if_the_normaliser_was(trained):
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU())
    network.requires_grad_(trained)
    result, _, _ = folded(network, draw(2, 3, 4, 4))
    assert {parameter.requires_grad for parameter in result[1].parameters()} == {trained}


def test_nothing_that_a_fold_makes_in_inference_mode_is_bound_to_it():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU()
    )
    randomise(network).eval()
    with torch.inference_mode():
        result = nw.fold(network, draw(2, 3, 4, 4))
    assert not [name for name, value in result.state_dict().items() if value.is_inference()]

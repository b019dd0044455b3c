"""Claims 5 and 8: how straight a sigmoid is used, and how Gaussian what reaches a normaliser is."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from normwright.lab.book.bench import make
from normwright.lab.book.gaussian import gaussian_distance
from normwright.lab.claims.before_activation import input_distances
from normwright.lab.claims.weight_and_bias import measures, straightness
from normwright.lab.data import load
from normwright.lab.training import build


def hidden(scale, activation):
    """One block whose normaliser multiplies what its layer, the identity, gives."""
    block = nn.Sequential(
        OrderedDict(linear=nn.Linear(2, 2), norm=nn.BatchNorm1d(2, eps=0.0), activation=activation)
    )
    with torch.no_grad():
        block.linear.weight.copy_(torch.eye(2))
        block.linear.bias.zero_()
        block.norm.weight.fill_(scale)
    return block


X = torch.randn(4_000, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("scale", "share"), [(1.0, 0.984), (2.0, 0.930), (100.0, 2 / torch.pi)])
def test_straightness_falls_as_the_normaliser_widens_its_output(scale, share):
    """Of a step, which a steep sigmoid is, a line explains 2/π; the others are by quadrature."""
    network = nn.Sequential(OrderedDict(hidden1=hidden(scale, nn.Sigmoid())))
    assert straightness(network, X)["hidden1"] == pytest.approx(share, abs=0.01)


def test_a_line_explains_all_of_a_line_whatever_batch_norm_adds():
    network = nn.Sequential(
        OrderedDict(hidden1=hidden(-3.0, nn.Identity()), hidden2=hidden(0.5, nn.Sigmoid()))
    )
    straight = straightness(network, X)
    assert straight["hidden1"] == pytest.approx(1.0)
    assert list(straight) == ["hidden1", "hidden2"]


def test_units_that_do_not_vary_are_left_out():
    network = nn.Sequential(OrderedDict(hidden1=hidden(2.0, nn.Sigmoid())))
    alone = straightness(network, X)["hidden1"]
    with torch.no_grad():
        network.hidden1.linear.weight[1].zero_()
    assert 0.5 < straightness(network, X)["hidden1"] == pytest.approx(alone, abs=0.01)


def test_the_measures_of_weight_and_bias():
    values = measures({True: 86.0, False: 84.0}, {True: (0.9, 0.94), False: (0.96, 0.98)})
    assert values["affine_gains"] == 2.0
    assert values["straight_without"] == pytest.approx(0.97)
    assert values["bends_with"] == pytest.approx(0.08 / 0.03)


@pytest.mark.parametrize("place", ["before", "after"])
def test_distances_are_those_of_what_reaches_each_normaliser(place):
    recipe = make("lenet", "digits", norm="batch", batch_size=50, activation="relu", place=place)
    data = load(recipe.data)
    network = build(recipe, data).module
    images = data.train_x[:64]
    distances = input_distances(network, images)
    assert list(distances) == ["conv1", "conv2", "fc1", "fc2"]
    with torch.no_grad():
        first = network.conv1.conv(images)
    expected = gaussian_distance(first if place == "before" else first.relu())
    assert distances["conv1"] == pytest.approx(expected)


def test_a_relu_takes_its_input_away_from_the_gaussian():
    distance = {}
    for place in ("before", "after"):
        recipe = make("lenet", "digits", norm="batch", batch_size=50, activation="relu", place=place)
        data = load(recipe.data)
        distance[place] = input_distances(build(recipe, data).module, data.train_x[:256])["fc1"]
    assert distance["after"] > 1.5 * distance["before"]

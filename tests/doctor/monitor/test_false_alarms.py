"""A training that goes well raises no alarm, and one that goes wrong does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import normwright as nw
from normwright.lab.data import load
from normwright.lab.networks import build_network
from normwright.lab.recipe import DataRecipe, NetworkRecipe


@pytest.fixture(scope="module")
def digits():
    return load(DataRecipe(name="digits"))


def trained(digits, network, optimiser, count, **options):
    told = []
    with nw.Monitor(network, optimiser, on_finding=told.append, **options) as monitor:
        for step in range(count):
            rows = torch.arange(32 * step, 32 * step + 32) % len(digits.train_x)
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(digits.train_x[rows]), digits.train_y[rows]).backward()
            optimiser.step()
    return monitor, told


@pytest.mark.parametrize("name", ["lenet", "resnet20"])
@pytest.mark.parametrize("adam", [False, True], ids=["sgd", "adam"])
def test_a_healthy_training(digits, name, adam):
    torch.manual_seed(0)
    recipe = NetworkRecipe(name=name, activation="relu", width=16)
    network = build_network(recipe, "batch", (1, 8, 8), 10).module
    optimiser = (
        torch.optim.Adam(network.parameters(), 1e-3)
        if adam
        else torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    )
    monitor, told = trained(digits, network, optimiser, 44, every=20, steps=4)
    assert len(monitor.windows) == 3
    assert [finding for finding in told if finding.severity != "note"] == []


def test_a_rate_far_too_high(digits):
    torch.manual_seed(0)
    recipe = NetworkRecipe(name="lenet", activation="relu", initialisation="normal", init_std=1.0)
    network = build_network(recipe, "none", (1, 8, 8), 10).module
    optimiser = torch.optim.SGD(network.parameters(), 10.0)
    _, told = trained(digits, network, optimiser, 4, every=4, steps=4)
    assert {finding.rule for finding in told if finding.severity != "note"} & {
        "exploding_gradient",
        "nonfinite_values",
    }

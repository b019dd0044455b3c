"""Claim 18: sharing statistics among time steps, where the joined moments are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normwright.lab.claims.statistics_per_step import joined, shared
from normwright.nn import BatchNormLSTM

STEPS = 6


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = nn.Sequential(BatchNormLSTM(3, 4, batch_first=True, max_length=8))
    for _ in range(3):
        network[0](torch.randn(16, STEPS, 3) * torch.arange(1.0, STEPS + 1).unsqueeze(1))
    return network.eval()


def test_joined_moments_are_those_of_all_elements_together():
    x = torch.randn(5, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, variance = joined(x.mean(1), x.var(1, correction=0))
    torch.testing.assert_close(mean, x.flatten(0, 1).mean(0))
    torch.testing.assert_close(variance, x.flatten(0, 1).var(0, correction=0))


def test_a_share_of_one_step_changes_nothing(network):
    x = torch.randn(5, STEPS, 3)
    assert torch.equal(shared(network, 1)[0](x)[0], network[0](x)[0])


def test_all_steps_share_one_pair(network):
    before = network[0].norm_ih_l0.running_mean.clone()
    norm = shared(network, STEPS)[0].norm_ih_l0
    assert torch.equal(norm.running_mean[:STEPS], before[:STEPS].mean(0).expand(STEPS, -1))
    assert torch.equal(norm.running_mean[STEPS:], before[STEPS:])
    assert torch.equal(network[0].norm_ih_l0.running_mean, before)
    x = torch.randn(5, STEPS, 3)
    assert not torch.allclose(shared(network, STEPS)[0](x)[0], network[0](x)[0])


def test_neighbours_share_and_the_last_share_may_be_smaller(network):
    means = shared(network, 4)[0].norm_c_l0.running_mean
    assert torch.equal(means[0], means[3])
    assert torch.equal(means[4], means[5])
    own = network[0].norm_c_l0.running_mean
    torch.testing.assert_close(means[5], own[4:STEPS].mean(0))  # not with steps that nothing has reached
    assert not torch.equal(means[3], means[4])

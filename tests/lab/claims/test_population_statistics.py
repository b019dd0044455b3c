"""Claim 16: accuracy by mode and the lag of a moving average, where both are known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from normwright.lab.claims.population_statistics import BACK_EVERY, NOW, accuracies, lag, population

MEAN, DEVIATION = 5.0, 2.0


@pytest.fixture
def data():
    """Two classes, above and below a mean that is not zero."""
    x = MEAN + DEVIATION * torch.linspace(-1, 1, 400).repeat_interleave(2).unsqueeze(1)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    y = (x[:, 0] > MEAN).long()
    return SimpleNamespace(train_x=x, validation_x=x, validation_y=y)


@pytest.fixture
def network():
    """Tells the classes apart by the sign of what is normalised."""
    network = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
    return network


def test_each_mode_normalises_by_its_own_statistics(data, network):
    in_training, with_population, with_average = accuracies(network, data, 400)
    assert with_population == 100.0
    assert with_average == pytest.approx(50.0)  # the running mean is 0, below every sample
    assert in_training > 95.0
    noisy, _, _ = accuracies(network, data, 2)
    assert noisy < 80.0  # of a pair of one class one is always taken for the other


def test_the_network_stays_as_it_is(data, network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    accuracies(network, data, 4)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_population_statistics_are_those_of_all_samples(data, network):
    norm = population(network, data.train_x)[0]
    assert float(norm.running_mean) == pytest.approx(MEAN, rel=1e-5)
    assert float(norm.running_var) == pytest.approx(float(data.train_x.var(correction=0)), rel=1e-5)


@pytest.mark.parametrize("behind", [0, 6, 20])
def test_the_lag_is_the_number_of_steps_that_the_average_is_behind(behind):
    steps = range(min(NOW) - 20, max(NOW) + 1, BACK_EVERY)
    drift = torch.randn(3, generator=torch.Generator().manual_seed(0))
    populations = {step: step * drift for step in steps}
    averages = {step: (step - behind) * drift for step in NOW}
    assert lag(averages, populations, torch.ones(3)) == behind


def test_the_lag_counts_channels_in_their_deviations():
    """A channel of large deviation says 0, one of small deviation 10 steps: the small one decides."""
    steps = range(min(NOW) - 20, max(NOW) + 1, BACK_EVERY)
    populations = {step: torch.tensor([float(step), float(step)]) for step in steps}
    averages = {step: torch.tensor([float(step), step - 10.0]) for step in NOW}
    assert lag(averages, populations, torch.tensor([1e3, 1.0])) == 10
    assert lag(averages, populations, torch.tensor([1.0, 1e3])) == 0


def test_an_exponential_average_of_a_steady_drift_is_behind_by_its_mean_age():
    """Weights 0.1·0.9^j have the mean age 9; of even steps, 8 and 10 are the nearest."""
    populations = {step: torch.tensor([float(step)]) for step in range(max(NOW) + 1)}
    average, averages = torch.zeros(1), {}
    for step, mean in populations.items():
        average = 0.9 * average + 0.1 * mean
        averages[step] = average
    assert lag(averages, populations, torch.ones(1)) in (8, 10)

"""The distance from a Gaussian, where it is known."""

from __future__ import annotations

import math

import pytest
import torch

from normwright.lab.book.gaussian import gaussian_distance

COUNT = 4_000
QUANTILES = (torch.arange(COUNT, dtype=torch.float64) + 0.5) / COUNT
GAUSSIAN = torch.special.ndtri(QUANTILES).reshape(-1, 1)
SHUFFLED = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))


def test_a_gaussian_of_any_mean_and_deviation_in_any_order_has_none():
    # Cutting off the tails beyond the outermost quantile leaves a deviation of 0.9995.
    assert gaussian_distance((3 - 5 * GAUSSIAN)[SHUFFLED]) < 1e-3


@pytest.mark.parametrize(
    ("values", "correlation"),
    [
        (QUANTILES.reshape(-1, 1), math.sqrt(3 / math.pi)),
        (GAUSSIAN.relu(), 0.5 / math.sqrt(0.5 - 1 / (2 * math.pi))),
        (GAUSSIAN.sign(), math.sqrt(2 / math.pi)),
    ],
    ids=["uniform", "rectified Gaussian", "two values"],
)
def test_it_is_the_root_of_twice_what_the_correlation_with_the_gaussian_lacks(values, correlation):
    """W² = E x̂² + E z² - 2 E x̂z for the coupling in rising order, where x̂ and z have variance 1."""
    # The variance that the quantiles lack for their tails, in E z² and at most in 2 E x̂z.
    missing = 1 - float(GAUSSIAN.square().mean())
    assert 0 < missing < 2e-3
    assert gaussian_distance(values[SHUFFLED]) ** 2 == pytest.approx(2 - 2 * correlation, abs=2 * missing)


def test_it_is_the_mean_over_units_that_vary():
    both = torch.cat([GAUSSIAN.relu(), GAUSSIAN, torch.ones_like(GAUSSIAN)], dim=1)
    alone = [gaussian_distance(GAUSSIAN.relu()), gaussian_distance(GAUSSIAN)]
    assert gaussian_distance(both) == pytest.approx(sum(alone) / 2)
    assert math.isnan(gaussian_distance(torch.ones(10, 3)))


def test_positions_are_values_of_their_channel():
    x = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    rows = x.permute(0, 2, 3, 1).reshape(-1, 3)
    assert gaussian_distance(x) == pytest.approx(gaussian_distance(rows))

"""The permutation p-value is exact, and Fisher's rule joins p-values that are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from normwright.shift.chance import PERMUTATIONS, joined_p, permutation_p


def exact(scores, current):
    """The share of all orders in which the current rows rank as high, or higher."""
    ranks = np.array([(scores < s).sum() + ((scores == s).sum() + 1) / 2 for s in scores])
    sums = [sum(ranks[list(places)]) for places in itertools.combinations(range(len(ranks)), current.sum())]
    return np.mean(np.array(sums) >= ranks[current].sum())


@pytest.mark.parametrize("positives", [3, 7])
def test_against_all_orders(positives):
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 6, 10).astype(float)
    current = np.arange(10) < positives
    wanted = exact(scores, current)
    found = permutation_p(scores, current, generator)
    # Five standard errors of a share over the permutations, and the 1 in numerator and denominator.
    assert abs(found - wanted) < 5 * (wanted * (1 - wanted) / PERMUTATIONS) ** 0.5 + 1 / PERMUTATIONS


def test_the_wrong_way_round_is_no_evidence():
    scores, current = np.arange(40.0), np.arange(40) < 20
    assert permutation_p(scores, current, np.random.default_rng(0)) == 1.0
    assert permutation_p(scores, ~current, np.random.default_rng(0)) == 1 / (1 + PERMUTATIONS)


def test_scores_that_are_all_equal_are_no_evidence():
    assert permutation_p(np.zeros(30), np.arange(30) < 3, np.random.default_rng(0)) == 1.0


def test_its_level():
    generator = np.random.default_rng(0)
    current = np.arange(30) < 8
    alarms = sum(permutation_p(generator.normal(size=30), current, generator) <= 0.05 for _ in range(400))
    low, high = binom.ppf([0.001, 0.999], 400, 0.05)
    assert low <= alarms <= high


def test_fishers_rule():
    assert joined_p([0.3]) == pytest.approx(0.3, rel=1e-12)
    # Of two, −2·ln(p·q) has 4 degrees of freedom: P = p·q·(1 − ln(p·q)).
    assert joined_p([0.2, 0.1]) == pytest.approx(0.02 * (1 - np.log(0.02)), rel=1e-12)
    assert joined_p([1.0, 1.0, 1.0]) == 1.0
    assert joined_p([]) == 1.0

"""Batch norm over parts of a batch: its two ends, and its gradient."""

import numpy as np
import pytest

from normwright.errors import ShapeError
from normwright.reference import (
    batch_norm,
    instance_norm,
    split_batch_norm,
    split_batch_norm_backward,
    virtual_batches,
)

X = np.random.default_rng(3).normal(1, 2, (6, 3, 4))
DOMAINS = [1, 0, 1, 2, 0, 2]


def test_one_domain_is_batch_norm_and_a_sample_each_is_instance_norm():
    np.testing.assert_array_equal(split_batch_norm(X, [7] * 6), batch_norm(X).y)
    np.testing.assert_array_equal(split_batch_norm(X, virtual_batches(6, 6)), batch_norm(X).y)
    np.testing.assert_allclose(split_batch_norm(X, range(6)), instance_norm(X).y, rtol=1e-13, atol=1e-13)


def test_a_domain_does_not_know_of_the_others():
    changed = X.copy()
    changed[[0, 2]] += 100
    before, after = (split_batch_norm(x, DOMAINS) for x in (X, changed))
    np.testing.assert_array_equal(before[[1, 3, 4, 5]], after[[1, 3, 4, 5]])


def test_the_gradient_is_that_of_the_map():
    random = np.random.default_rng(4)
    dy, weight, bias = random.normal(size=X.shape), random.normal(size=3), random.normal(size=3)
    gradients = split_batch_norm_backward(dy, X, DOMAINS, weight, 1e-3)
    given, step = [X, weight, bias], 1e-5
    for place, gradient in enumerate(gradients):
        for index in (tuple(0 for _ in gradient.shape), tuple(size - 1 for size in gradient.shape)):
            above, below = ([array.copy() for array in given] for _ in range(2))
            above[place][index] += step
            below[place][index] -= step
            ends = [(dy * split_batch_norm(x, DOMAINS, w, b, 1e-3)).sum() for x, w, b in (above, below)]
            # a central difference: step² of the third derivative, and 1e-16/step of the sum of 72 terms
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(gradient[index], rel=1e-6, abs=1e-7)


def test_what_cannot_be_cut():
    with pytest.raises(ShapeError, match="ghost_size must divide the 6 samples, but is 4"):
        virtual_batches(6, 4)
    with pytest.raises(ShapeError, match=r"domains must be \(6,\), one for each sample"):
        split_batch_norm(X, [0, 1])

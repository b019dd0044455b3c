"""Filter response norm, dynamic tanh and maxout: what they are at their ends."""

import numpy as np
import pytest

from normwright.errors import ShapeError
from normwright.reference import dynamic_tanh, filter_response_norm, instance_norm, maxout

X = np.random.default_rng(3).normal(1, 2, (4, 6, 5))
WEIGHT, BIAS = np.arange(1.0, 7), np.arange(6.0) - 2


def test_without_a_mean_to_take_away_it_is_instance_norm():
    centred = X - X.mean(axis=2, keepdims=True)
    expected = instance_norm(centred, WEIGHT, BIAS, 1e-3).y
    np.testing.assert_allclose(filter_response_norm(centred, WEIGHT, BIAS, eps=1e-3), expected, atol=1e-13)
    assert not np.allclose(filter_response_norm(X, WEIGHT, BIAS), instance_norm(X, WEIGHT, BIAS).y)


def test_a_low_threshold_passes_all_and_a_high_one_none():
    free = filter_response_norm(X, WEIGHT, BIAS)
    np.testing.assert_array_equal(filter_response_norm(X, WEIGHT, BIAS, [-1e9] * 6), free)
    np.testing.assert_array_equal(filter_response_norm(X, WEIGHT, BIAS, [1e9] * 6), np.full(X.shape, 1e9))


def test_a_small_alpha_is_linear_and_a_large_one_is_the_sign():
    # tanh(z) = z - z³/3 + …, with z at most 1e-4 times 8
    np.testing.assert_allclose(dynamic_tanh(X, 1e-4) / 1e-4, X, rtol=1e-6)
    np.testing.assert_array_equal(dynamic_tanh(X, 1e9), np.sign(X))
    np.testing.assert_array_equal(dynamic_tanh(np.zeros((2, 3)), 1.0, [1, 2, 3], [4, 5, 6])[1], [4, 5, 6])


def test_maxout_takes_each_channel_from_its_own_pieces():
    y = maxout(X, 3)
    np.testing.assert_array_equal(y[:, 1], X[:, 3:].max(axis=1))
    np.testing.assert_array_equal(maxout(X, 1), X)
    np.testing.assert_array_equal(maxout(np.stack([X, -X], axis=2).reshape(4, 12, 5), 2), np.abs(X))
    with pytest.raises(ShapeError, match="pieces must divide the 6 channels, but is 4"):
        maxout(X, 4)

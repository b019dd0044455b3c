"""Batch renorm's formula: its two ends, its statistics, and its gradient with r and d held constant."""

import numpy as np
import pytest

from normwright.reference import (
    axes_of,
    batch_norm,
    batch_renorm,
    batch_renorm_backward,
    inference_map,
    moments,
    normalise,
)

EPS = 1e-3


@pytest.fixture
def call():
    random = np.random.default_rng(4)
    x = random.normal(2, 3, (5, 4, 6))
    running = random.normal(size=4), random.uniform(0.5, 4, 4)
    return x, *running, random.normal(size=4), random.normal(size=4)


def test_unclipped_it_is_inference(call):
    y = batch_renorm(*call, eps=EPS, r_max=np.inf, d_max=np.inf).y
    x, mean, variance, weight, bias = call
    scale, shift = inference_map(mean, variance, weight, bias, EPS)
    column = (1, 4, 1)
    expected = x * scale.reshape(column) + shift.reshape(column)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)


def test_clipped_to_nothing_it_is_batch_norm(call):
    x, _, _, weight, bias = call
    result = batch_renorm(*call, eps=EPS, r_max=1.0, d_max=0.0)
    np.testing.assert_array_equal(result.y, batch_norm(x, weight, bias, EPS).y)
    np.testing.assert_array_equal(result.r, np.ones(4))
    np.testing.assert_array_equal(result.d, np.zeros(4))


def test_r_and_d_are_algorithm_1_s(call):
    x, mean, variance, *_ = call
    result = batch_renorm(*call, eps=EPS, r_max=1.5, d_max=0.5)
    for channel in range(4):
        part = x[:, channel]
        sigma_b = np.sqrt(EPS + ((part - part.mean()) ** 2).mean())
        sigma = np.sqrt(EPS + variance[channel])
        assert result.r[channel] == pytest.approx(min(max(sigma_b / sigma, 1 / 1.5), 1.5), rel=1e-12)
        d = (part.mean() - mean[channel]) / sigma
        assert result.d[channel] == pytest.approx(min(max(d, -0.5), 0.5), rel=1e-12)


def test_the_statistics_are_moving_averages_of_mean_and_deviation(call):
    x, mean, variance, *_ = call
    result = batch_renorm(*call, momentum=0.01, eps=EPS)
    batch = moments(x, axes_of("batch", x.shape))
    np.testing.assert_allclose(result.running_mean, mean + 0.01 * (batch.mean - mean), rtol=1e-13)
    old, new = np.sqrt(variance + EPS), np.sqrt(result.running_var + EPS)
    np.testing.assert_allclose(new, old + 0.01 * (np.sqrt(batch.variance + EPS) - old), rtol=1e-12)
    still = batch_renorm(*call, momentum=0.0, eps=EPS)
    np.testing.assert_allclose(still.running_var, variance, rtol=1e-13)
    whole = batch_renorm(*call, momentum=1.0, eps=EPS)
    np.testing.assert_allclose(whole.running_var, batch.variance, rtol=1e-12)


def test_the_gradient_is_that_of_the_map_with_r_and_d_constant(call):
    x, mean, variance, weight, bias = call
    dy = np.random.default_rng(5).normal(size=x.shape)
    held = batch_renorm(*call, eps=EPS, r_max=1.5, d_max=0.5)
    gradients = batch_renorm_backward(dy, x, mean, variance, weight, EPS, r_max=1.5, d_max=0.5)
    axes = axes_of("batch", x.shape)

    def loss(x, weight, bias):
        return (dy * normalise(x, axes, held.r * weight, held.d * weight + bias, EPS).y).sum()

    given, step = [x, weight, bias], 1e-5
    for place, gradient in enumerate(gradients):
        for index in [tuple(0 for _ in gradient.shape), tuple(size - 1 for size in gradient.shape)]:
            above, below = ([array.copy() for array in given] for _ in range(2))
            above[place][index] += step
            below[place][index] -= step
            numeric = (loss(*above) - loss(*below)) / (2 * step)
            # a central difference: step² of the third derivative, and 1e-16/step of the sum of 120 terms
            assert numeric == pytest.approx(gradient[index], rel=1e-6, abs=1e-7)

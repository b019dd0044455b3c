import itertools

import numpy as np
import pytest
import torch

from normwright.errors import ShapeError
from normwright.reference import axes_of, batch_norm, inference_map, moments, moving_average, total, within


def of(batches):
    """Means, biased variances and counts of mini-batches, each (n, C)."""
    taken = [moments(batch, axes_of("batch", np.shape(batch))) for batch in batches]
    return [m.mean for m in taken], [m.variance for m in taken], [len(batch) for batch in batches]


@pytest.fixture
def batches():
    random = np.random.default_rng(6)
    return [random.normal(5 * k, 1 + k, (count, 3)) for k, count in enumerate((7, 2, 30, 1, 4))]


@pytest.fixture
def several(batches):
    return [batch for batch in batches if len(batch) > 1]


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
def test_the_moving_average_is_what_pytorch_keeps(several, momentum, assert_rounding):
    layer = torch.nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    for batch in several:
        layer(torch.tensor(batch))
    mean, variance = moving_average(*of(several), momentum)
    largest = max(float(np.abs(batch).max()) for batch in several)
    elements = sum(map(len, several))
    assert_rounding(mean, layer.running_mean, additions=elements, scale=largest)
    assert_rounding(variance, layer.running_var, additions=elements, scale=largest**2)


def test_the_moving_average_starts_at_0_and_1():
    mean, variance = moving_average([[8.0]], [[3.0]], [4], momentum=0.25)
    assert (mean.item(), variance.item()) == (2.0, 0.75 + 0.25 * 4.0)


def test_the_cumulative_mean_is_the_plain_mean(several, assert_rounding):
    means, variances, counts = of(several)
    unbiased = [batch.var(axis=0, ddof=1) for batch in several]
    mean, variance = moving_average(means, variances, counts, momentum=None)
    assert_rounding(mean, np.mean(means, axis=0), additions=30, scale=20)
    assert_rounding(variance, np.mean(unbiased, axis=0), additions=30, scale=20**2)


def test_within_is_the_formula_of_the_paper(assert_rounding):
    means, variances, counts = of(np.random.default_rng(3).normal(size=(6, 5, 4)))
    mean, variance = within(means, variances, counts)
    assert_rounding(mean, np.mean(means, axis=0), additions=6, scale=1)
    assert_rounding(variance, 5 / 4 * np.mean(variances, axis=0), additions=6, scale=4)


def test_within_weights_by_count(several, assert_rounding):
    means, variances, counts = of(several)
    mean, variance = within(means, variances, counts)
    everything = np.concatenate(several)
    assert_rounding(mean, everything.mean(axis=0), additions=len(everything), scale=20)
    of_each = np.concatenate([np.tile(batch.var(axis=0, ddof=1), (len(batch), 1)) for batch in several])
    assert_rounding(variance, of_each.mean(axis=0), additions=len(everything), scale=20**2)
    assert np.abs(mean - np.mean(means, axis=0)).min() > 0.1  # the count matters here


def test_within_is_unbiased():
    """Over every mini-batch of two and of three that can be drawn, it is the variance of the population."""
    population = (0.0, 1.0, 3.0, 8.0)
    draws = [*itertools.product(population, repeat=2), *itertools.product(population, repeat=3)]
    mean, variance = within(*of([np.reshape(draw, (-1, 1)) for draw in draws]))
    assert mean.item() == pytest.approx(3.0, rel=1e-13, abs=0)
    assert variance.item() == pytest.approx(np.var(population), rel=1e-13, abs=0)


def test_total_is_the_variance_of_all_elements(batches, assert_rounding):
    mean, variance = total(*of(batches))
    everything = np.concatenate(batches)
    assert_rounding(mean, everything.mean(axis=0), additions=len(everything), scale=30)
    assert_rounding(variance, everything.var(axis=0), additions=len(everything), scale=30**2)


def test_total_adds_the_variance_of_the_means():
    """One class to a mini-batch: all the variance lies between them."""
    means, variances, counts = [[0.0], [6.0]], [[0.0], [0.0]], [8, 8]
    assert total(means, variances, counts).variance.item() == 9.0
    assert within(means, variances, counts).variance.item() == 0.0


@pytest.mark.parametrize("offset", [0.0, 2.0**20, 2.0**40])
def test_total_is_exact_and_does_not_cancel(offset):
    """Quarters, merged half to half: no step rounds, however far the mean is from 0."""
    random = np.random.default_rng(12)
    batches = [offset + random.integers(-50, 50, (count, 2)) / 4 for count in (4, 4, 8, 16)]
    mean, variance = total(*of(batches))
    everything = np.concatenate(batches)
    np.testing.assert_array_equal(mean, everything.mean(axis=0))
    np.testing.assert_array_equal(variance, everything.var(axis=0))


def test_inference_is_one_multiply_add(assert_rounding):
    random = np.random.default_rng(1)
    x, weight, bias = random.uniform(-2, 4, (6, 3)), random.normal(size=3), random.normal(size=3)
    trained = batch_norm(x, weight, bias, eps=0.1)
    scale, shift = inference_map(trained.mean, trained.variance, weight, bias, eps=0.1)
    assert_rounding(scale * x + shift, trained.y, additions=0, scale=4 * float(np.abs(scale).max()) + 3)
    torch_y = torch.nn.functional.batch_norm(
        *map(torch.tensor, (x, trained.mean, trained.variance, weight, bias)), training=False, eps=0.1
    )
    assert_rounding(scale * x + shift, torch_y, additions=0, scale=4 * float(np.abs(scale).max()) + 3)


def test_inference_without_weight_and_bias():
    one = inference_map([3.0, -1.0], [4.0, 9.0], eps=1e-5)
    other = inference_map([3.0, -1.0], [4.0, 9.0], [1.0, 1.0], [0.0, 0.0], eps=1e-5)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("estimate", [moving_average, within, total])
@pytest.mark.parametrize(
    ("means", "variances", "counts", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3)), [], "at least one mini-batch"),
        (1.0, 1.0, 2, "at least one mini-batch"),
        ([[1.0]], [[1.0, 2.0]], [2], "variances must have shape"),
        ([[1.0]], [[1.0]], [2, 3], "counts must have shape"),
        ([[1.0]], [[1.0]], [0], "counts must be at least"),
        ([[1.0]], [[1.0]], [np.nan], "counts must be at least"),
    ],
)
def test_what_does_not_agree_is_refused(estimate, means, variances, counts, message):
    with pytest.raises(ShapeError, match=message):
        estimate(means, variances, counts)


@pytest.mark.parametrize("estimate", [moving_average, within])
def test_one_element_has_no_unbiased_variance(estimate):
    with pytest.raises(ShapeError, match="at least 2"):
        estimate([[1.0]], [[0.0]], [1])


@pytest.mark.parametrize("estimate", [moving_average, within, total])
def test_a_channel_that_is_not_finite_leaves_the_others_alone(estimate):
    bad = estimate([[np.inf, 1.0], [-np.inf, 3.0]], [[np.nan, 1.0], [np.nan, 2.0]], [2, 2])
    good = estimate([[0.0, 1.0], [0.0, 3.0]], [[1.0, 1.0], [1.0, 2.0]], [2, 2])
    assert not np.isfinite([bad.mean[0], bad.variance[0]]).any()
    assert (bad.mean[1], bad.variance[1]) == (good.mean[1], good.variance[1])


def test_a_variance_of_0_without_eps_is_no_accident():
    scale, shift = inference_map([1.0, 1.0], [0.0, 1.0], eps=0.0)
    np.testing.assert_array_equal(scale, [np.inf, 1.0])
    np.testing.assert_array_equal(shift, [-np.inf, -1.0])


@pytest.mark.parametrize("wrong", [{"variance": [1.0]}, {"weight": [1.0]}, {"bias": [1.0]}])
def test_an_inference_map_of_unequal_shapes_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ShapeError, match=f"{name} must have shape"):
        inference_map(**{"mean": [0.0, 0.0], "variance": [1.0, 1.0], **wrong})

"""Batch norm under a mask: that of what counts, and nothing elsewhere."""

import numpy as np
import pytest

from normwright.errors import ShapeError
from normwright.reference import batch_norm, masked_batch_norm, masked_batch_norm_backward

EPS = 2.0**-7


@pytest.fixture
def call():
    random = np.random.default_rng(0)
    mask = random.uniform(size=(3, 4)) < 0.6
    return random.uniform(-2, 4, (3, 2, 4)), mask, random.uniform(0.5, 2, 2), random.uniform(-1, 1, 2)


def test_it_is_batch_norm_of_what_counts(call):
    x, mask, weight, bias = call
    y = masked_batch_norm(*call, EPS)
    joined = np.stack([x[n, :, place] for n, place in np.argwhere(mask)])
    expected = batch_norm(joined, weight, bias, EPS).y
    np.testing.assert_array_equal(np.stack([y[n, :, place] for n, place in np.argwhere(mask)]), expected)
    assert not y.transpose(0, 2, 1)[~mask].any()


def test_where_all_counts_it_is_batch_norm(call):
    x, mask, weight, bias = call
    y = masked_batch_norm(x, np.ones_like(mask), weight, bias, EPS)
    np.testing.assert_allclose(y, batch_norm(x, weight, bias, EPS).y, rtol=0, atol=1e-14)


def test_gradients(call, assert_gradient):
    x, mask, weight, bias = call
    dy = np.random.default_rng(1).uniform(-1, 1, x.shape)
    gradients = masked_batch_norm_backward(dy, x, mask, weight, EPS)
    assert_gradient(gradients.dx, lambda x: masked_batch_norm(x, mask, weight, bias, EPS), x, dy)
    assert_gradient(gradients.dweight, lambda w: masked_batch_norm(x, mask, w, bias, EPS), weight, dy)
    assert_gradient(gradients.dbias, lambda b: masked_batch_norm(x, mask, weight, b, EPS), bias, dy)


def test_a_mask_of_another_shape(call):
    with pytest.raises(ShapeError, match=r"mask must be \(3, 4\)"):
        masked_batch_norm(call[0], call[1].T)

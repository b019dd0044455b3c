"""The distribution of a tensor: against NumPy, element by element, and on what has no moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from normwright.doctor.training.spread import PERCENTILES, SAMPLE, count_nonfinite, sample_of, spread_of

# A mean of n float64 is off by at most n·2⁻⁵³ of the mean magnitude; n is at most 4096 here.
REL = 4096 * 2.0**-53 * 8


def test_a_small_tensor_is_read_whole():
    torch.manual_seed(0)
    x = torch.randn(7, 11) ** 3
    found, values = spread_of(x, 3), x.numpy().astype(np.float64).ravel()
    assert (found.step, found.count, found.nonfinite) == (3, 77, 0)
    assert found.mean == pytest.approx(values.mean(), rel=REL)
    assert found.deviation == pytest.approx(values.std(), rel=REL)
    cubes = ((values - values.mean()) ** 3).mean()
    assert found.skewness == pytest.approx(cubes / values.std() ** 3, rel=REL)
    assert (found.least, found.most) == (values.min(), values.max())
    np.testing.assert_allclose(found.percentiles, np.percentile(values, PERCENTILES), rtol=REL)


@pytest.mark.parametrize("shape", [(16, 64, 28, 28), (3, 4097), (100, 100, 100), (5000,), (8192, 2)])
def test_a_large_one_is_sampled_evenly(shape):
    x = torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
    sample = sample_of(x)
    gaps = sample.diff()
    assert SAMPLE / 4 <= len(sample) <= SAMPLE
    assert gaps.unique().numel() == 1
    # every place of every axis is met: the spacing shares no factor with any of them
    for axis, size in enumerate(shape):
        places = torch.from_numpy(np.stack(np.unravel_index(sample.long().numpy(), shape)))[axis]
        if size <= len(sample):
            assert places.unique().numel() > size / 2
    assert sample.data_ptr() == x.data_ptr()  # a view


def test_the_sample_of_channels_last_is_a_view_and_meets_every_channel():
    x = torch.randn(8, 64, 30, 30).to(memory_format=torch.channels_last)
    channels = torch.arange(64.0)[None, :, None, None].expand_as(x).to(memory_format=torch.channels_last)
    assert sample_of(x).data_ptr() == x.data_ptr()
    assert sample_of(channels).unique().numel() == 64


def test_a_tensor_with_gaps_is_read_in_order():
    x = torch.arange(20.0).view(4, 5)[:, ::2]
    assert torch.equal(sample_of(x), x.reshape(-1))


def test_nan_and_infinity_are_counted_and_left_out():
    x = torch.tensor([1.0, math.nan, 3.0, math.inf, -math.inf])
    found = spread_of(x, 0)
    assert (found.nonfinite, found.mean, found.least, found.most) == (3, 2.0, 1.0, 3.0)


@pytest.mark.parametrize("x", [torch.tensor([math.nan] * 3), torch.zeros(0), torch.zeros(0, 4)])
def test_nothing_finite_has_no_moments(x):
    found = spread_of(x, 0)
    assert all(map(math.isnan, (found.mean, found.deviation, *found.percentiles)))


def test_a_constant_has_no_deviation():
    found = spread_of(torch.full((1000,), 0.1), 0)
    assert (found.deviation, found.skewness) == (0.0, 0.0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_neither_overflow_nor_vanish(scale):
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64) * scale
    found, plain = spread_of(x.float(), 0), spread_of(x / scale, 0)
    assert found.deviation / scale == pytest.approx(plain.deviation, rel=2.0**-23)
    assert found.skewness == pytest.approx(plain.skewness, rel=2.0**-20)


def test_finite_values_whose_sum_overflows_are_finite():
    assert count_nonfinite(torch.full((10,), 3e38)) == 0
    assert count_nonfinite(torch.full((10,), 6e4, dtype=torch.float16)) == 0
    assert count_nonfinite(torch.tensor([1, 2])) == 0
    assert count_nonfinite(torch.tensor([3e38, 3e38, math.inf])) == 1

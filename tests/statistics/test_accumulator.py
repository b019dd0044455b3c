"""Moments merge in any cut of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tolerances import depth

from normwright.reference.population import total, within
from normwright.statistics.accumulator import Accumulator
from normwright.statistics.estimate import Estimate

# float64 sums, by us and by NumPy, of fewer than 10^4 elements, and a merge's five operations; a mean of
# 10^4 deviations is wrong by as many of them more.
SUMMED = 2 * (depth(10**4) + 5) * 2.0**-53


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("offset", [0.0, 1e4], ids=["", "mean/deviation 1e4"])
@pytest.mark.parametrize("cut", [(100,), (1, 99), (37, 0, 13, 50), (50, 50)], ids=str)
def test_any_cut_gives_the_moments_of_the_whole(cut, offset):
    x = draw(100, 3) + offset
    whole = Accumulator(torch.zeros(()), torch.zeros(3).double(), torch.zeros(3).double())
    for part in x.split(cut):
        if len(part):
            whole = whole.merged(Accumulator.of(part))
    assert whole.count == 100
    np.testing.assert_allclose(whole.mean, x.numpy().mean(0), rtol=SUMMED, atol=SUMMED)
    np.testing.assert_allclose(whole.variance, x.numpy().var(0), rtol=SUMMED * max(1, offset))


def test_nothing_merged_with_nothing_is_nothing():
    nothing = Accumulator(torch.zeros(()), torch.zeros(2).double(), torch.zeros(2).double())
    both = nothing.merged(nothing)
    assert both.count == 0
    assert torch.equal(both.mean, torch.zeros(2).double())
    assert torch.equal(both.m2, torch.zeros(2).double())


def test_channels_may_differ_in_their_count():
    # as under a mask: the second channel's last element does not count
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 99.0]], dtype=torch.float64)
    counts = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    moments = Accumulator.of_batches(counts, x, torch.zeros_like(x))
    assert moments.count.tolist() == [3, 2]
    assert moments.mean.tolist() == [3, 3]
    assert moments.variance.tolist() == [8 / 3, 1]


def test_fading_keeps_the_moments_and_lessens_their_weight():
    old, new = Accumulator.of(draw(8, 2)), Accumulator.of(draw(4, 2, seed=1) + 3)
    faded = old.faded(0.5)
    assert torch.equal(faded.mean, old.mean)
    np.testing.assert_allclose(faded.variance, old.variance, rtol=SUMMED)
    # 8 elements at half weight against 4: half and half
    np.testing.assert_allclose(faded.merged(new).mean, (old.mean + new.mean) / 2, rtol=SUMMED)


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one by one"])
def test_both_estimators_are_the_references(together):
    means, variances = draw(5, 3), draw(5, 3, seed=1).square()
    counts = torch.tensor([7, 2, 30, 9, 4])
    unbiased = variances * (counts / (counts.double() - 1)).unsqueeze(1)
    if together:
        estimate = Estimate.of_batches(counts, means, unbiased)
    else:
        rows = [
            Estimate.of_batches(counts[i : i + 1], means[i : i + 1], unbiased[i : i + 1]) for i in range(5)
        ]
        estimate = rows[0]
        for row in rows[1:]:
            estimate = estimate.merged(row)
    for estimator, reference in (("total", total), ("within", within)):
        expected = reference(means.numpy(), variances.numpy(), counts.numpy())
        np.testing.assert_allclose(estimate.elements.mean, expected.mean, rtol=SUMMED, atol=SUMMED)
        np.testing.assert_allclose(estimate.variance(estimator), expected.variance, rtol=SUMMED)


def test_channels_side_by_side_split_into_what_they_were():
    parts = [Accumulator.of(draw(n, channels, seed=n)) for n, channels in ((4, 3), (9, 1), (2, 5))]
    whole = Accumulator.side_by_side(parts)
    assert whole.count.tolist() == [4, 4, 4, 9, 2, 2, 2, 2, 2]
    for part, again in zip(parts, whole.split([3, 1, 5]), strict=True):
        assert torch.equal(again.count, part.count)
        assert torch.equal(again.mean, part.mean)
        assert torch.equal(again.m2, part.m2)
        # what is sent to another process holds these channels alone
        assert again.mean.untyped_storage().nbytes() == part.mean.nbytes


def test_standard_errors_are_those_of_repeated_data_sets():
    # Images whose pixels share a level: far fewer independent draws than elements. What is foretold from one
    # data set of 50 mini-batches is compared with how 400 data sets differ.
    generator = torch.Generator().manual_seed(0)
    levels = torch.randn(400, 50, 8, 1, generator=generator, dtype=torch.float64)
    pixels = levels + torch.randn(400, 50, 8, 16, generator=generator, dtype=torch.float64)
    flat = pixels.flatten(2)
    counts = torch.full((50,), 128)
    estimates = [
        Estimate.of_batches(counts, one.mean(1, keepdim=True), one.var(1, keepdim=True)) for one in flat
    ]
    for estimator in ("total", "within"):
        foretold = [estimate.standard_errors(estimator) for estimate in estimates]
        means = torch.stack([estimate.elements.mean for estimate in estimates])
        variances = torch.stack([estimate.variance(estimator) for estimate in estimates])
        of_mean = torch.stack([mean for mean, _ in foretold]).mean() * variances.mean().sqrt()
        of_variance = torch.stack([variance for _, variance in foretold]).mean() * variances.mean()
        # A deviation from 400 draws is itself known to 1/√800 = 3.5 %, here to four of these; what is
        # foretold of the total variance counts what lies between batches twice over, on the safe side.
        assert of_mean == pytest.approx(float(means.std()), rel=0.15)
        assert 0.85 <= float(of_variance / variances.std()) <= 1.5
    # taken for independent, the pixels would promise a third of that error
    assert float(of_mean) > 2.5 * (2 / (50 * 128)) ** 0.5


def test_of_one_mini_batch_no_error_is_known():
    one = Estimate.of_batches(torch.tensor([4]), draw(1, 2), draw(1, 2).square())
    assert all(error.isinf().all() for error in one.standard_errors("total"))


def test_a_constant_channel_is_known_at_once():
    estimate = Estimate.of_batches(torch.tensor([4, 4]), torch.ones(2, 1), torch.zeros(2, 1))
    assert [float(error) for error in estimate.standard_errors("total")] == [0, 0]

"""Moments, their noise and the gaps of single normalisers, against float64 references."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import normwright.nn
from normwright.doctor.gathering import gather
from normwright.doctor.statistics.sight import sight_of_module
from normwright.doctor.statistics.tally import Tally
from normwright.doctor.subject import Subject

# Sums of float64 over these few thousand elements agree to far more digits than this.
CLOSE = {"rel": 1e-9}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batches(count=6, samples=8, *shape):
    """Samples of unlike levels, so that the elements of each are alike."""
    shape = shape or (3, 4, 4)
    level = draw(count * samples, *[1] * len(shape), seed=7)
    return tuple((2 + draw(count * samples, *shape) + level).split(samples))


def examined(network, given, **options):
    return gather(Subject(network.double(), given, **options))


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "strided": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3)[:, :, ::1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, normwright.nn.BatchNorm2d])
def test_the_noise_of_moments_is_their_spread_over_batches_and_parts(layout, kind):
    given = tuple(map(LAYOUTS[layout], batches()))
    [facts] = examined(kind(3), given).moments
    everything = torch.cat(given).transpose(0, 1).flatten(1)
    population = everything.var(1, unbiased=False)
    assert (facts.samples, facts.elements, facts.channels) == (8, 128, 3)
    assert [point.samples for point in facts.noise] == [8, 4, 2, 1]
    for point in facts.noise:
        parts = [part.transpose(0, 1).flatten(1) for x in given for part in x.split(point.samples)]
        means = torch.stack([part.mean(1) for part in parts])
        variances = torch.stack([part.var(1, unbiased=False) for part in parts])
        assert point.batches == len(parts)
        assert point.mean == pytest.approx(float((means.var(0) / population).mean().sqrt()), **CLOSE)
        spread = (variances.var(0) / population.square()).mean().sqrt()
        assert point.variance == pytest.approx(float(spread), **CLOSE)
    assert facts.expected == 1 / math.sqrt(128)
    assert facts.corrected == pytest.approx(facts.noise[-1].mean / math.sqrt(8), **CLOSE)
    # the levels make half of the variance: a batch is as good as 8 samples and a little, not 128 elements
    assert facts.corrected > 2 * facts.expected


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, normwright.nn.BatchNorm2d])
def test_the_gap_is_that_of_the_outputs_in_both_modes(kind):
    given = batches()
    norm = kind(3).double()
    with torch.no_grad():
        norm.weight.copy_(draw(3, seed=1))
        norm.running_mean.copy_(draw(3, seed=2))
        norm.running_var.copy_(1 + draw(3, seed=3).square())
    [facts] = examined(norm, given).moments
    apart = whole = 0.0
    for x in given:
        trained = F.batch_norm(x, None, None, norm.weight, None, training=True)
        inference = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight)
        apart += float((trained - inference).detach().square().sum())
        whole += float(trained.detach().square().sum())
    assert facts.gap == pytest.approx(math.sqrt(apart / whole), **CLOSE)


def test_running_statistics_are_held_against_the_batches():
    given = batches()
    norm = nn.BatchNorm2d(3).double()
    [facts] = examined(norm, given).running
    means = torch.stack([x.mean((0, 2, 3)) for x in given])
    variances = torch.stack([x.var((0, 2, 3)) for x in given])
    mean, variance = means.mean(0), variances.mean(0)
    assert facts.mean_shift == pytest.approx((-mean / (variance + 1e-5).sqrt()).tolist(), **CLOSE)
    assert facts.variance_ratio == pytest.approx(((1 + 1e-5) / (variance + 1e-5)).tolist(), **CLOSE)
    # standard errors of means of six batches
    assert facts.variance_error == pytest.approx(
        (variances.std(0) / math.sqrt(6) / variance).tolist(), **CLOSE
    )
    # mean_B - mean over the count of 128 elements, biased inside: at most 1/128 off
    assert facts.mean_error == pytest.approx(
        (means.std(0) / math.sqrt(6) / variance.sqrt()).tolist(), rel=2 / 128
    )
    assert facts.untrained
    assert (facts.tracked, facts.remainder, facts.gap_beyond_start) == (0, 1.0, 0.0)


@pytest.mark.parametrize("steps", [1, 3, 10, 40])
@pytest.mark.parametrize("momentum", [0.1, 0.01, None])
def test_what_is_left_of_the_initial_values_is_taken_out(steps, momentum):
    """A few steps old, the raw statistics are far off, and the moving average explains it."""
    norm = nn.BatchNorm1d(16, momentum=momentum).double().train()
    data = 5 + 3 * draw(64 * 60, 16)
    for x in data[: 64 * steps].split(64):
        norm(x)
    [facts] = examined(norm, data[-64 * 8 :].split(64)).running
    assert facts.tracked == steps
    assert facts.remainder == (0.0 if momentum is None else pytest.approx((1 - momentum) ** steps))
    if momentum == 0.01 or (momentum and steps == 1):
        assert facts.gap > 1
    # what is left is noise, of which the rest is taken off: at most twice what 64 samples make of a mean
    assert facts.gap_beyond_start < 2 / math.sqrt(64)


def test_statistics_of_other_data_are_not_explained_by_a_moving_average():
    norm = nn.BatchNorm1d(16).double().train()
    for x in draw(64 * 5, 16).split(64):
        norm(x)
    [facts] = examined(norm, (5 + draw(64 * 8, 16, seed=1)).split(64)).running
    assert facts.gap_beyond_start > 4


def test_moments_of_rows_are_seen_for_eps():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LayerNorm(6)
            self.rms = normwright.nn.RMSNorm(6)
            self.group = nn.GroupNorm(2, 6)

        def forward(self, x):
            self.group(x)
            return self.rms(self.layer(x))

    x = 1e-4 * draw(4, 6)
    moments = {facts.layer: facts for facts in examined(Rows(), (x,)).moments}
    assert moments["layer"].below_eps == 1.0
    assert moments["layer"].middle_variance == pytest.approx(
        float(x.var(1, unbiased=False).median()), **CLOSE
    )
    groups = x.view(4, 2, 3).var(2, unbiased=False)
    assert moments["group"].least_variance == pytest.approx(float(groups.min()), **CLOSE)
    # a mean square of what layer norm by eps left: x/√(variance + eps)
    normal = F.layer_norm(x, (6,))
    assert moments["rms"].least_variance == pytest.approx(float(normal.square().mean(1).min()), rel=1e-6)


def test_functional_calls_are_seen_and_named():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(3))
            self.register_buffer("running_var", torch.ones(3))

        def forward(self, x):
            x = F.batch_norm(x, self.running_mean, self.running_var, training=self.training)
            return F.instance_norm(F.batch_norm(x, None, None, training=True))

    network = nn.Sequential(Bare())
    facts = {facts.layer: facts for facts in examined(network, batches()).moments}
    assert list(facts) == ["0: batch_norm", "0: batch_norm#2", "0: instance_norm"]
    assert [found.in_training for found in facts.values()] == [True, True, True]
    assert [found.in_inference for found in facts.values()] == [False, True, True]
    assert [found.per_sample for found in facts.values()] == [False, False, True]


def test_a_channel_that_is_constant_or_not_finite_stays_by_itself():
    given = [x.clone() for x in batches()]
    for x in given:
        x[:, 1] = 1e6
    [facts] = examined(nn.BatchNorm2d(3), tuple(given)).moments
    live = torch.cat(given)[:, [0, 2]]
    assert facts.least_variance > float(live.var((0, 2, 3)).min()) / 2
    assert facts.below_eps == 0.0
    given[0][0, 2] = math.nan
    [facts] = examined(nn.BatchNorm2d(3), tuple(given)).moments
    assert facts.samples == 8


def test_a_batch_of_one_is_found_before_it_raises():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    evidence = examined(network, (draw(8, 4), draw(1, 4)))
    [refused] = evidence.refused
    assert (refused.place, refused.layer) == (1, "1")
    assert "'1' (BatchNorm1d) is given one value per channel, (1, 3)" in refused.because
    # the other batch was looked at all the same
    assert evidence.moments[0].elements == 8
    assert evidence.counts[0].runs == 1


def test_a_frozen_layer_takes_batches_of_one():
    network = normwright.freeze(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    assert not examined(network, (draw(1, 4),)).refused


@pytest.mark.parametrize("first", [5, 11])
def test_an_odd_first_batch_does_not_stand_for_the_others(first):
    x = draw(first + 6 * 8, 3)
    given = x.split([first, *[8] * 6])
    network = nn.Sequential(nn.BatchNorm1d(3))
    [alone], [facts] = (examined(network, batches).moments for batches in (given[1:], given))
    assert [point.batches for point in facts.noise] == [6, 12, 24, 48]
    assert facts.noise[0].mean == pytest.approx(alone.noise[0].mean, **CLOSE)


class _OnTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(x) + self.norm(3 * x + 20)


def test_the_values_of_another_call_are_no_noise():
    """What lies between two calls would make a mean of any number of samples as noisy as one of one."""
    given = draw(48, 3, 4).split(8)
    [facts], [once] = (examined(net, given).moments for net in (_OnTwo(), nn.Sequential(nn.BatchNorm1d(3))))
    assert [point.batches for point in facts.noise] == [12, 24, 48, 96]
    for both, one in zip(facts.noise, once.noise, strict=True):
        assert both.mean == pytest.approx(one.mean, **CLOSE)
        assert both.variance == pytest.approx(one.variance, **CLOSE)
    assert facts.corrected == pytest.approx(once.corrected, **CLOSE)


def test_noise_is_told_beside_the_elements_that_make_it():
    """Of a rank's own parts, where all ranks together make a moment."""
    x = draw(8, 3, 5)
    tallies = []
    for norm, ranks in ((nn.SyncBatchNorm(3).double(), 2), (nn.BatchNorm1d(3).double(), 1)):
        sight = sight_of_module("norm", norm, x)
        tally = Tally(sight, ranks)
        tally.add(sight, None, 0)
        tallies.append(tally)
    assert [tally.elements for tally in tallies] == [80, 40]
    shared, alone = (tally.noise() for tally in tallies)
    assert shared == alone
    errors, own = (tally.standard_errors(tally.estimate())[0] for tally in tallies)
    assert torch.equal(errors, own)

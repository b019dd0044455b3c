"""The noise of moments, where it is known: independent elements, alike elements, constant channels."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

import normwright.nn
from normwright.lab.batch_size.noise import batch_norms, lone_element, moment_noise

CHANNELS, BATCHES = 64, 32

# The noise is the root of a mean over channels of chi-square variables, each over BATCHES − 1 degrees: its
# relative deviation is 1/√(2·CHANNELS·(BATCHES − 1)) = 1.6 %. Five of them, and a per cent because the
# population's variance is itself an estimate from at least BATCHES·4·CHANNELS elements.
WITHIN = 5 / math.sqrt(2 * CHANNELS * (BATCHES - 1)) + 0.01


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def passes(network, make):
    return [partial(network, make(seed)) for seed in range(BATCHES)]


@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize(
    ("norm", "shape"), [(nn.BatchNorm1d, (16, CHANNELS)), (nn.BatchNorm2d, (8, CHANNELS, 3, 3))]
)
def test_independent_elements_have_the_expected_noise(norm, shape, mean):
    network = nn.Sequential(norm(CHANNELS))
    noise = moment_noise(network, passes(network, lambda seed: mean + normal(*shape, seed=seed)))
    (layer,) = noise.layers
    elements = math.prod(shape) // CHANNELS
    assert (layer.name, layer.elements, noise.batches) == ("0", elements, BATCHES)
    assert layer.mean_expected == pytest.approx(1 / math.sqrt(elements))
    assert layer.mean == pytest.approx(layer.mean_expected, rel=WITHIN)
    # The biased variance of m normal elements has a deviation of √(2(m − 1))/m population variances. Its own
    # estimate is noisier, for the fourth moment of chi-square: at most √(1 + 6/m) times.
    biased = math.sqrt(2 * (elements - 1)) / elements
    assert layer.variance == pytest.approx(biased, rel=WITHIN * math.sqrt(1 + 6 / elements))


def test_elements_of_a_sample_that_are_alike_count_as_one():
    network = nn.Sequential(nn.BatchNorm2d(CHANNELS))
    noise = moment_noise(
        network, passes(network, lambda seed: normal(16, CHANNELS, 1, 1, seed=seed).expand(-1, -1, 3, 3))
    )
    assert noise.layers[0].elements == 144
    assert noise.layers[0].mean == pytest.approx(1 / math.sqrt(16), rel=WITHIN)


def test_scale_and_shift_do_not_matter_and_constant_channels_do_not_count():
    network = nn.Sequential(nn.BatchNorm1d(3))

    def make(seed):
        x = normal(16, 3, seed=seed)
        return torch.stack([x[:, 0], 1e-6 * x[:, 0] - 1e-3, torch.full((16,), 7.0)], 1)

    alone = nn.Sequential(nn.BatchNorm1d(1))
    noise = moment_noise(network, passes(network, make)).layers[0]
    expected = moment_noise(alone, passes(alone, lambda seed: make(seed)[:, :1])).layers[0]
    # Float32 at a mean of 1e3 deviations: 2⁻²⁴·1e3 of a deviation.
    assert noise.mean == pytest.approx(expected.mean, rel=1e-3)


def test_only_constants_have_no_noise():
    network = nn.Sequential(nn.BatchNorm1d(3))
    noise = moment_noise(network, passes(network, lambda seed: torch.ones(4, 3)))
    assert (noise.mean_largest, noise.variance_largest) == (0.0, 0.0)


def test_a_normaliser_that_is_called_twice_is_as_noisy_as_its_noisiest_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(CHANNELS)

        def forward(self, x):
            return self.norm(x), self.norm(x[:4])

    network = Twice()
    layer = moment_noise(network, passes(network, lambda seed: normal(16, CHANNELS, seed=seed))).layers[0]
    assert layer.elements == 4
    assert layer.mean == pytest.approx(0.5, rel=WITHIN)


def test_which_normalisers_take_moments_of_the_batch():
    network = nn.ModuleDict(
        {
            "batch": nn.BatchNorm1d(4),
            "ours": normwright.nn.BatchNorm1d(4),
            "renorm": normwright.nn.BatchRenorm1d(4),
            "always": nn.BatchNorm1d(4, track_running_stats=False).eval(),
            "inference": nn.BatchNorm1d(4).eval(),
            "frozen": normwright.nn.FrozenBatchNorm1d(4),
            "instance": nn.InstanceNorm1d(4),
            "layer": nn.LayerNorm(4),
            "group": nn.GroupNorm(2, 4),
        }
    )
    assert list(batch_norms(network)) == ["batch", "ours", "renorm", "always"]
    assert moment_noise(nn.Sequential(nn.LayerNorm(4)), []) is None


def test_a_lone_element_is_named_before_the_normaliser_raises():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert lone_element(network, partial(network, torch.zeros(1, 4))) == "1"
    assert lone_element(network, partial(network, torch.zeros(2, 4))) is None
    assert lone_element(network.eval(), partial(network, torch.zeros(1, 4))) is None
    spatial = nn.Sequential(nn.BatchNorm2d(4))
    assert lone_element(spatial, partial(spatial, torch.zeros(1, 4, 2, 2))) is None
    assert not spatial[0]._forward_pre_hooks


@pytest.mark.parametrize("size", [16, 64])
def test_moments_of_ghost_norm_are_those_of_its_virtual_batches(size):
    network = nn.Sequential(normwright.nn.GhostBatchNorm1d(CHANNELS, ghost_size=8))
    noise = moment_noise(network, passes(network, lambda seed: normal(size, CHANNELS, seed=seed)))
    assert noise.layers[0].elements == 8
    assert noise.layers[0].mean == pytest.approx(1 / math.sqrt(8), rel=WITHIN)

"""The running statistics are PyTorch's, to the bit, where the batch's moments are exact."""

import numpy as np
import pytest
import torch
from tolerances import (
    KERNELS_ARE_TRITONS,
    RUNNING,
    RUNNING_FROM_FLOAT32_RSTD,
    RUNNING_FROM_RSTD,
    assert_within,
)

import normwright.nn
from normwright.functional import batch_norm, instance_norm
from normwright.reference import batch_norm as reference_batch_norm
from normwright.reference import instance_norm as reference_instance_norm

MOMENTA = [0.1, 0.3, 1.0, 0.0]


def dyadic(shape, seed):
    """Deviations of a few eighths, each with its opposite, around a mean of a few quarters per channel.

    Mean, deviations, squares and their sum are exact in float32, in whatever order they are added.
    """
    draw = torch.Generator().manual_seed(seed)
    axis = 0 if len(shape) == 2 else -1
    half = torch.randint(-32, 32, shape, generator=draw).narrow(axis, 0, shape[axis] // 2)
    mean = torch.randint(-8, 8, (shape[1], *[1] * (len(shape) - 2)), generator=draw)
    return torch.cat([half, -half], axis) / 8 + mean / 4


def running(channels, dtype=torch.float32):
    return torch.linspace(-1, 1, channels).to(dtype), torch.linspace(0.3, 2, channels).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("shape", [(16, 3), (8, 3, 4), (4, 3, 4, 8), (2, 3, 2, 4, 4)])
def test_of_batch_norm_on_dyadic_fractions(shape, momentum, dtype):
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    ours, theirs = running(3, kept), running(3, kept)
    for step in range(5):
        x = dyadic(shape, step).to(dtype)
        batch_norm(x, *ours, training=True, momentum=momentum)
        torch.nn.functional.batch_norm(x, *theirs, training=True, momentum=momentum)
        assert all(map(torch.equal, ours, theirs))


def test_of_batch_norm_on_dyadic_fractions_in_channels_last():
    ours, theirs = running(3), running(3)
    x = dyadic((4, 3, 4, 8), 0).contiguous(memory_format=torch.channels_last)
    batch_norm(x, *ours, training=True)
    torch.nn.functional.batch_norm(x, *theirs, training=True)
    assert all(map(torch.equal, ours, theirs))


# In half types PyTorch's instance norm rounds the running statistics to the input's dtype; ours keeps them.
@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("space", [(4,), (4, 8), (2, 4, 4)])
def test_of_instance_norm_on_dyadic_fractions(space, samples, momentum):
    ours, theirs = running(3), running(3)
    for step in range(1, 6):
        x = dyadic((samples, 3, *space), step)
        instance_norm(x, *ours, momentum=momentum)
        torch.nn.functional.instance_norm(x, *theirs, momentum=momentum)
        for one, other in zip(ours, theirs, strict=True):
            bound = step * RUNNING_FROM_FLOAT32_RSTD * other.abs().max() if KERNELS_ARE_TRITONS else 0
            assert (one - other).abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_of_batch_norm_are_the_formula_on_the_reference_moments(dtype):
    x = (torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(0)) + 3).to(dtype)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    mean, variance = running(3, kept)
    before = mean.double().numpy().copy(), variance.double().numpy().copy()
    batch_norm(x, mean, variance, training=True)
    exact = reference_batch_norm(x.double().numpy())
    batch = exact.mean, exact.variance * (35 / 34)
    for after, old, new in zip((mean, variance), before, batch, strict=True):
        bound = RUNNING[kept] * (0.9 * np.abs(old) + 0.1 * np.abs(new))
        assert_within(after, 0.9 * old + 0.1 * new, bound, "running statistics")


def test_of_instance_norm_average_the_samples():
    x = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    mean, variance = running(3, torch.float64)
    before = mean.numpy().copy(), variance.numpy().copy()
    instance_norm(x, mean, variance)
    exact = reference_instance_norm(x.numpy())
    batch = exact.mean.mean(axis=0), exact.variance.mean(axis=0) * (7 / 6)
    for after, old, new in zip((mean, variance), before, batch, strict=True):
        bound = RUNNING_FROM_RSTD * (0.9 * np.abs(old) + 0.1 * np.abs(new))
        assert_within(after, 0.9 * old + 0.1 * new, bound, "running statistics")


def test_momentum_none_is_the_mean_over_all_batches():
    mean, variance, seen = *running(3), torch.tensor(0)
    batches = [dyadic((8, 3, 4), step) for step in range(4)]
    for x in batches:
        batch_norm(x, mean, variance, training=True, momentum=None, num_batches_tracked=seen)
    assert seen.item() == 4
    exact = [reference_batch_norm(x.double().numpy()) for x in batches]
    means, variances = ([getattr(moment, name) for moment in exact] for name in ("mean", "variance"))
    for after, moments in ((mean, means), (variance, [v * (32 / 31) for v in variances])):
        bound = 4 * RUNNING[torch.float32] * np.mean(np.abs(moments), axis=0)
        assert_within(after, np.mean(moments, axis=0), bound, "cumulative mean")


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_modules_with_a_cumulative_mean_are_pytorchs_to_the_bit(momentum):
    ours, theirs = normwright.nn.BatchNorm2d(3, momentum=momentum), torch.nn.BatchNorm2d(3, momentum=momentum)
    for step in range(7):
        x = dyadic((4, 3, 4, 8), step)
        ours(x), theirs(x)
        assert all(map(torch.equal, ours.buffers(), theirs.buffers()))


def test_inference_leaves_them_alone():
    mean, variance = running(3)
    before = mean.clone(), variance.clone()
    batch_norm(dyadic((8, 3, 4), 0), mean, variance)
    instance_norm(dyadic((8, 3, 4), 0), mean, variance, use_input_stats=False)
    assert torch.equal(mean, before[0])
    assert torch.equal(variance, before[1])


@pytest.mark.parametrize("function", [batch_norm, torch.nn.functional.batch_norm])
def test_an_empty_batch_leaves_them_alone(function):
    mean, variance = running(3)
    before = mean.clone(), variance.clone()
    function(torch.empty(0, 3, 4), mean, variance, training=True)
    assert torch.equal(mean, before[0])
    assert torch.equal(variance, before[1])

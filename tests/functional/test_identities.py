"""What one normaliser says of another, and what a shift and a scale of the input do."""

import pytest
import torch
from tolerances import AGREEMENT, KERNELS_ARE_TRITONS, ROUND_TRIP

from normwright.functional import batch_norm, group_norm, instance_norm, layer_norm, rms_norm


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def dyadic(*shape):
    return torch.randint(-64, 64, shape, generator=torch.Generator().manual_seed(5)).float() / 8


def same(one, other):
    """Equal to the bit; of two of Triton's kernels, which add up in another order each, within roundings."""
    if KERNELS_ARE_TRITONS:
        return (one - other).abs().max() <= AGREEMENT * other.abs().max()
    return torch.equal(one, other)


@pytest.mark.parametrize("given", [draw, dyadic])
@pytest.mark.parametrize("channels_last", [False, True])
def test_one_group_is_layer_norm_and_as_many_as_channels_is_instance_norm(given, channels_last):
    x = given(4, 8, 4, 2)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    assert same(group_norm(x, 1), layer_norm(x, (8, 4, 2)))
    assert same(group_norm(x, 8), instance_norm(x))


def test_a_batch_of_one_is_instance_norm():
    x = draw(1, 8, 4, 2)
    assert same(batch_norm(x, None, None, training=True), instance_norm(x))


def test_inference_with_the_batchs_own_moments_is_training():
    x = dyadic(4, 8, 4, 2)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    assert same(batch_norm(x, mean, variance), batch_norm(x, None, None, training=True))


def test_a_shift_changes_nothing():
    x = dyadic(4, 8, 4, 2)
    for normalise in (instance_norm, lambda x: group_norm(x, 2), lambda x: layer_norm(x, (8, 4, 2))):
        assert torch.equal(normalise(x + 1024), normalise(x))


def test_a_scale_by_a_power_of_two_with_eps_scaled_alike_changes_nothing():
    x = draw(4, 8)
    assert torch.equal(layer_norm(x * 4, (8,), eps=16 * 1e-5), layer_norm(x, (8,), eps=1e-5))
    assert torch.equal(rms_norm(x * 4, (8,), eps=16 * 1e-5), rms_norm(x, (8,), eps=1e-5))


def test_the_default_eps_of_rms_norm_is_the_machine_epsilon_of_the_arithmetic():
    for dtype, eps in ((torch.float64, 2.0**-52), (torch.float32, 2.0**-23), (torch.bfloat16, 2.0**-23)):
        x = (draw(4, 8) * eps**0.5).to(dtype)
        assert torch.equal(rms_norm(x, (8,)), rms_norm(x, (8,), eps=eps))


def test_weight_and_bias_give_back_the_input():
    x = draw(64, 8)
    deviation, mean = (x.var(0, unbiased=False) + 1e-5).sqrt(), x.mean(0)
    back = batch_norm(x, None, None, deviation, mean, training=True)
    assert (back - x).abs().max() <= ROUND_TRIP * (x.abs().max() + mean.abs().max())

"""Count, mean and M2 of each channel, as synchronised batch norm and recalibration take them."""

import numpy as np
import pytest
import torch
from tolerances import KERNELS_ARE_TRITONS, UNIT, depth

MOMENTS = torch.ops.normwright.channel_moments

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def draw(shape, layout, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    if layout == "channels-last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.to(dtype)


def summed(dtype, count):
    """The relative error of a sum of that many elements: fewer than 10⁴ in float64, below 10⁴·2⁻⁵³.

    Triton's kernels add in float32; what they add are deviations, no larger here than the mean.
    """
    return depth(count) * UNIT[torch.float32] if KERNELS_ARE_TRITONS and dtype != torch.float64 else 1e-12


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (2, 3, 64, 65), (40, 7), (2, 16, 3, 4, 5)], ids=str)
def test_of_every_layout_and_dtype(shape, layout, dtype):
    x = draw(shape, layout, dtype)
    count, mean, m2 = MOMENTS(x)
    values = x.double().numpy()
    axes = tuple(axis for axis in range(x.dim()) if axis != 1)
    expected = values.mean(axes)
    centred = values - np.expand_dims(expected, axes)
    assert count == x.numel() // x.shape[1]
    np.testing.assert_allclose(mean.numpy(), expected, rtol=summed(dtype, x.numel()))
    np.testing.assert_allclose(m2.numpy(), np.square(centred).sum(axes), rtol=summed(dtype, x.numel()))


def test_of_a_mean_a_million_times_the_deviation():
    x = draw((64, 3, 8, 8), "contiguous", torch.float64) + 1e6
    _, _, m2 = MOMENTS(x)
    centred = x.numpy() - x.numpy().mean((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(m2.numpy(), np.square(centred).sum((0, 2, 3)), rtol=1e-9)


def test_of_no_elements():
    count, mean, m2 = MOMENTS(torch.empty(0, 3, 2, 2))
    assert count == 0
    assert torch.equal(mean, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(m2, torch.zeros(3, dtype=torch.float64))


def test_of_no_channels():
    count, mean, m2 = MOMENTS(torch.empty(2, 0, 3))
    assert count == 6
    assert mean.shape == m2.shape == (0,)

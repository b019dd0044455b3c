"""Standardising: exact moments, mean 0 and deviation 1, constant channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from normwright.lab.data.standardise import pixel_moments, standardise


def test_moments_equal_numpys() -> None:
    pixels = torch.randint(
        0, 256, (50, 3, 7, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    values = pixels.numpy().astype(np.float64)
    for channel, (mean, deviation) in enumerate(pixel_moments(pixels)):
        # NumPy sums 1,750 values pairwise in float64: fewer than 16 roundings each way.
        assert mean == pytest.approx(values[:, channel].mean(), rel=16 * 2**-52)
        assert deviation == pytest.approx(values[:, channel].std(), rel=16 * 2**-52)


def test_moments_of_many_chunks_are_exact() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).repeat(5000).reshape(-1, 1, 1, 1)
    assert pixel_moments(pixels) == [(127.5, 127.5)]


def test_mean_zero_and_deviation_one() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(200, 256, (500, 2, 4, 4), dtype=torch.uint8, generator=generator)
    moments = pixel_moments(pixels)
    z = standardise(pixels, moments, 255).double()
    for channel, (mean, deviation) in enumerate(moments):
        # Float32 rounds the mean, the difference, the deviation and the quotient once each, so an element
        # is off by at most u·(mean/deviation + 3·|z|), u = 2⁻²⁴; so is the mean, and by the triangle
        # inequality the deviation. One per cent covers the products of roundings.
        off = 1.01 * 2**-24 * (mean / deviation + 3 * float(z[:, channel].abs().max()))
        assert abs(float(z[:, channel].mean())) <= off
        assert abs(float(z[:, channel].std(correction=0)) - 1) <= off


def test_constant_channel_is_only_shifted() -> None:
    train = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    moments = pixel_moments(train)
    assert standardise(train, moments, 255).eq(0).all()
    assert standardise(train + 51, moments, 255).eq(0.2).all()

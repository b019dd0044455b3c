"""Claim 25: what a shift costs and what comes back, and corruptions of standardised images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from normwright.lab.claims.shifted_data import CLEAN, drop, recovered, under
from normwright.lab.data.corruptions import CORRUPTIONS, corrupted
from normwright.lab.data.standardise import pixel_moments, standardise

SOURCE = {CLEAN: 90.0, "noise": 50.0, "blur": 70.0}


def test_the_drop_is_averaged_over_the_corruptions():
    assert drop(SOURCE) == 30.0


def test_the_share_that_comes_back():
    assert recovered(SOURCE, {CLEAN: 10.0, "noise": 80.0, "blur": 70.0}) == pytest.approx(0.5)
    assert recovered(SOURCE, SOURCE) == 0.0
    assert recovered(SOURCE, {CLEAN: 90.0, "noise": 40.0, "blur": 65.0}) == pytest.approx(-0.25)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_standardised_images_are_corrupted_as_their_pixels_are(name):
    pixels = torch.randint(256, (6, 1, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pixels[0, 0, 0, :2] = torch.tensor([0, 255])
    moments = pixel_moments(pixels)
    x = standardise(pixels, moments, 255)
    ((mean, deviation),) = moments
    expected = (255 * corrupted(name, pixels.float() / 255, seed=3) - mean) / deviation
    torch.testing.assert_close(
        under(name, x, SimpleNamespace(train_x=x), seed=3), expected, atol=1e-5, rtol=1e-5
    )

"""Each corruption does what it says, to each image by itself, and draws the same again."""

from __future__ import annotations

import pytest
import torch

from normwright.lab.data.corruptions import CORRUPTIONS, corrupted


def images():
    return torch.rand(3, 2, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_stay_images_and_change(name):
    before = images()
    after = corrupted(name, before)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    assert torch.equal(before, images())
    assert float(after.min()) >= 0
    assert float(after.max()) <= 1
    assert not torch.allclose(after, before)
    assert torch.equal(after, corrupted(name, before))


def test_noise_has_the_deviation_asked_for():
    grey = torch.full((64, 1, 32, 32), 0.5, dtype=torch.float64)
    drawn = CORRUPTIONS["noise"](grey, torch.Generator().manual_seed(0), deviation=0.05) - 0.5
    # 65,536 draws; a deviation of theirs is known to 1/√(2·65536) = 0.3 %, taken four times
    assert float(drawn.std()) == pytest.approx(0.05, rel=0.012)


def test_blur_keeps_the_sum_inside_and_spreads_a_point():
    point = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    point[0, 0, 10, 10] = 1
    spread = corrupted("blur", point)
    assert float(spread.sum()) == pytest.approx(1, rel=1e-12)
    torch.testing.assert_close(spread, spread.flip(2))
    torch.testing.assert_close(spread, spread.transpose(2, 3))
    assert float(spread.max()) < 0.1


def test_contrast_keeps_each_image_s_mean_and_shrinks_its_deviations():
    before = images()
    after = corrupted("contrast", before)
    torch.testing.assert_close(after.mean((1, 2, 3)), before.mean((1, 2, 3)))
    torch.testing.assert_close(after.std((1, 2, 3)), 0.3 * before.std((1, 2, 3)))


def test_rotation_by_a_right_angle_is_exact():
    turned = CORRUPTIONS["rotation"](images(), torch.Generator(), degrees=90.0)
    torch.testing.assert_close(turned, images().rot90(1, (2, 3)))

"""Pixels to float32 of mean 0 and deviation 1, by the moments of the training split."""

from __future__ import annotations

import numpy as np
import torch


def pixel_moments(pixels: torch.Tensor) -> list[tuple[float, float]]:
    """Mean and biased standard deviation of each channel.

    The values are counted, and the counts are whole numbers: the moments are exact up to one rounding
    each, whatever the number of threads.

    Args:
        pixels: (N, C, H, W), uint8.
    Returns:
        C pairs (mean, deviation), in units of the pixel.
    Example:
        >>> pixel_moments(torch.tensor([1, 3], dtype=torch.uint8).reshape(2, 1, 1, 1))
        [(2.0, 1.0)]
    """
    return [_counted_moments(pixels[:, channel]) for channel in range(pixels.shape[1])]


def _counted_moments(values: torch.Tensor) -> tuple[float, float]:
    # In pieces, because bincount widens its input to int64.
    counts = np.zeros(256, dtype=np.int64)
    for chunk in torch.split(values, 4096):
        counts += np.bincount(chunk.numpy().reshape(-1), minlength=256)
    levels = np.arange(256, dtype=np.int64)
    total, first, second = (int((counts * levels**power).sum()) for power in (0, 1, 2))
    # Integers, so that nothing cancels: total²·variance.
    scaled_variance = total * second - first * first
    return first / total, (scaled_variance / total**2) ** 0.5


def standardise(pixels: torch.Tensor, moments: list[tuple[float, float]], top: int) -> torch.Tensor:
    """(pixel − mean) / deviation by channel; a constant channel is only shifted, in units of `top`.

    Args:
        pixels: (N, C, H, W), uint8.
        moments: C pairs (mean, deviation), of the training split.
        top: the greatest value that a pixel can have.
    Returns:
        (N, C, H, W), float32.
    """
    result = pixels.to(torch.float32)
    for channel, (mean, deviation) in enumerate(moments):
        result[:, channel].sub_(mean).div_(deviation or top)
    return result

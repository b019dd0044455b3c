"""Images as a worse camera would have taken them: shifts between training and test data, made in code.

References:
    Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
    perturbations", arXiv:1903.12261, whose kinds these are; the strengths are chosen for 28 × 28 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def noise(images: Tensor, generator: torch.Generator, deviation: float = 0.25) -> Tensor:
    """Adds Gaussian noise to each pixel.

    Args:
        images: (N, C, H, W), from 0 to 1.
        generator: on the CPU.
        deviation: of the noise, in the unit of the pixels.
    """
    drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype, device="cpu")
    return (images + deviation * drawn.to(images.device)).clamp(0, 1)


def blur(images: Tensor, generator: torch.Generator, radius: float = 1.5) -> Tensor:
    """Convolves with a Gaussian of deviation `radius`, in pixels; the border is mirrored."""
    reach = math.ceil(2 * radius)
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / radius).square())
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, [reach] * 4, mode="reflect")
    across = F.conv2d(padded, kernel.unsqueeze(2), groups=images.shape[1])
    return F.conv2d(across, kernel.unsqueeze(3), groups=images.shape[1])


def contrast(images: Tensor, generator: torch.Generator, factor: float = 0.3) -> Tensor:
    """Draws the pixels of each image towards their mean, by the factor."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + factor * (images - mean)


def brightness(images: Tensor, generator: torch.Generator, shift: float = 0.4) -> Tensor:
    """Adds the shift to every pixel; what passes 1 is cut."""
    return (images + shift).clamp(0, 1)


def rotation(images: Tensor, generator: torch.Generator, degrees: float = 25.0) -> Tensor:
    """Turns each image about its middle; the corners become black."""
    angle = math.radians(degrees)
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]],
        dtype=images.dtype,
        device=images.device,
    )
    grid = F.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


CORRUPTIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
    "rotation": rotation,
}
"""By name; each with its usual strength."""


def corrupted(name: str, images: Tensor, *, seed: int = 0) -> Tensor:
    """The images under a corruption, the same ones for the same seed.

    Args:
        name: one of CORRUPTIONS.
        images: (N, C, H, W), from 0 to 1.
    Example:
        >>> corrupted("brightness", torch.zeros(1, 1, 2, 2)).unique()
        tensor([0.4000])
    """
    return CORRUPTIONS[name](images, torch.Generator().manual_seed(seed))

"""Layers of every kind that an affine map folds into, and their float64 answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from tolerances import UNIT, depth, rounded
from torch import Tensor, nn
from torch.nn import functional as F

from normwright.network.folding.affine import Affine

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Kind(NamedTuple):
    """A layer: its axes of space (0 is linear), groups, and channels in and out."""

    space: int
    transposed: bool
    groups: int
    into: int
    out: int

    def __str__(self) -> str:
        name = (
            f"{'transposed' if self.transposed else 'convolution'}{self.space}d" if self.space else "linear"
        )
        return f"{name}-{self.into}to{self.out}-groups{self.groups}"


# groups 1; grouped with unequal in and out; depthwise; depthwise with a multiplier
GROUPED = ((1, 3, 5), (2, 4, 6), (4, 4, 4), (3, 3, 6))
KINDS = (
    Kind(0, False, 1, 4, 6),
    *(
        Kind(space, transposed, *sizes)
        for space in (1, 2, 3)
        for transposed in (False, True)
        for sizes in GROUPED
    ),
)
KERNEL, SPACE = (2, 3, 1), (4, 5, 3)


class Layer:
    """Random weight, bias and input of a kind; weight and bias in a dtype, the input in float64."""

    def __init__(self, kind: Kind, dtype: torch.dtype, *, bias: bool = True, seed: int = 0) -> None:
        self.kind, self.dtype = kind, dtype
        self.draw = torch.Generator().manual_seed(seed)
        first, second = (kind.into, kind.out) if kind.transposed else (kind.out, kind.into)
        self.weight = self.random(first, second // kind.groups, *KERNEL[: kind.space]).to(dtype)
        self.bias = self.random(kind.out).to(dtype) if bias else None
        self.x = self.random(2, kind.into, *SPACE[: kind.space])

    def random(self, *shape: int) -> Tensor:
        """Float64 in [-2, 2)."""
        return 4 * torch.rand(shape, generator=self.draw, dtype=torch.float64) - 2

    def affine(self, channels: int) -> Affine:
        """A map with scales of both signs, none small."""
        scale = self.random(channels)
        return Affine(scale + scale.sign() / 4, self.random(channels))

    @property
    def options(self) -> dict:
        """What the folds ask for."""
        return {"groups": self.kind.groups, "transposed": self.kind.transposed}

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer in float64, with stride 1 and no padding."""
        weight, bias = weight.double(), None if bias is None else bias.double()
        if not self.kind.space:
            return F.linear(x, weight, bias)
        function = (TRANSPOSED if self.kind.transposed else CONVOLUTIONS)[self.kind.space]
        return function(x, weight, bias, groups=self.kind.groups)

    def bound(self, x: Tensor, weight: Tensor, bias: Tensor, size: Tensor) -> np.ndarray:
        """The error of an output whose weight and bias are rounded to the dtype, of exact ones given.

        Each of weight and bias carries its rounding to the dtype. In float64 they carry some 6 more, of the
        products that they are; so does the affine map of the expected output, and a sum of n products n + 1.
        `size` is the bias with every term of it taken absolutely: it may be a sum over the kernel.
        """
        terms = self.weight.numel() // self.weight.shape[1 if self.kind.transposed else 0] + 1
        wide = (2 * depth(terms) + 12) * UNIT[torch.float64]
        sizes = self.run(x.abs(), weight.abs(), size).numpy()
        parts = [torch.from_numpy(rounded(part.numpy(), self.dtype)) for part in (weight, bias)]
        return self.run(x.abs(), *parts).numpy() + wide * sizes


def mapped(x: Tensor, affine: Affine) -> Tensor:
    """scale·x + shift along axis 1."""
    along = (-1, *[1] * (x.dim() - 2))
    return affine.scale.view(along) * x + affine.shift.view(along)


def spread(layer: nn.Module) -> nn.Module:
    """Draws every parameter of a layer."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw, dtype=torch.float64) * 2 - 1)
    return layer

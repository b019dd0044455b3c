"""Affine maps of the channels: what a normaliser of fixed statistics is.

Arithmetic is in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from normwright.errors import DtypeError, OptionError, ShapeError


class NotAffineError(Exception):
    """Why something is no affine map of the channels."""


def check_fixed(*statistics: object, training: object) -> None:
    """A normaliser that keeps these statistics, and is in this mode, goes by them."""
    if any(value is None for value in statistics):  # in either mode: eval() would not help
        raise NotAffineError("it keeps no running statistics, and takes those of its input")
    if training:
        raise NotAffineError(
            "it is in training mode, and takes the statistics of its input: call eval() first"
        )


@dataclass(frozen=True, eq=False)
class Affine:
    """y = scale·x + shift, channel by channel.

    Args:
        scale: (C,), float64.
        shift: (C,), float64.
    Raises:
        ShapeError: scale and shift are not both (C,).
        DtypeError: one is not float64.
    Example:
        >>> doubled = Affine(torch.tensor([2.0]).double(), torch.tensor([1.0]).double())
        >>> doubled.then(doubled)  # 2·(2x + 1) + 1
        Affine(scale=tensor([4.], dtype=torch.float64), shift=tensor([3.], dtype=torch.float64))
    """

    scale: Tensor
    shift: Tensor

    def __post_init__(self) -> None:
        if self.scale.dim() != 1 or self.scale.shape != self.shift.shape:
            raise ShapeError(
                f"scale and shift must both be (C,), but have the shapes {list(self.scale.shape)} and "
                f"{list(self.shift.shape)}"
            )
        for name, value in (("scale", self.scale), ("shift", self.shift)):
            if value.dtype != torch.float64:
                raise DtypeError(f"{name} must be float64, but is {value.dtype}: convert it first")

    @classmethod
    def identity(cls, channels: int) -> Affine:
        """y = x."""
        return cls(torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64))

    @property
    def channels(self) -> int:
        """C."""
        return self.scale.shape[0]

    @property
    def transposed(self) -> Affine:
        """Itself: a diagonal matrix is its own transpose."""
        return self

    def without_shift(self) -> Affine:
        """scale·x."""
        return Affine(self.scale, torch.zeros_like(self.shift))

    def times(self, rows: Tensor) -> Tensor:
        """scale times something that has its channels along the first axis, (C, …)."""
        return self.scale.to(rows.device).view(-1, *[1] * (rows.dim() - 1)) * rows

    def split(self, sizes: Sequence[int]) -> list[Affine]:
        """The maps of parts of so many channels."""
        return list(map(Affine, self.scale.split(list(sizes)), self.shift.split(list(sizes))))

    def check_finite(self) -> None:
        """Raises OptionError for the first channel that is not."""
        beyond = ~(self.scale.isfinite() & self.shift.isfinite())
        if beyond.any():
            channel = int(beyond.nonzero()[0])
            raise OptionError(
                f"scale and shift must be finite, but in channel {channel} are {float(self.scale[channel])} "
                f"and {float(self.shift[channel])}: look for NaN in the statistics, weight and bias"
            )

    def then(self, following: Affine) -> Affine:
        """This map first, and then the following one, as one map."""
        if following.channels != self.channels:
            raise ShapeError(
                f"maps that follow each other must have as many channels, but have {self.channels} and "
                f"{following.channels}"
            )
        scale, shift = (_like(self.scale, part) for part in (following.scale, following.shift))
        return Affine(scale * self.scale, scale * self.shift + shift)


def affine_of(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Affine:
    """The affine map that a normaliser of fixed moments is.

        y = (x - mean)/√(variance + eps)·weight + bias

    Args:
        mean: (C,), floating point.
        variance: (C,).
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        eps: added to the variance; same unit as it.
    Returns:
        scale = weight/√(variance + eps) and shift = bias - mean·scale.
    Raises:
        ShapeError: a vector that is not (C,).
        OptionError: variance + eps is not above zero, or something is not finite; the channel is named.
    Example:
        >>> affine_of(torch.tensor([1.0]), torch.tensor([4.0]), None, None, 0.0)
        Affine(scale=tensor([0.5000], dtype=torch.float64), shift=tensor([-0.5000], dtype=torch.float64))
    """
    vectors = {"mean": mean, "variance": variance, "weight": weight, "bias": bias}
    for name, vector in vectors.items():
        if vector is not None and (vector.dim() != 1 or vector.shape != mean.shape):
            raise ShapeError(
                f"{name} must be one number a channel, as the mean has {mean.numel()}, but has the shape "
                f"{list(vector.shape)}"
            )
    wide_mean, wide_variance = wide(mean), wide(variance)
    beyond = ~(wide_variance + eps > 0)
    if beyond.any():
        channel = int(beyond.nonzero()[0])
        raise OptionError(
            f"variance + eps must be above 0 in every channel, but is {float(variance[channel]) + eps} in "
            f"channel {channel}: recalibrate the statistics, or take a larger eps"
        )
    scale = (wide_variance + eps).rsqrt()
    if weight is not None:
        scale = scale * wide(weight)
    shift = -wide_mean * scale
    affine = Affine(scale, shift if bias is None else shift + wide(bias))
    affine.check_finite()
    return affine


def wide(value: Tensor) -> Tensor:
    """In float64, on the CPU where the device has none."""
    value = value.detach()
    return (value.cpu() if value.device.type == "mps" else value).to(torch.float64)


def _like(value: Tensor, part: Tensor) -> Tensor:
    """A vector of an affine map, on the device where it is needed."""
    return part.detach().to(value.device)

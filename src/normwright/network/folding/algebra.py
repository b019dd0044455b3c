"""Folds an affine map of the channels into the weight and bias of a layer beside it: tensors in, tensors out.

A layer here is a linear one (out, in), a convolution (out, in/groups, *kernel) or a transposed convolution
(in, out/groups, *kernel). A linear layer is a convolution whose kernel has no axes, and one formula over
(groups, out/groups, in/groups, *kernel) serves all three.

Arithmetic is in float64, and each result is rounded once, to its dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from normwright.errors import DtypeError, OptionError, ShapeError


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
    wide_mean, wide_variance = _wide(mean), _wide(variance)
    beyond = ~(wide_variance + eps > 0)
    if beyond.any():
        channel = int(beyond.nonzero()[0])
        raise OptionError(
            f"variance + eps must be above 0 in every channel, but is {float(variance[channel]) + eps} in "
            f"channel {channel}: recalibrate the statistics, or take a larger eps"
        )
    scale = (wide_variance + eps).rsqrt()
    if weight is not None:
        scale = scale * _wide(weight)
    shift = -wide_mean * scale
    affine = Affine(scale, shift if bias is None else shift + _wide(bias))
    _check_finite(affine)
    return affine


def fold_after(
    weight: Tensor, bias: Tensor | None, affine: Affine, *, groups: int = 1, transposed: bool = False
) -> tuple[Tensor, Tensor]:
    """The weight and bias of a layer that does what the layer and the affine map after it do.

        scale·(W x + b) + shift = (scale·W) x + (scale·b + shift)

    Exact for every stride, padding, dilation and padding mode.

    Args:
        weight: (out, in/groups, *kernel), or (in, out/groups, *kernel) where transposed; floating point.
        bias: (out,), or None for 0.
        affine: of out channels.
        groups: of the convolution.
        transposed: the layer is a transposed convolution.
    Returns:
        weight' in weight's shape, dtype, device and memory format; bias' (out,) in bias's dtype, or weight's.
    Raises:
        ShapeError: weight, bias, groups and affine do not go together.
        DtypeError: weight or bias is not floating point.
        OptionError: what results is beyond the dtype's range, or affine is not finite.
    Example:
        >>> affine = Affine(torch.tensor([2.0, 0.5]).double(), torch.tensor([0.0, 1.0]).double())
        >>> fold_after(torch.ones(2, 3), None, affine)[0]
        tensor([[2.0000, 2.0000, 2.0000],
                [0.5000, 0.5000, 0.5000]])
    """
    out, _ = _channels(weight, bias, groups, transposed)
    _check_affine(affine, out, "after", "out")
    scale, shift = (_like(_wide(weight), part) for part in (affine.scale, affine.shift))
    grouped = _grouped(_wide(weight), groups, transposed)
    scaled = grouped * scale.view(groups, -1, *[1] * (grouped.dim() - 2))
    new_bias = shift if bias is None else _wide(bias) * scale + shift
    return _results(weight, bias, scaled, new_bias, groups, transposed)


def fold_before(
    weight: Tensor, bias: Tensor | None, affine: Affine, *, groups: int = 1, transposed: bool = False
) -> tuple[Tensor, Tensor]:
    """The weight and bias of a layer that does what the affine map before it and the layer do.

        W (scale·x + shift) + b = (W·scale) x + (W shift + b)

    Exact where every output meets the whole kernel, or the shift is 0: `border.meets_whole_kernel` tells.
    A zero-padded convolution meets less at its border, where `border.shift_of` makes it exact.

    Args:
        weight: (out, in/groups, *kernel), or (in, out/groups, *kernel) where transposed; floating point.
        bias: (out,), or None for 0.
        affine: of in channels.
        groups: of the convolution.
        transposed: the layer is a transposed convolution.
    Returns:
        weight' in weight's shape, dtype, device and memory format; bias' (out,) in bias's dtype, or weight's.
    Raises:
        ShapeError: weight, bias, groups and affine do not go together.
        DtypeError: weight or bias is not floating point.
        OptionError: what results is beyond the dtype's range, or affine is not finite.
    Example:
        >>> affine = Affine(torch.tensor([2.0, 0.5]).double(), torch.tensor([0.0, 1.0]).double())
        >>> fold_before(torch.ones(1, 2), None, affine)
        (tensor([[2.0000, 0.5000]]), tensor([1.]))
    """
    _, into = _channels(weight, bias, groups, transposed)
    _check_affine(affine, into, "before", "in")
    grouped = _grouped(_wide(weight), groups, transposed)
    along = (groups, 1, -1, *[1] * (grouped.dim() - 3))
    scale, shift = (_like(grouped, part).view(along) for part in (affine.scale, affine.shift))
    new_bias = (grouped * shift).flatten(2).sum(2).flatten()
    if bias is not None:
        new_bias = new_bias + _wide(bias)
    return _results(weight, bias, grouped * scale, new_bias, groups, transposed)


def _channels(weight: Tensor, bias: Tensor | None, groups: int, transposed: bool) -> tuple[int, int]:
    """How many go out and come in, where everything goes together."""
    if weight.dim() < 2:
        raise ShapeError(
            f"a weight must have an axis out and an axis in, but has the shape {list(weight.shape)}"
        )
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and not value.is_floating_point():
            raise DtypeError(f"{name} must be floating point to be folded into, but is {value.dtype}")
    first, second = weight.shape[0], weight.shape[1] * groups
    out, into = (second, first) if transposed else (first, second)
    if groups < 1 or first % groups:
        axis = "in" if transposed else "out"
        raise ShapeError(f"groups must divide the {first} channels {axis} of the weight, but is {groups}")
    if bias is not None and bias.shape != (out,):
        raise ShapeError(
            f"bias must be one number for each of {out} channels out, but has {list(bias.shape)}"
        )
    return out, into


def _check_affine(affine: Affine, channels: int, place: str, axis: str) -> None:
    if affine.channels != channels:
        raise ShapeError(
            f"an affine map {place} a layer must have as many channels as go {axis}, {channels}, but has "
            f"{affine.channels}"
        )
    _check_finite(affine)


def _check_finite(affine: Affine) -> None:
    beyond = ~(affine.scale.isfinite() & affine.shift.isfinite())
    if beyond.any():
        channel = int(beyond.nonzero()[0])
        raise OptionError(
            f"scale and shift must be finite, but in channel {channel} are {float(affine.scale[channel])} "
            f"and {float(affine.shift[channel])}: look for NaN in the statistics, weight and bias"
        )


def _grouped(weight: Tensor, groups: int, transposed: bool) -> Tensor:
    """(groups, out/groups, in/groups, *kernel)."""
    grouped = weight.view(groups, weight.shape[0] // groups, *weight.shape[1:])
    return grouped.transpose(1, 2) if transposed else grouped


def _results(
    weight: Tensor, bias: Tensor | None, grouped: Tensor, new_bias: Tensor, groups: int, transposed: bool
) -> tuple[Tensor, Tensor]:
    """Back in the layer's own shape, rounded once."""
    widened = (grouped.transpose(1, 2) if transposed else grouped).reshape(weight.shape)
    # in the strides of the old: a channels-last weight stays one
    new_weight = torch.empty_like(weight, requires_grad=False).copy_(widened)
    rounded_bias = new_bias.to(weight.device, weight.dtype if bias is None else bias.dtype)
    before = {"weight": weight.detach(), "bias": None if bias is None else bias.detach()}
    for name, value in (("weight", new_weight), ("bias", rounded_bias)):
        old = before[name]
        # a network that holds NaN already is not made worse
        if not value.isfinite().all() and (old is None or old.isfinite().all()):
            raise OptionError(
                f"the folded {name} must fit in {value.dtype}, but is beyond its range: convert the layer to "
                "a wider dtype first"
            )
    return new_weight, rounded_bias


def _wide(value: Tensor) -> Tensor:
    """In float64, on the CPU where the device has none."""
    value = value.detach()
    return (value.cpu() if value.device.type == "mps" else value).to(torch.float64)


def _like(value: Tensor, part: Tensor) -> Tensor:
    """A vector of an affine map, on the device where it is needed."""
    return part.detach().to(value.device)

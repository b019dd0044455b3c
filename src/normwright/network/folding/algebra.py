"""Folds an affine map of the channels into the weight and bias of a layer beside it: tensors in, tensors out.

A layer here is a linear one (out, in), a convolution (out, in/groups, *kernel) or a transposed convolution
(in, out/groups, *kernel). A linear layer is a convolution whose kernel has no axes, and one formula over
(groups, out/groups, in/groups, *kernel) serves all three.

Arithmetic is in float64, and each result is rounded once, to its dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.network.folding.affine import wide
from normwright.network.folding.block_affine import BlockAffine, ChannelMap


def fold_after(
    weight: Tensor, bias: Tensor | None, affine: ChannelMap, *, groups: int = 1, transposed: bool = False
) -> tuple[Tensor, Tensor]:
    """The weight and bias of a layer that does what the layer and the affine map after it do.

        scale·(W x + b) + shift = (scale·W) x + (scale·b + shift)

    A scale may be a matrix for each group of channels, each within a group of the layer's. Exact for every
    stride, padding, dilation and padding mode.

    Args:
        weight: (out, in/groups, *kernel), or (in, out/groups, *kernel) where transposed; floating point.
        bias: (out,), or None for 0.
        affine: of out channels.
        groups: of the convolution.
        transposed: the layer is a transposed convolution.
    Returns:
        weight' in weight's shape, dtype, device and memory format; bias' (out,) in bias's dtype, or weight's.
    Raises:
        ShapeError: weight, bias, groups and affine do not go together, or affine mixes channels that the
            layer's groups keep apart.
        DtypeError: weight or bias is not floating point.
        OptionError: what results is beyond the dtype's range, or affine is not finite.
    Example:
        >>> from normwright.network.folding.affine import Affine
        >>> affine = Affine(torch.tensor([2.0, 0.5]).double(), torch.tensor([0.0, 1.0]).double())
        >>> fold_after(torch.ones(2, 3), None, affine)[0]
        tensor([[2.0000, 2.0000, 2.0000],
                [0.5000, 0.5000, 0.5000]])
    """
    out, _ = _channels(weight, bias, groups, transposed)
    _check_affine(affine, out, "after", "out")
    _check_groups(affine, out, groups, "out")
    grouped = _grouped(wide(weight), groups, transposed)
    scaled = affine.times(grouped.flatten(0, 1)).reshape(grouped.shape)
    shift = affine.shift.to(grouped.device)
    new_bias = shift if bias is None else affine.times(wide(bias)) + shift
    return _results(weight, bias, scaled, new_bias, transposed)


def fold_before(
    weight: Tensor, bias: Tensor | None, affine: ChannelMap, *, groups: int = 1, transposed: bool = False
) -> tuple[Tensor, Tensor]:
    """The weight and bias of a layer that does what the affine map before it and the layer do.

        W (scale·x + shift) + b = (W·scale) x + (W shift + b)

    Exact where every output meets the whole kernel (`layers.Layer.sums_whole_kernel`), or the shift is 0.
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
        ShapeError: weight, bias, groups and affine do not go together, or affine mixes channels that the
            layer's groups keep apart.
        DtypeError: weight or bias is not floating point.
        OptionError: what results is beyond the dtype's range, or affine is not finite.
    Example:
        >>> from normwright.network.folding.affine import Affine
        >>> affine = Affine(torch.tensor([2.0, 0.5]).double(), torch.tensor([0.0, 1.0]).double())
        >>> fold_before(torch.ones(1, 2), None, affine)
        (tensor([[2.0000, 0.5000]]), tensor([1.]))
    """
    _, into = _channels(weight, bias, groups, transposed)
    _check_affine(affine, into, "before", "in")
    _check_groups(affine, into, groups, "in")
    grouped = _grouped(wide(weight), groups, transposed)
    shift = affine.shift.to(grouped.device).view(groups, 1, -1, *[1] * (grouped.dim() - 3))
    new_bias = (grouped * shift).flatten(2).sum(2).flatten()
    if bias is not None:
        new_bias = new_bias + wide(bias)
    by_input = grouped.transpose(1, 2)  # W·M = (Mᵀ·Wᵀ)ᵀ
    scaled = affine.transposed.times(by_input.flatten(0, 1)).reshape(by_input.shape)
    return _results(weight, bias, scaled.transpose(1, 2), new_bias, transposed)


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


def _check_affine(affine: ChannelMap, channels: int, place: str, axis: str) -> None:
    if affine.channels != channels:
        raise ShapeError(
            f"an affine map {place} a layer must have as many channels as go {axis}, {channels}, but has "
            f"{affine.channels}"
        )
    affine.check_finite()


def _check_groups(affine: ChannelMap, channels: int, groups: int, axis: str) -> None:
    if isinstance(affine, BlockAffine) and channels // groups % affine.size:
        raise ShapeError(
            f"a map that mixes groups of {affine.size} channels must have whole ones in the "
            f"{channels // groups} channels {axis} of each of the layer's groups"
        )


def _grouped(weight: Tensor, groups: int, transposed: bool) -> Tensor:
    """(groups, out/groups, in/groups, *kernel)."""
    grouped = weight.view(groups, weight.shape[0] // groups, *weight.shape[1:])
    return grouped.transpose(1, 2) if transposed else grouped


def _results(
    weight: Tensor, bias: Tensor | None, grouped: Tensor, new_bias: Tensor, transposed: bool
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

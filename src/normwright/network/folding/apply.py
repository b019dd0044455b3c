"""Carries a plan out on a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from normwright.errors import FoldError
from normwright.network.folding.affine import Affine
from normwright.network.folding.algebra import fold_after, fold_before
from normwright.network.folding.block_affine import ChannelMap
from normwright.network.folding.border import shift_of
from normwright.network.folding.channel_affine import ChannelAffine
from normwright.network.folding.channel_mixing import ChannelMixing
from normwright.network.folding.decision import Decision, LayerChange
from normwright.network.folding.shifted_convolution import shift_by
from normwright.network.walk import replace_module
from normwright.network.writing import write


def apply(network: nn.Module, changes: Iterable[LayerChange], decisions: Iterable[Decision]) -> None:
    """Changes the layers and takes the normalisers out, in place. See `undo.all_or_nothing`.

    Raises:
        FoldError: a folded weight or bias does not fit its dtype.
    """
    folded = [(change, *_folded(network, change)) for change in changes]
    for change, weight, bias, shift in folded:
        _set(network, change, weight, bias, shift)
    for decision in decisions:
        name = decision.sites[0].module
        if name is None or not decision.place:
            continue
        old = network.get_submodule(name)
        new: nn.Module = nn.Identity()
        if decision.place in ("multiply-add", "convolution"):
            new = _standing_for(decision.map, next(iter([*old.parameters(), *old.buffers()])))
            new.requires_grad_(any(parameter.requires_grad for parameter in old.parameters()))
        replace_module(network, name, new.train(old.training))


def _standing_for(affine: ChannelMap | None, like: Tensor) -> nn.Module:
    """The layer that computes a map."""
    assert affine is not None
    if isinstance(affine, Affine):
        return ChannelAffine.of(affine, device=like.device, dtype=like.dtype)
    return ChannelMixing.of(affine, device=like.device, dtype=like.dtype)


def _folded(network: nn.Module, change: LayerChange) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The layer's weight and bias with what it takes in, and its shift where that is no bias."""
    layer = network.get_submodule(change.layer)
    old = getattr(layer, change.weight.rpartition(".")[2])
    bias = None if change.bias is None else _tensor(network, change.bias)
    shift = None
    if change.before is not None and bool(change.before.shift.any()) and change.padded:
        shift = shift_of(old, change.before, groups=change.groups)
        if change.after is not None:
            shift = change.after.times(shift)
        change = dataclasses.replace(change, before=change.before.without_shift())
    return *folded_pair(old, bias, change), shift


def folded_pair(weight: Tensor, bias: Tensor | None, change: LayerChange) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias with what it takes in, computed in float64 and rounded once.

    A shift before it is taken for a bias, as it is where every output meets the whole kernel.
    """
    wide, wide_bias = weight.detach().double(), None if bias is None else bias.detach().double()
    kind = {"groups": change.groups, "transposed": change.transposed}
    if change.before is not None:
        wide, wide_bias = fold_before(wide, wide_bias, change.before, **kind)  # type: ignore[arg-type]
    if change.after is not None:
        wide, wide_bias = fold_after(wide, wide_bias, change.after, **kind)  # type: ignore[arg-type]
    new = torch.empty_like(weight, requires_grad=False).copy_(wide)
    new_bias = None
    if change.bias is not None and wide_bias is not None:
        new_bias = wide_bias.to(weight.dtype if bias is None else bias.dtype, copy=True)
    for what, value, old in (("weight", new, weight), ("bias", new_bias, bias)):
        if value is None or bool(value.isfinite().all()):
            continue
        if old is None or bool(old.isfinite().all()):
            raise FoldError(
                f"the folded {what} of {change.layer!r} must fit in {value.dtype}, but is beyond its range: "
                "convert the layer to a wider dtype first"
            )
    return new, new_bias


def _set(
    network: nn.Module, change: LayerChange, weight: Tensor, bias: Tensor | None, shift: Tensor | None
) -> None:
    layer = network.get_submodule(change.layer)
    old = getattr(layer, change.weight.rpartition(".")[2])
    write(old, weight)
    if bias is not None and change.bias is not None:
        owner_name, _, name = change.bias.rpartition(".")
        owner = network.get_submodule(owner_name)
        if getattr(owner, name, None) is None:
            setattr(owner, name, nn.Parameter(bias, requires_grad=old.requires_grad))
        else:
            write(getattr(owner, name), bias)
    if shift is not None:
        shift_by(layer, shift)


def _tensor(network: nn.Module, name: str) -> Tensor | None:
    owner, _, attribute = name.rpartition(".")
    tensor: Tensor | None = getattr(network.get_submodule(owner), attribute, None)
    return tensor

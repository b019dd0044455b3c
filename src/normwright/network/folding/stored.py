"""Finds what a forward stores outside of what it returns, and a fold changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normwright.network.calling import tensors_of


def changed_attributes(network: nn.Module, unfolded: nn.Module, folded: nn.Module) -> tuple[str, ...]:
    """Attributes, parameters and buffers apart, whose tensors differ by more than rounding.

    Args:
        network: which has not been called.
        unfolded: a copy of it, after a call.
        folded: the folded one, after the same call.
    """
    others = dict(folded.named_modules())
    before = dict(network.named_modules())
    sides = (before, others)
    found = []
    for name, module in unfolded.named_modules():
        for attribute, value in vars(module).items():
            if attribute in _OWN:
                continue
            old, other = (vars(where[name]).get(attribute) if name in where else None for where in sides)
            mine, theirs = _tensors(value), _tensors(other)
            if not theirs and _tensors(old):
                continue  # such as a weight that weight norm had computed
            if len(mine) != len(theirs) or not all(map(_alike, mine, theirs)):
                found.append(f"{name}.{attribute}".lstrip("."))
    return tuple(found)


_OWN = frozenset(vars(nn.Module()))


def _tensors(value: object) -> list[Tensor]:
    # a list grows with every call
    return [] if isinstance(value, list) else tensors_of(value)


def _alike(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, two)
    # Rounding errors of many operations are far smaller, and what a fold moves is of the values' own size.
    largest = float(one.abs().nan_to_num(0.0, 0.0, 0.0).max())
    near = torch.finfo(one.dtype).eps ** 0.5 * largest
    return bool(torch.isclose(one, two, rtol=0.0, atol=near, equal_nan=True).all())

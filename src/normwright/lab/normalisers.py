"""Builds one normaliser for inputs of one shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from normwright.errors import ShapeError, unknown_name
from normwright.lab.recipe import NORMS
from normwright.nn import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)

Shape = tuple[int, ...]

_BATCH = (BatchNorm1d, BatchNorm2d, BatchNorm3d)
_INSTANCE = (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)
_LRN_CHANNELS = 5  # as in AlexNet, the network that made it known


@dataclass(frozen=True)
class Choice:
    """A module not yet built, so that the choices for two shapes can be compared."""

    kind: type[nn.Module]
    args: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def build(self) -> nn.Module:
        """The module, new each time."""
        return self.kind(*self.args, **dict(self.options))


def make(norm: str, shape: Shape, *, groups: int, affine: bool = True) -> nn.Module | None:
    """Builds a normaliser for inputs of one shape.

    | norm | module | undefined (None) |
    |---|---|---|
    | none | `nn.Identity()` | |
    | batch | `BatchNorm1d/2d/3d(C)` | |
    | layer | `LayerNorm((C, *space))` | C and space hold a single element |
    | rms | `RMSNorm((C, *space))` | C and space hold a single element |
    | group | `GroupNorm(G, C)` | a group holds a single element |
    | instance | `InstanceNorm1d/2d/3d(C, affine=True)` | no space, or a single position |
    | lrn | `LocalResponseNorm(5)` | no space |

    G is the largest divisor of C that is at most `groups` and leaves at least two channels per group,
    else 1. Over a single element a normaliser gives a constant. Instance norm gets a weight and a bias
    as batch, layer and group norm have them. Draws no random numbers.

    Args:
        norm: one of `NORMS`.
        shape: (N, C, *space); N does not matter.
        groups: the most groups of group norm.
        affine: whether it has a weight and a bias, as far as its kind has any.
    Raises:
        OptionError: an unknown normaliser.
        ShapeError: a shape without channels, or with more than three spatial axes for batch or instance norm.
    Example:
        >>> make("group", (8, 12, 4, 4), groups=8)
        GroupNorm(6, 12, eps=1e-05, affine=True, bias=True)
        >>> make("instance", (8, 12), groups=8) is None
        True
    """
    choice = choose(norm, tuple(shape), groups, affine)
    return None if choice is None else choice.build()


def choose(norm: str, shape: Shape, groups: int, affine: bool = True) -> Choice | None:
    """What `make` builds; two shapes that one module can serve give equal choices."""
    if norm not in NORMS:
        raise unknown_name("normaliser", norm, NORMS)
    if len(shape) < 2:
        raise ShapeError(f"a normaliser's input must be (N, C, *space), but its shape is {shape}")
    channels, space = shape[1], shape[2:]
    alone = math.prod(shape[1:]) == 1
    if norm == "none":
        return Choice(nn.Identity)
    if norm == "batch":
        return Choice(_by_axes(_BATCH, norm, shape), (channels,), _if_without("affine", affine))
    if norm == "instance":
        kind = _by_axes(_INSTANCE, norm, shape)
        return Choice(kind, (channels,), (("affine", affine),)) if math.prod(space) > 1 else None
    if norm == "lrn":
        return Choice(LocalResponseNorm, (_LRN_CHANNELS,)) if space else None
    if norm == "group":
        args = (_group_count(channels, groups), channels)
        return None if alone else Choice(GroupNorm, args, _if_without("affine", affine))
    kind = {"layer": LayerNorm, "rms": RMSNorm}[norm]
    return None if alone else Choice(kind, (shape[1:],), _if_without("elementwise_affine", affine))


def _if_without(option: str, affine: bool) -> tuple[tuple[str, Any], ...]:
    """The option that leaves weight and bias out, where they are to be left out."""
    return () if affine else ((option, False),)


def _by_axes(kinds: tuple[type[nn.Module], ...], norm: str, shape: Shape) -> type[nn.Module]:
    """The class for so many spatial axes; the one for a single axis takes (N, C) too."""
    axes = len(shape) - 2
    if axes > len(kinds):
        raise ShapeError(
            f"{norm} norm takes at most {len(kinds)} spatial axes, but the input has shape {shape}"
        )
    return kinds[max(1, axes) - 1]


def _group_count(channels: int, groups: int) -> int:
    fitting = (g for g in range(min(groups, channels // 2), 0, -1) if channels % g == 0)
    return next(fitting, 1)

"""Builds one normaliser for inputs of one shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from normwright.errors import OptionError, ShapeError, unknown_name
from normwright.lab.layers_before import ACTS_ALONE
from normwright.lab.recipe import NORMS
from normwright.nn import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    DynamicTanh,
    FilterResponseNorm,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    GhostBatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
    WhiteningNorm1d,
    WhiteningNorm2d,
    WhiteningNorm3d,
)

Shape = tuple[int, ...]

_BY_AXES: dict[str, tuple[type[nn.Module], ...]] = {
    "batch": (BatchNorm1d, BatchNorm2d, BatchNorm3d),
    "instance": (InstanceNorm1d, InstanceNorm2d, InstanceNorm3d),
    "renorm": (BatchRenorm1d, BatchRenorm2d, BatchRenorm3d),
    "ghost": (GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d),
    "whitening": (WhiteningNorm1d, WhiteningNorm2d, WhiteningNorm3d),
}
_LRN_CHANNELS = 5  # as in AlexNet, the network that made it known
# A batch must have more values per channel than a group has channels, and the last one may be small.
_WHITENED = 8


@dataclass(frozen=True)
class Choice:
    """A module not yet built, so that the choices for two shapes can be compared."""

    kind: type[nn.Module]
    args: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def build(self) -> nn.Module:
        """The module, new each time."""
        return self.kind(*self.args, **dict(self.options))


def make(
    norm: str, shape: Shape, *, groups: int, ghost_size: int = 32, affine: bool = True
) -> nn.Module | None:
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
    | renorm | `BatchRenorm1d/2d/3d(C)`, clipping relaxed over steps 100 to 800 (r) and 500 (d) | |
    | ghost | `GhostBatchNorm1d/2d/3d(C, ghost_size=…, ragged=True)` | |
    | whitening | `WhiteningNorm1d/2d/3d(C, group_size=…)`, the largest divisor of C that is at most 8 | |
    | frn | `FilterResponseNorm(C, tlu=False)`, as the network activates | no space, or a single position |
    | dyt | `DynamicTanh(C, axis=1)` | |
    | ws | as group, after a layer with standardised weights: see `layers_before` | as group |
    | weight, recurrent-batch, recurrent-layer | `nn.Identity()`: see `layers_before` | |

    G is the largest divisor of C that is at most `groups` and leaves at least two channels per group,
    else 1. Over a single element a normaliser gives a constant. Instance norm gets a weight and a bias
    as batch, layer and group norm have them. Batch renorm's schedule is the paper's, 50 times shorter, as
    the runs are that are compared. Draws no random numbers.

    Args:
        norm: one of `NORMS`.
        shape: (N, C, *space); N does not matter.
        groups: the most groups of group norm.
        ghost_size: samples in a virtual batch of ghost norm; the last one of a batch may be smaller.
        affine: whether it has a weight and a bias, as far as its kind has any.
    Raises:
        OptionError: an unknown normaliser, or one that is nothing without its weight.
        ShapeError: a shape without channels, or with more spatial axes than there is a class for.
    Example:
        >>> make("group", (8, 12, 4, 4), groups=8).num_groups
        6
        >>> make("instance", (8, 12), groups=8) is None
        True
    """
    choice = choose(norm, tuple(shape), groups, ghost_size, affine)
    return None if choice is None else choice.build()


def choose(norm: str, shape: Shape, groups: int, ghost_size: int = 32, affine: bool = True) -> Choice | None:
    """What `make` builds; two shapes that one module can serve give equal choices."""
    if norm not in NORMS:
        raise unknown_name("normaliser", norm, NORMS)
    if len(shape) < 2:
        raise ShapeError(f"a normaliser's input must be (N, C, *space), but its shape is {shape}")
    if norm in ACTS_ALONE and not affine:
        raise OptionError(
            f"affine must be True for {norm} norm, whose gains are part of what it computes: leave the "
            "option or the normaliser out"
        )
    channels, space = shape[1], shape[2:]
    alone = math.prod(shape[1:]) == 1
    without = () if affine else (("affine", False),)
    if norm == "none" or norm in ACTS_ALONE:
        return Choice(nn.Identity)
    if norm in _BY_AXES and norm != "instance":
        of_norm: dict[str, dict[str, Any]] = {
            "renorm": {"r_max_steps": (100, 800), "d_max_steps": (100, 500)},
            "ghost": {"ghost_size": ghost_size, "ragged": True},
            "whitening": {"group_size": _largest_divisor(channels, _WHITENED)},
        }
        options = of_norm.get(norm, {})
        return Choice(_by_axes(norm, shape), (channels,), (*options.items(), *without))
    if norm == "instance":
        kind = _by_axes(norm, shape)
        return Choice(kind, (channels,), (("affine", affine),)) if math.prod(space) > 1 else None
    if norm == "lrn":
        return Choice(LocalResponseNorm, (_LRN_CHANNELS,)) if space else None
    if norm == "frn":
        alone = math.prod(space) == 1
        return None if alone else Choice(FilterResponseNorm, (channels,), (("tlu", False), *without))
    if norm == "dyt":
        return Choice(DynamicTanh, (channels,), (("axis", 1), *without))
    if norm in ("group", "ws"):
        return None if alone else Choice(GroupNorm, (_group_count(channels, groups), channels), without)
    without = () if affine else (("elementwise_affine", False),)
    return None if alone else Choice({"layer": LayerNorm, "rms": RMSNorm}[norm], (shape[1:],), without)


def _by_axes(norm: str, shape: Shape) -> type[nn.Module]:
    """The class for so many spatial axes; the one for a single axis takes (N, C) too."""
    kinds, axes = _BY_AXES[norm], len(shape) - 2
    if axes > len(kinds):
        raise ShapeError(
            f"{norm} norm takes at most {len(kinds)} spatial axes, but the input has shape {shape}"
        )
    return kinds[max(1, axes) - 1]


def _group_count(channels: int, groups: int) -> int:
    return _largest_divisor(channels, min(groups, channels // 2))


def _largest_divisor(number: int, most: int) -> int:
    return next((divisor for divisor in range(most, 0, -1) if number % divisor == 0), 1)

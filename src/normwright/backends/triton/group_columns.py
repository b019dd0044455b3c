"""Launches of the groups family where channels are quickest in memory."""

from __future__ import annotations

from typing import Any

from normwright.backends.moments import compute_dtype
from normwright.backends.triton.group_view import Filled, GroupView, Parts
from normwright.backends.triton.groups_settings import ENOUGH_BLOCKS, GroupColumns, group_columns
from normwright.backends.triton.kernels.group_columns import forward_columns, reduce_columns
from normwright.backends.triton.kernels.group_columns_backward import (
    backward_columns,
    reduce_gradient_columns,
)
from normwright.backends.triton.launch import cdiv, compute_type, empty, launch
from normwright.backends.triton.settings import padded, power_of_two

# Elements of a tile of parts, put together (forward), added up (backward).
_MERGED_TILE, _ADDED_TILE = 2048, 2048


def _slots(view: GroupView, width: int) -> int:
    """The groups that a block of channels holds or touches, padded."""
    if view.share == 1:
        return power_of_two(width)
    if width >= view.channels:
        return padded(view.groups)
    if width % view.share == 0:
        return padded(width // view.share)
    return 1 if view.share % width == 0 else padded((width - 1) // view.share + 2)


def _is_whole(view: GroupView, tile: GroupColumns, blocks: int) -> bool:
    """Whether one program takes all the pieces of a block; it must then hold whole groups."""
    holds_groups = blocks == 1 or tile.width % view.share == 0
    enough = view.samples * blocks >= ENOUGH_BLOCKS
    return holds_groups and (enough if tile.whole is None else tile.whole)


def forward(
    view: GroupView, tensors: tuple[Any, ...], eps: float, activation: str | None, tile: GroupColumns | None
) -> None:
    """Fills y, mask, mean and rstd; tensors: x, residual, weight, bias and these."""
    x = tensors[0]
    tile = tile or group_columns(view.channels, view.share, view.space, x.element_size(), backward=False)
    blocks = cdiv(view.channels, tile.width)
    pieces = cdiv(view.space, tile.rows * tile.steps)
    fold = view.share > tile.width and view.share % tile.width == 0
    across = view.channels // tile.width if fold else view.channels
    parts = empty(x, 3, view.samples, pieces, across, dtype=compute_dtype(x))
    whole = _is_whole(view, tile, blocks)
    cut = (blocks, pieces, tile.steps)
    blocking = (compute_type(x), tile.rows, tile.width, power_of_two(tile.width))
    if not whole:
        shape = (view.samples, view.channels, view.space, *cut)
        launch(reduce_columns, (view.samples * blocks * pieces,))(
            x, parts, *shape, fold, *blocking, num_warps=tile.warps
        )
    slots = _slots(view, tile.width)
    members = (view.share // tile.width if fold else view.share) * pieces
    some = min(padded(members), max(_MERGED_TILE // slots, 1))
    sizes = (view.samples, view.channels, view.groups, view.space, *cut, (view.channels + 7) // 8, eps)
    constants = (activation, fold, *blocking, slots, some, padded(cdiv(members, some)), whole)
    grid = (view.samples * blocks * (1 if whole else pieces),)
    launch(forward_columns, grid)(*tensors, parts, *sizes, *constants, num_warps=tile.warps)


def backward(
    view: GroupView,
    tensors: tuple[Any, ...],
    gradients: Filled,
    activation: str | None,
    tile: GroupColumns | None,
) -> Parts:
    """Fills dx and dresidual, and leaves parts; tensors: dy, x, residual, weight, bias, mask, mean, rstd."""
    x = tensors[1]
    tile = tile or group_columns(view.channels, view.share, view.space, x.element_size(), backward=True)
    blocks = cdiv(view.channels, tile.width)
    pieces = cdiv(view.space, tile.rows * tile.steps)
    parts = view.parts(x, pieces)
    writes = gradients.dx is not None or gradients.dresidual is not None
    whole = writes and _is_whole(view, tile, blocks)
    shape = (view.channels, view.groups, view.space, blocks, pieces, tile.steps, (view.channels + 7) // 8)
    constants = (activation, compute_type(x), tile.rows, tile.width, power_of_two(tile.width))
    if not whole and gradients.needs_sums:
        grid = (view.samples * blocks * pieces,)
        launch(reduce_gradient_columns, grid)(*tensors, *parts, *shape, *constants, num_warps=tile.warps)
    if writes:
        slots = _slots(view, tile.width)
        some = min(padded(view.share * pieces), max(_ADDED_TILE // slots, 1))
        grid = (view.samples * blocks * (1 if whole else pieces),)
        launch(backward_columns, grid)(
            *tensors, *gradients[:2], *parts, *shape, *constants, slots, some, whole, num_warps=tile.warps
        )
    return parts

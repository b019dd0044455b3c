"""Launches of the groups family where channels are quickest in memory."""

from __future__ import annotations

from typing import Any

from normwright.backends.moments import compute_dtype
from normwright.backends.triton.group_view import Filled, GroupView, Parts
from normwright.backends.triton.groups_settings import GroupColumns, group_columns
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


def _per_part(view: GroupView, width: int) -> int:
    """Channels whose moments are put together before they are stored: of a group, of a block in one, or 1."""
    share = view.share
    if share > width:
        return width if share % width == 0 else 1
    return share if share == padded(share) and width == padded(width) else 1


def _is_whole(view: GroupView, tile: GroupColumns, blocks: int, pieces: int) -> bool:
    """Whether one program takes all the pieces of a block; it must then hold whole groups."""
    holds_groups = blocks == 1 or tile.width % view.share == 0
    return holds_groups and (pieces == 1 if tile.whole is None else tile.whole)


def _blocking(view: GroupView, x: Any, tile: GroupColumns) -> tuple[Any, ...]:
    """The constants COMPUTE, EVEN, ROWS, WIDTH and COLUMNS of the kernels."""
    columns = power_of_two(tile.width)
    full = tile.width == columns and view.channels % tile.width == 0
    even = full and view.space % (tile.rows * tile.steps) == 0
    return compute_type(x), even, tile.rows, tile.width, columns


def forward(
    view: GroupView,
    tensors: tuple[Any, ...],
    center: bool,
    eps: float,
    activation: str | None,
    tile: GroupColumns | None,
) -> None:
    """Fills y, mask, mean and rstd; tensors: x, residual, weight, bias and these."""
    x = tensors[0]
    tile = tile or group_columns(view.channels, view.share, view.space, x.element_size(), backward=False)
    blocks = cdiv(view.channels, tile.width)
    pieces = cdiv(view.space, tile.rows * tile.steps)
    per_part = _per_part(view, tile.width)
    parts = empty(x, 3, view.samples, pieces, view.channels // per_part, dtype=compute_dtype(x))
    whole = _is_whole(view, tile, blocks, pieces)
    cut = (blocks, pieces, tile.steps)
    blocking = _blocking(view, x, tile)
    if not whole:
        shape = (view.samples, view.channels, view.space, *cut)
        launch(reduce_columns, (view.samples * blocks * pieces,))(
            x, parts, *shape, per_part, center, *blocking, num_warps=tile.warps
        )
    slots = _slots(view, tile.width)
    members = view.share // per_part * pieces
    some = min(padded(members), max(_MERGED_TILE // slots, 1))
    sizes = (view.samples, view.channels, view.groups, view.space, *cut, (view.channels + 7) // 8, eps)
    constants = (activation, per_part, center, *blocking, slots, some, padded(cdiv(members, some)), whole)
    grid = (view.samples * blocks * (1 if whole else pieces),)
    launch(forward_columns, grid)(*tensors, parts, *sizes, *constants, num_warps=tile.warps)


def backward(
    view: GroupView,
    tensors: tuple[Any, ...],
    gradients: Filled,
    center: bool,
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
    whole = writes and _is_whole(view, tile, blocks, pieces)
    shape = (view.channels, view.groups, view.space, blocks, pieces, tile.steps, (view.channels + 7) // 8)
    constants = (activation, center, *_blocking(view, x, tile))
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

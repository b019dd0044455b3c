"""Launches of the groups family where space is quickest in memory."""

from __future__ import annotations

from typing import Any

from normwright.backends.moments import compute_dtype
from normwright.backends.triton.group_view import Filled, GroupView, Parts, options_of
from normwright.backends.triton.groups_settings import (
    ENOUGH_PROGRAMS,
    GroupPieces,
    GroupTile,
    group_pieces,
    group_tile,
)
from normwright.backends.triton.kernels.groups import forward_groups, forward_pieces, reduce_pieces
from normwright.backends.triton.kernels.groups_backward import (
    backward_groups,
    backward_pieces,
    reduce_gradient_pieces,
)
from normwright.backends.triton.launch import cdiv, compute_type, empty, launch
from normwright.backends.triton.settings import padded

# Elements of a tile of parts.
_PARTS_TILE = 2048


def forward(
    view: GroupView,
    tensors: tuple[Any, ...],
    center: bool,
    eps: float,
    activation: str | None,
    tile: GroupTile | GroupPieces | None,
) -> None:
    """Fills y, mask, mean and rstd; tensors: x, residual, weight, bias and these."""
    x = tensors[0]
    tile = tile or group_tile(view.share, view.space, backward=False)
    tile = tile or group_pieces(view.share, view.space, backward=False)
    total = view.samples * view.groups
    runs, length = (1, view.share * view.space) if tile.flat else (view.share, view.space)
    options = options_of(activation, center, x, view.space if tile.flat else 0)
    mask_bytes = (length + 7) // 8
    if isinstance(tile, GroupTile):
        shape = (total, view.groups, runs, length, mask_bytes, eps)
        even = length == tile.block and runs == tile.runs
        blocks = (even, tile.groups, tile.runs, tile.block)
        launch(forward_groups, (cdiv(total, tile.groups),))(
            *tensors, *shape, *options, *blocks, num_warps=tile.warps
        )
        return
    pieces = cdiv(view.share * view.space, tile.block * tile.steps)
    parts = empty(x, 3, total, pieces, dtype=compute_dtype(x))
    whole = total >= ENOUGH_PROGRAMS if tile.whole is None else tile.whole
    if not whole:
        cut = (total, runs, length, pieces, tile.steps)
        settings = (center, compute_type(x), tile.block)
        launch(reduce_pieces, (total * pieces,))(x, parts, *cut, *settings, num_warps=tile.warps)
    tiles = cdiv(runs, tile.runs) * cdiv(length, tile.wide)
    grid = (total if whole else total * cdiv(tiles, tile.steps),)
    sizes = (total, view.groups, runs, length, pieces, tile.steps, mask_bytes, eps)
    constants = (tile.block, padded(pieces), tile.runs, tile.wide, whole)
    launch(forward_pieces, grid)(*tensors, parts, *sizes, *options, *constants, num_warps=tile.warps)


def backward(
    view: GroupView,
    tensors: tuple[Any, ...],
    gradients: Filled,
    center: bool,
    activation: str | None,
    tile: GroupTile | GroupPieces | None,
) -> Parts:
    """Fills dx and dresidual, and leaves parts; tensors: dy, x, residual, weight, bias, mask, mean, rstd."""
    x, mask = tensors[1], tensors[5]
    tile = tile or group_tile(view.share, view.space, backward=True)
    tile = tile or group_pieces(view.share, view.space, backward=True)
    total, runs, length = view.samples * view.groups, view.share, view.space
    by_group = mask is not None and view.run_of_mask != length
    options = options_of(activation, center, x, length if by_group else 0)
    mask_bytes = (view.run_of_mask + 7) // 8
    if isinstance(tile, GroupTile):
        wanted = (gradients.wants_dweight, gradients.wants_dbias)
        parts = Parts(
            *(
                empty(x, view.samples, view.channels, dtype=compute_dtype(x)) if asked else None
                for asked in wanted
            )
        )
        shape = (total, view.groups, runs, length, mask_bytes)
        even = length == tile.block and runs == tile.runs
        blocks = (even, tile.groups, tile.runs, tile.block)
        launch(backward_groups, (cdiv(total, tile.groups),))(
            *tensors, *gradients[:2], *parts, *shape, *options, *blocks, num_warps=tile.warps
        )
        return parts
    pieces = cdiv(length, tile.block * tile.steps)
    parts = view.parts(x, pieces)
    writes = gradients.dx is not None or gradients.dresidual is not None
    whole = writes and (total >= ENOUGH_PROGRAMS if tile.whole is None else tile.whole)
    units = cdiv(runs, tile.runs)
    sizes = (view.groups, runs, length, pieces, tile.steps, mask_bytes)
    constants = (*options, tile.runs, tile.block)
    if not whole and gradients.needs_sums:
        launch(reduce_gradient_pieces, (total * units * pieces,))(
            *tensors, *parts, *sizes, *constants, num_warps=tile.warps
        )
    if writes:
        members = min(padded(runs * pieces), _PARTS_TILE)
        grid = (total if whole else total * cdiv(units * cdiv(length, tile.block), tile.steps),)
        sums = (members, whole)
        launch(backward_pieces, grid)(
            *tensors, *gradients[:2], *parts, *sizes, *constants, *sums, num_warps=tile.warps
        )
    return parts

"""The groups family by Triton kernels: group norm; with as many groups as channels, instance norm, and
filter response norm without `center`.

Two orders in memory, two sets of kernels: `group_runs.py` where space is quickest, `group_columns.py` where
channels are. Other strides are brought into x's order by a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.masks import mask_shape
from normwright.backends.moments import statistics_dtype
from normwright.backends.normalised import Gradients, MaskedResults, Results
from normwright.backends.triton import group_columns, group_runs
from normwright.backends.triton.arrange import blank_apart, dense_or_none
from normwright.backends.triton.group_view import Filled, GroupView, Parts, view_of
from normwright.backends.triton.groups_settings import GroupColumns, GroupPieces, GroupTile
from normwright.backends.triton.kernels.parameters import add_parts
from normwright.backends.triton.launch import cdiv, empty, launch, on_device_of

Tile = GroupTile | GroupPieces | GroupColumns


def groups_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    center: bool,
    eps: float,
    activation: str | None,
    *,
    tile: Tile | None = None,
) -> Results:
    """See `schema.py`. `tile` takes the place of the table's."""
    y, moments = torch.empty_like(x), _blank_moments(x, groups, center)
    kept = (None, moments[0], moments[-1])
    _forward(x, residual, weight, bias, y, kept, groups, center, eps, activation, tile)
    return y, moments


def groups_forward_masked(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    center: bool,
    eps: float,
    activation: str | None,
    *,
    tile: Tile | None = None,
) -> MaskedResults:
    """See `schema.py`. `tile` takes the place of the table's."""
    y, moments = torch.empty_like(x), _blank_moments(x, groups, center)
    mask = empty(x, *mask_shape(x, view_of(x, groups).order), dtype=torch.uint8)
    kept = (mask, moments[0], moments[-1])
    _forward(x, residual, weight, bias, y, kept, groups, center, eps, activation, tile)
    return y, moments, mask


def _blank_moments(x: Tensor, groups: int, center: bool) -> Tensor:
    return empty(x, 2 if center else 1, x.shape[0], groups, dtype=statistics_dtype(x))


def groups_inference(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    center: bool,
    eps: float,
    activation: str | None,
) -> Tensor:
    """See `schema.py`."""
    y = torch.empty_like(x)
    _forward(x, residual, weight, bias, y, (None, None, None), groups, center, eps, activation, None)
    return y


def groups_inference_out(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    center: bool,
    eps: float,
    activation: str | None,
    out: Tensor,
) -> None:
    """See `schema.py`."""
    _forward(x, residual, weight, bias, out, (None, None, None), groups, center, eps, activation, None)


def _forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    y: Tensor,
    kept: tuple[Tensor | None, Tensor | None, Tensor | None],
    groups: int,
    center: bool,
    eps: float,
    activation: str | None,
    tile: Tile | None,
) -> None:
    """Fills y and what is kept for a backward: mask, mean and rstd."""
    view = view_of(x, groups)
    given = (view.of(x), view.of(residual), dense_or_none(weight), dense_or_none(bias))
    result = blank_apart(y, view.order, view.shape, given[:2], given[2:])
    tensors = (*given, result.dense, *kept)
    with on_device_of(x):
        if view.channels_last:
            assert tile is None or isinstance(tile, GroupColumns)
            group_columns.forward(view, tensors, center, eps, activation, tile)
        else:
            assert not isinstance(tile, GroupColumns)
            group_runs.forward(view, tensors, center, eps, activation, tile)
    result.filled()


def groups_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    moments: Tensor,
    groups: int,
    center: bool,
    activation: str | None,
    wanted: int,
    *,
    tile: Tile | None = None,
) -> Gradients:
    """See `schema.py`. `tile` takes the place of the table's."""
    view = view_of(x, groups)
    dx = view.blank_of(torch.empty_like(x)) if wanted & DX else None
    like = x if residual is None else residual
    dresidual = view.blank_of(torch.empty_like(like)) if wanted & DRESIDUAL else None
    dweight = torch.empty_like(weight) if wanted & DWEIGHT and weight is not None else None
    dbias = torch.empty_like(bias) if wanted & DBIAS and bias is not None else None
    gradients = Filled(
        None if dx is None else dx.dense,
        None if dresidual is None else dresidual.dense,
        dweight is not None,
        dbias is not None,
    )
    inputs = (view.of(dy), view.of(x), view.of(residual), dense_or_none(weight), dense_or_none(bias))
    moments = moments.contiguous()
    tensors = (*inputs, dense_or_none(mask), moments[0], moments[-1])
    with on_device_of(x):
        if view.channels_last:
            assert tile is None or isinstance(tile, GroupColumns)
            parts = group_columns.backward(view, tensors, gradients, center, activation, tile)
        else:
            assert not isinstance(tile, GroupColumns)
            parts = group_runs.backward(view, tensors, gradients, center, activation, tile)
        _add_parts(view, parts, dweight, dbias)
    return (
        None if dx is None else dx.filled(),
        None if dresidual is None else dresidual.filled(),
        dweight,
        dbias,
    )


# Few channels, so few programs: a narrow block with many parts at once.
_ADDED_PARTS, _ADDED_COLUMNS = 256, 16


def _add_parts(view: GroupView, parts: Parts, dweight: Tensor | None, dbias: Tensor | None) -> None:
    if dweight is None and dbias is None:
        return
    number = next(part for part in parts if part is not None).shape[0]
    grid = (cdiv(view.channels, _ADDED_COLUMNS),)
    shape = (number, view.channels, 0, _ADDED_PARTS, _ADDED_COLUMNS)
    launch(add_parts, grid)(*parts, dweight, dbias, *shape, num_warps=8)

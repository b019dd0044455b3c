"""The rows family: layer and RMS norm. `schema.py` has the operators, `kernels/rows.py` the kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.gradients import DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.masks import Order, mask_shape, rows_order
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.backends.normalised import Gradients, MaskedResults, Results
from normwright.backends.triton.arrange import Blank, arranged, blank, blank_apart, dense_or_none
from normwright.backends.triton.kernels.parameters import add_parts
from normwright.backends.triton.kernels.row_pieces import (
    backward_pieces,
    forward_pieces,
    reduce_gradient_pieces,
    reduce_pieces,
)
from normwright.backends.triton.kernels.rows import backward_rows, forward_rows
from normwright.backends.triton.launch import cdiv, compute_type, empty, launch, on_device_of
from normwright.backends.triton.settings import Tile, power_of_two, rows_tile


class _Rows(NamedTuple):
    """How a call sees its tensors: (rows, length) in x's order in memory.

    Parameters come in `parameter_order`; where channels is not 0, that is (channels, space) while rows are
    (space, channels), and the kernels find their way.
    """

    order: Order
    rows: int
    length: int
    parameter_order: Order
    channels: int

    def of(self, tensor: Tensor | None) -> Tensor | None:
        """x, or what is like x, as the kernels take it."""
        return None if tensor is None else arranged(tensor, self.order, (self.rows, self.length))

    def parameter(self, tensor: Tensor | None) -> Tensor | None:
        """A parameter as the kernels take it."""
        return None if tensor is None else arranged(tensor, self.parameter_order, (self.length,))

    def blank(self, like: Tensor) -> Blank:
        """A result like a tensor that `of` takes."""
        return blank(torch.empty_like(like), self.order, (self.rows, self.length))

    def blank_parameter(self, like: Tensor) -> Blank:
        """A result like a tensor that `parameter` takes."""
        return blank(torch.empty_like(like), self.parameter_order, (self.length,))


def _seen(x: Tensor, trailing_axes: int) -> _Rows:
    order = rows_order(x, trailing_axes)
    outer = x.dim() - trailing_axes
    shape, length = x.shape[outer:], math.prod(x.shape[outer:])
    axes = [axis - outer for axis in order.axes[outer:]]
    seen = [axis for axis in axes if shape[axis] != 1]
    channels = 0
    if seen != sorted(seen) and seen == [*sorted(seen)[1:], min(seen)]:
        channels = shape[seen[-1]]
    if channels or seen == sorted(seen):
        axes = list(range(len(axes)))
    return _Rows(order, x.numel() // length, length, Order(axes, length), channels)


def rows_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
    *,
    tile: Tile | None = None,
) -> Results:
    """See `schema.py`. `tile` takes the place of the table's."""
    y, moments = torch.empty_like(x), _blank_moments(x, axes, center)
    _forward(x, residual, weight, bias, y, None, moments, axes, center, eps, activation, tile)
    return y, moments


def rows_forward_masked(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
    *,
    tile: Tile | None = None,
) -> MaskedResults:
    """See `schema.py`. `tile` takes the place of the table's."""
    y, moments = torch.empty_like(x), _blank_moments(x, axes, center)
    mask = empty(x, *mask_shape(x, rows_order(x, axes)), dtype=torch.uint8)
    _forward(x, residual, weight, bias, y, mask, moments, axes, center, eps, activation, tile)
    return y, moments, mask


def _blank_moments(x: Tensor, axes: int, center: bool) -> Tensor:
    outer = x.shape[: x.dim() - axes]
    return empty(x, 2 if center else 1, *outer, dtype=statistics_dtype(x))


def rows_inference(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
) -> Tensor:
    """See `schema.py`."""
    y = torch.empty_like(x)
    _forward(x, residual, weight, bias, y, None, None, axes, center, eps, activation)
    return y


def rows_inference_out(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
    out: Tensor,
) -> None:
    """See `schema.py`."""
    _forward(x, residual, weight, bias, out, None, None, axes, center, eps, activation)


def _forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    y: Tensor,
    mask: Tensor | None,
    moments: Tensor | None,
    axes: int,
    center: bool,
    eps: float,
    activation: str | None,
    tile: Tile | None = None,
) -> None:
    """Fills y, and the mask and the moments that are kept for a backward."""
    seen = _seen(x, axes)
    dense = seen.of(x)
    assert dense is not None
    given = (dense, seen.of(residual), seen.parameter(weight), seen.parameter(bias))
    result = blank_apart(y, seen.order, (seen.rows, seen.length), given[:2], given[2:])
    mean_and_rstd = (None, None) if moments is None else (moments[0], moments[-1])
    tensors = (*given, result.dense, mask, *mean_and_rstd)
    mask_bytes = (seen.length + 7) // 8
    options = (activation, center, seen.channels, compute_type(x))
    tile = tile or rows_tile(seen.length, backward=False)
    with on_device_of(x):
        if tile.block >= seen.length:
            grid = (cdiv(seen.rows, tile.rows),)
            shape = (seen.rows, seen.length, mask_bytes, eps)
            blocks = (tile.block == seen.length, tile.rows, tile.block)
            launch(forward_rows, grid)(*tensors, *shape, *options, *blocks, num_warps=tile.warps)
        else:
            _forward_in_pieces(seen, tensors, mask_bytes, eps, options, tile)
    result.filled()


def _forward_in_pieces(
    seen: _Rows, tensors: tuple[Any, ...], mask_bytes: int, eps: float, options: tuple[Any, ...], tile: Tile
) -> None:
    x = tensors[0]
    pieces = cdiv(seen.length, tile.block)
    parts = empty(x, 3, seen.rows, pieces, dtype=compute_dtype(x))
    _, center, _, compute = options
    grid = (seen.rows, pieces)  # the second axis has at most 65535
    even = seen.length % tile.block == 0
    launch(reduce_pieces, grid)(
        x, parts, seen.length, pieces, center, compute, even, tile.block, num_warps=tile.warps
    )
    shape = (parts, seen.length, pieces, mask_bytes, eps)
    blocks = (even, tile.block, power_of_two(pieces))
    launch(forward_pieces, grid)(*tensors, *shape, *options, *blocks, num_warps=tile.warps)


def rows_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    moments: Tensor,
    axes: int,
    center: bool,
    activation: str | None,
    wanted: int,
    *,
    tile: Tile | None = None,
) -> Gradients:
    """See `schema.py`. `tile` takes the place of the table's."""
    seen = _seen(x, axes)
    tile = tile or rows_tile(seen.length, backward=True)
    if tile.block > 8192 and x.element_size() > 2:
        tile = replace(tile, stages=1)  # two tiles of that size would not fit in shared memory everywhere
    results = _blank_gradients(seen, (x, x if residual is None else residual, weight, bias), wanted)
    most = cdiv(seen.rows, tile.rows)
    programs = most if results[2:] == [None, None] else min(tile.programs, most)
    sums = [
        None if result is None else empty(x, programs, seen.length, dtype=compute_dtype(x))
        for result in results[2:]
    ]
    given = (
        seen.of(dy),
        seen.of(x),
        seen.of(residual),
        seen.parameter(weight),
        seen.parameter(bias),
        dense_or_none(mask),
    )
    moments = moments.contiguous()
    tensors = (*given, moments[0], moments[-1])
    filled = (*(None if result is None else result.dense for result in results[:2]), *sums)
    options = (activation, center, seen.channels, compute_type(x))
    with on_device_of(x):
        if tile.block >= seen.length:
            shape = (seen.rows, seen.length, (seen.length + 7) // 8)
            blocks = (tile.block == seen.length, tile.rows, tile.block, tile.stages)
            launch(backward_rows, (programs,))(
                *tensors, *filled, *shape, *options, *blocks, num_warps=tile.warps
            )
        else:
            _backward_in_pieces(seen, tensors, filled, options, tile, programs)
        _add_parts(seen, sums, results[2:], programs)
    dx, dresidual, dweight, dbias = (None if result is None else result.filled() for result in results)
    return dx, dresidual, dweight, dbias


def _blank_gradients(seen: _Rows, sources: Sequence[Tensor | None], wanted: int) -> list[Blank | None]:
    """dx, dresidual, dweight and dbias, of those that are asked for."""
    makers = (seen.blank, seen.blank, seen.blank_parameter, seen.blank_parameter)
    return [
        maker(source) if wanted & bit and source is not None else None
        for maker, source, bit in zip(makers, sources, (DX, DRESIDUAL, DWEIGHT, DBIAS), strict=True)
    ]


def _backward_in_pieces(
    seen: _Rows,
    tensors: tuple[Any, ...],
    filled: tuple[Any, ...],
    options: tuple[Any, ...],
    tile: Tile,
    programs: int,
) -> None:
    x = tensors[1]
    pieces, even = cdiv(seen.length, tile.block), seen.length % tile.block == 0
    parts = empty(x, 2, seen.rows, pieces, dtype=compute_dtype(x))
    shape = (seen.length, pieces, (seen.length + 7) // 8)
    if filled[0] is not None:
        grid = (seen.rows, pieces)  # the second axis has at most 65535
        launch(reduce_gradient_pieces, grid)(
            *tensors, parts, *shape, *options, even, tile.block, num_warps=tile.warps
        )
    blocks = (even, tile.block, power_of_two(pieces))
    grid = (programs, pieces)
    launch(backward_pieces, grid)(
        *tensors, parts, *filled, seen.rows, *shape, *options, *blocks, num_warps=tile.warps
    )


_ADDED_PARTS, _ADDED_COLUMNS = 32, 64


def _add_parts(
    seen: _Rows, sums: Sequence[Tensor | None], results: Sequence[Blank | None], programs: int
) -> None:
    if all(part is None for part in sums):
        return
    grid = (cdiv(seen.length, _ADDED_COLUMNS),)
    filled = (None if result is None else result.dense for result in results)
    shape = (programs, seen.length, seen.channels, _ADDED_PARTS, _ADDED_COLUMNS)
    launch(add_parts, grid)(*sums, *filled, *shape, num_warps=4)

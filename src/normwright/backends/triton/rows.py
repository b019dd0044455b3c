"""The rows family: layer and RMS norm. `schema.py` has the operators, `rows_kernels.py` the kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normwright.backends.masks import Order, mask_shape, rows_order
from normwright.backends.moments import compute_dtype, statistics_dtype
from normwright.backends.triton.arrange import Blank, arranged, blank
from normwright.backends.triton.launch import cdiv, compute_type, empty, on_device_of
from normwright.backends.triton.parameter_kernels import add_parts
from normwright.backends.triton.row_pieces_kernels import (
    backward_pieces,
    forward_pieces,
    reduce_gradient_pieces,
    reduce_pieces,
)
from normwright.backends.triton.rows_kernels import backward_rows, forward_rows
from normwright.backends.triton.settings import Tile, power_of_two, rows_tile

Results = tuple[Tensor, Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]


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


def _seen(x: Tensor, normalized_shape: Sequence[int]) -> _Rows:
    order = rows_order(x, normalized_shape)
    outer, length = x.dim() - len(normalized_shape), math.prod(normalized_shape)
    axes = [axis - outer for axis in order.axes[outer:]]
    seen = [axis for axis in axes if normalized_shape[axis] != 1]
    channels = 0
    if seen != sorted(seen) and seen == [*sorted(seen)[1:], min(seen)]:
        channels = normalized_shape[seen[-1]]
    if channels or seen == sorted(seen):
        axes = list(range(len(axes)))
    return _Rows(order, x.numel() // length, length, Order(axes, length), channels)


def rows_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    normalized_shape: Sequence[int],
    center: bool,
    eps: float,
    activation: str | None,
    save_mask: bool,
    *,
    tile: Tile | None = None,
) -> Results:
    """See `schema.py`. `tile` takes the place of the table's."""
    outer = x.shape[: x.dim() - len(normalized_shape)]
    mean = empty(x, *(outer if center else (0,)), dtype=statistics_dtype(x))
    rstd = empty(x, *outer, dtype=statistics_dtype(x))
    mask = empty(x, 0, dtype=torch.uint8)
    if save_mask:
        mask = empty(x, *mask_shape(x, rows_order(x, normalized_shape)), dtype=torch.uint8)
    y = torch.empty_like(x)
    kept = (mask if save_mask else None, mean, rstd)
    _forward(x, residual, weight, bias, y, kept, normalized_shape, center, eps, activation, tile)
    return y, mean, rstd, mask


def rows_inference(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    normalized_shape: Sequence[int],
    center: bool,
    eps: float,
    activation: str | None,
) -> Tensor:
    """See `schema.py`."""
    y = torch.empty_like(x)
    kept = (None, None, None)
    _forward(x, residual, weight, bias, y, kept, normalized_shape, center, eps, activation)
    return y


def rows_inference_out(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    normalized_shape: Sequence[int],
    center: bool,
    eps: float,
    activation: str | None,
    out: Tensor,
) -> None:
    """See `schema.py`."""
    kept = (None, None, None)
    _forward(x, residual, weight, bias, out, kept, normalized_shape, center, eps, activation)


def _forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    y: Tensor,
    kept: tuple[Tensor | None, Tensor | None, Tensor | None],
    normalized_shape: Sequence[int],
    center: bool,
    eps: float,
    activation: str | None,
    tile: Tile | None = None,
) -> None:
    """Fills y and what is kept for a backward: mask, mean and rstd."""
    seen = _seen(x, normalized_shape)
    dense = seen.of(x)
    assert dense is not None
    result = blank(y, seen.order, (seen.rows, seen.length))
    tensors = (dense, seen.of(residual), seen.parameter(weight), seen.parameter(bias), result.dense, *kept)
    mask_bytes = (seen.length + 7) // 8
    options = (activation, center, seen.channels, compute_type(x))
    tile = tile or rows_tile(seen.length, backward=False)
    with on_device_of(x):
        if tile.block >= seen.length:
            grid = (cdiv(seen.rows, tile.rows),)
            shape = (seen.rows, seen.length, mask_bytes, eps)
            blocks = (tile.block == seen.length, tile.rows, tile.block)
            forward_rows[grid](*tensors, *shape, *options, *blocks, num_warps=tile.warps)
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
    grid = (pieces, seen.rows)
    even = seen.length % tile.block == 0
    reduce_pieces[grid](
        x, parts, seen.length, pieces, center, compute, even, tile.block, num_warps=tile.warps
    )
    shape = (parts, seen.length, pieces, mask_bytes, eps)
    blocks = (even, tile.block, power_of_two(pieces))
    forward_pieces[grid](*tensors, *shape, *options, *blocks, num_warps=tile.warps)


def rows_backward(
    dy: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    normalized_shape: Sequence[int],
    center: bool,
    activation: str | None,
    output_mask: Sequence[bool],
    *,
    tile: Tile | None = None,
) -> Gradients:
    """See `schema.py`. `tile` takes the place of the table's."""
    seen = _seen(x, normalized_shape)
    tile = tile or rows_tile(seen.length, backward=True)
    asked = (*output_mask[:2], output_mask[2] and weight is not None, output_mask[3] and bias is not None)
    results = _blank_gradients(seen, (x, x if residual is None else residual, weight, bias), asked)
    most = cdiv(seen.rows, tile.rows)
    programs = min(tile.programs, most) if asked[2] or asked[3] else most
    sums = [
        empty(x, programs, seen.length, dtype=compute_dtype(x)) if wanted else None for wanted in asked[2:]
    ]
    given = (seen.of(dy), seen.of(x), seen.of(residual), seen.parameter(weight), seen.parameter(bias), mask)
    tensors = (*given, mean, rstd)
    filled = (*(None if result is None else result.dense for result in results[:2]), *sums)
    options = (activation, center, seen.channels, compute_type(x))
    with on_device_of(x):
        if tile.block >= seen.length:
            shape = (seen.rows, seen.length, (seen.length + 7) // 8)
            blocks = (tile.block == seen.length, tile.rows, tile.block, tile.stages)
            backward_rows[(programs,)](*tensors, *filled, *shape, *options, *blocks, num_warps=tile.warps)
        else:
            _backward_in_pieces(seen, tensors, filled, options, tile, programs)
        _add_parts(seen, sums, results[2:], programs)
    return tuple(x.new_empty(0) if r is None else r.filled() for r in results)  # type: ignore[return-value]


def _blank_gradients(
    seen: _Rows, sources: Sequence[Tensor | None], asked: Sequence[bool]
) -> list[Blank | None]:
    """dx, dresidual, dweight and dbias, of those that are asked for."""
    makers = (seen.blank, seen.blank, seen.blank_parameter, seen.blank_parameter)
    return [
        maker(source) if wanted and source is not None else None
        for maker, source, wanted in zip(makers, sources, asked, strict=True)
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
        grid = (pieces, seen.rows)
        reduce_gradient_pieces[grid](
            *tensors, parts, *shape, *options, even, tile.block, num_warps=tile.warps
        )
    blocks = (even, tile.block, power_of_two(pieces))
    grid = (pieces, programs)
    backward_pieces[grid](
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
    add_parts[grid](*sums, *filled, *shape, num_warps=4)

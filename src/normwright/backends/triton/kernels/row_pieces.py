"""Kernels of the rows family where a row does not fit in one tile: it is cut in pieces of BLOCK elements.

One kernel reduces each piece, the next puts the pieces of a row together and does the rest, so that x is read
twice. The second takes them backwards, because what the first has read last is in the second cache still.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.moments import merged, quotient, rstd_of, wide
from normwright.backends.triton.kernels.row_tiles import (
    added,
    inside_of,
    parameter_of,
    restandardised,
    row_moments,
    store_activated,
    undone,
)


@triton.jit
def reduce_pieces(
    x,
    parts,
    length,
    pieces,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The moments of each piece of each row: parts (3, rows, pieces) take hi, lo and m2_root."""
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = piece.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    one = tl.arange(0, 1)
    inside = inside_of(one == 0, column, length, EVEN)
    value = tl.load(x + row * length + column[None, :], mask=inside, other=0.0).to(COMPUTE)
    count = tl.minimum(length - piece.to(tl.int64) * BLOCK, BLOCK).to(COMPUTE)
    _, hi, lo, m2_root = row_moments(value, inside, count, CENTER, EVEN)
    at = row * pieces + piece + tl.arange(0, 1)[:, None]
    step = tl.num_programs(0).to(tl.int64) * pieces
    tl.store(parts + at, hi)
    tl.store(parts + step + at, lo)
    tl.store(parts + 2 * step + at, m2_root)


@triton.jit
def _merged_pieces(parts, row, rows, length, pieces, BLOCK: tl.constexpr, PIECES: tl.constexpr):
    """hi, lo and m2_root of a row, each as a (1, 1)."""
    piece = tl.arange(0, PIECES)[None, :]
    inside = piece < pieces
    at = row * pieces + piece
    step = rows.to(tl.int64) * pieces
    hi = tl.load(parts + at, mask=inside, other=0.0)
    lo = tl.load(parts + step + at, mask=inside, other=0.0)
    m2_root = tl.load(parts + 2 * step + at, mask=inside, other=0.0)
    left = length - piece.to(tl.int64) * BLOCK
    count = tl.maximum(tl.minimum(left, BLOCK), 0).to(parts.dtype.element_ty)
    return merged(hi, lo, m2_root, count, 1)


@triton.jit
def forward_pieces(
    x,
    residual,
    weight,
    bias,
    y,
    mask,
    mean,
    rstd,
    parts,
    length,
    pieces,
    mask_bytes,
    eps: "fp64",
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    CHANNELS: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECES: tl.constexpr,
):
    """y of a piece, by the moments of all pieces of its row."""
    rows = tl.num_programs(0)
    row, piece = (rows - 1 - tl.program_id(0)).to(tl.int64), pieces - 1 - tl.program_id(1)
    hi, lo, m2_root = _merged_pieces(parts, row, rows, length, pieces, BLOCK, PIECES)
    scale = rstd_of(m2_root, tl.full((1, 1), length, COMPUTE), tl.full((1, 1), eps, COMPUTE))
    one = tl.arange(0, 1)[:, None]
    if rstd is not None:
        tl.store(rstd + row + one, scale.to(tl.float64), mask=piece + one == 0)
        if CENTER:
            tl.store(mean + row + one, wide(hi, lo), mask=piece + one == 0)
    column = piece.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = inside_of(tl.arange(0, 1) == 0, column, length, EVEN)
    at = row * length + column[None, :]
    z = (tl.load(x + at, mask=inside, other=0.0).to(COMPUTE) - hi) * scale - lo * scale
    if weight is not None:
        z = z * parameter_of(weight, column, length, CHANNELS, EVEN, COMPUTE)
    z = added(z, bias, residual, at, inside, column, length, CHANNELS, EVEN)
    rows_of_tile = row + tl.arange(0, 1)
    store_activated(
        z, y, mask, at, inside, rows_of_tile, rows_of_tile >= 0, column, mask_bytes, ACTIVATION, 1, BLOCK
    )


@triton.jit
def _piece_of_dz(
    dy,
    x,
    residual,
    weight,
    bias,
    mask,
    mean,
    rstd,
    row,
    column,
    length,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    CHANNELS: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
):
    """x̂, dz, g = dz·weight and rstd of a piece, as (1, BLOCK) and (1, 1)."""
    rows = row + tl.arange(0, 1)
    inside = inside_of(rows >= 0, column, length, EVEN)
    at = row * length + column[None, :]
    x_hat, scale = restandardised(x, mean, rstd, rows, rows >= 0, at, inside, CENTER, COMPUTE, EVEN)
    z = x_hat
    if weight is not None:
        scales = parameter_of(weight, column, length, CHANNELS, EVEN, COMPUTE)
    if ACTIVATION is not None and mask is None:
        if weight is not None:
            z = z * scales
        z = added(z, bias, residual, at, inside, column, length, CHANNELS, EVEN)
    dz = undone(dy, z, mask, at, inside, rows, column, mask_bytes, ACTIVATION, COMPUTE)
    g = dz
    if weight is not None:
        g = g * scales
    return x_hat, dz, g, scale


@triton.jit
def reduce_gradient_pieces(
    dy,
    x,
    residual,
    weight,
    bias,
    mask,
    mean,
    rstd,
    parts,
    length,
    pieces,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    CHANNELS: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Σ g·x̂ and Σ g of each piece of each row: parts (2, rows, pieces)."""
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = piece.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x_hat, _, g, _ = _piece_of_dz(
        dy, x, residual, weight, bias, mask, mean, rstd, row, column, length, mask_bytes,
        ACTIVATION, CENTER, CHANNELS, COMPUTE, EVEN)  # fmt: skip
    at = row * pieces + piece
    tl.store(parts + at, tl.sum(tl.sum(g * x_hat, 1), 0))
    tl.store(parts + tl.num_programs(0).to(tl.int64) * pieces + at, tl.sum(tl.sum(g, 1), 0))


@triton.jit(do_not_specialize=["rows"])
def backward_pieces(
    dy,
    x,
    residual,
    weight,
    bias,
    mask,
    mean,
    rstd,
    parts,
    dx,
    dresidual,
    dweight_parts,
    dbias_parts,
    rows,
    length,
    pieces,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    CHANNELS: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECES: tl.constexpr,
):
    """A program takes one piece of every num_programs(0)-th row, and adds up its parameters' gradients."""
    piece = tl.program_id(1)
    column = piece.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    count = tl.full((1, 1), length, COMPUTE)
    every = tl.arange(0, PIECES)
    dweight = tl.zeros((1, BLOCK), COMPUTE)
    dbias = tl.zeros((1, BLOCK), COMPUTE)
    for number in range(tl.program_id(0), rows, tl.num_programs(0)):
        row = number + tl.arange(0, 1).to(tl.int64)
        x_hat, dz, g, scale = _piece_of_dz(
            dy, x, residual, weight, bias, mask, mean, rstd, row, column, length, mask_bytes,
            ACTIVATION, CENTER, CHANNELS, COMPUTE, EVEN)  # fmt: skip
        at = row * length + column[None, :]
        inside = inside_of(tl.arange(0, 1) == 0, column, length, EVEN)
        if dresidual is not None:
            tl.store(dresidual + at, dz.to(dresidual.dtype.element_ty), mask=inside)
        if dweight_parts is not None:
            dweight += dz * x_hat
        if dbias_parts is not None:
            dbias += dz
        if dx is not None:
            sums = parts + row * pieces + every
            along = quotient(tl.sum(tl.load(sums, mask=every < pieces, other=0.0), 0), count)
            g -= x_hat * along
            if CENTER:
                levels = tl.load(sums + rows.to(tl.int64) * pieces, mask=every < pieces, other=0.0)
                g -= quotient(tl.sum(levels, 0), count)
            tl.store(dx + at, (g * scale).to(dx.dtype.element_ty), mask=inside)
    part = tl.program_id(0).to(tl.int64) * length + column
    if dweight_parts is not None:
        tl.store(dweight_parts + part, tl.sum(dweight, 0), mask=column < length)
    if dbias_parts is not None:
        tl.store(dbias_parts + part, tl.sum(dbias, 0), mask=column < length)

"""Kernels of the rows family: moments over a row, a parameter per element of it.

Every tensor is (rows, length), dense. Two ways:

- A row fits in one tile (`*_rows`): it is read once. A program takes ROWS rows at a time.
- It does not (`*_pieces`): it is cut in pieces of BLOCK elements. One kernel reduces each piece, the next puts
  the pieces of a row together and does the rest, so that x is read twice.

How a row is cut depends on its length alone, so that its bits do not depend on what else is in the batch.
Parameters lie in the order of their own axes; where CHANNELS is not 0, rows are (space, CHANNELS) in memory
and parameters (CHANNELS, space).
"""

import triton
import triton.language as tl

from normwright.backends.triton.activation import activate, derivative
from normwright.backends.triton.mask import packed, passes, through
from normwright.backends.triton.moments import merged, quotient, root_of_squares, rstd_of, split, wide


@triton.jit
def _parameter_at(column, length, CHANNELS: tl.constexpr):
    """Where the parameter of an element of a row is."""
    if CHANNELS == 0:
        at = column
    else:
        at = column % CHANNELS * (length // CHANNELS) + column // CHANNELS
    return at


@triton.jit
def _standardised(value, inside, hi, lo, rstd):
    return tl.where(inside, ((value - hi) - lo) * rstd, 0.0)


@triton.jit
def _affine(x_hat, weight, bias, residual, parameter, column_inside, at, inside):
    """x̂·weight + bias + residual of those that are not None."""
    z = x_hat
    if weight is not None:
        z = z * tl.load(weight + parameter, mask=column_inside, other=0.0).to(z.dtype)[None, :]
    if bias is not None:
        z = z + tl.load(bias + parameter, mask=column_inside, other=0.0).to(z.dtype)[None, :]
    if residual is not None:
        z = z + tl.load(residual + at, mask=inside, other=0.0).to(z.dtype)
    return z


@triton.jit
def _moments(value, inside, length, CENTER: tl.constexpr):
    """hi, lo and m2_root of each row of a tile, as columns."""
    if CENTER:
        hi = quotient(tl.sum(value, 1, keep_dims=True), length)
        centred = tl.where(inside, value - hi, 0.0)
        lo = quotient(tl.sum(centred, 1, keep_dims=True), length)
        centred = tl.where(inside, centred - lo, 0.0)
    else:
        hi = tl.zeros((value.shape[0], 1), value.dtype)
        lo = hi
        centred = value
    return hi, lo, root_of_squares(centred, 1)


@triton.jit
def _store_activated(
    z,
    y,
    mask,
    at,
    inside,
    row,
    column,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Stores y, and the mask where it is not None."""
    tl.store(y + at, activate(z, ACTIVATION).to(y.dtype.element_ty), mask=inside)
    if mask is not None:
        bits = packed(passes(z, ACTIVATION) & inside, ROWS, BLOCK)
        byte = tl.min(column, 0) // 8 + tl.arange(0, BLOCK // 8)
        rows_inside = tl.max(inside.to(tl.int32), 1) > 0
        where = rows_inside[:, None] & (byte < mask_bytes)[None, :]
        tl.store(mask + row[:, None] * mask_bytes + byte[None, :], bits, mask=where)


@triton.jit
def _undone(
    dy, z, mask, at, inside, row, column, mask_bytes, ACTIVATION: tl.constexpr, COMPUTE: tl.constexpr
):
    """dz: dy through the activation, by its mask where it is not None."""
    dz = tl.load(dy + at, mask=inside, other=0.0).to(COMPUTE)
    if mask is not None:
        byte = row[:, None] * mask_bytes + (column // 8)[None, :]
        dz = through(dz, mask, byte, (column % 8)[None, :], inside, ACTIVATION)
    elif ACTIVATION is not None:
        dz = tl.where(inside, dz * derivative(z, ACTIVATION), 0.0)
    return dz


@triton.jit(do_not_specialize=["rows"])
def forward_rows(
    x,
    residual,
    weight,
    bias,
    y,
    mask,
    mean,
    rstd,
    rows,
    length,
    mask_bytes,
    eps: "fp64",
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    CHANNELS: tl.constexpr,
    COMPUTE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y, mean and rstd of whole rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    row_inside, column_inside = row < rows, column < length
    inside = row_inside[:, None] & column_inside[None, :]
    at = row[:, None] * length + column[None, :]
    count = tl.full((1, 1), length, COMPUTE)

    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    hi, lo, m2_root = _moments(value, inside, count, CENTER)
    scale = rstd_of(m2_root, count, tl.full((1, 1), eps, COMPUTE))
    if rstd is not None:
        tl.store(rstd + row[:, None], scale.to(tl.float64), mask=row_inside[:, None])
        if CENTER:
            tl.store(mean + row[:, None], wide(hi, lo), mask=row_inside[:, None])

    x_hat = _standardised(value, inside, hi, lo, scale)
    parameter = _parameter_at(column, length, CHANNELS)
    z = _affine(x_hat, weight, bias, residual, parameter, column_inside, at, inside)
    _store_activated(z, y, mask, at, inside, row, column, mask_bytes, ACTIVATION, ROWS, BLOCK)


@triton.jit(do_not_specialize=["rows"])
def backward_rows(
    dy,
    x,
    residual,
    weight,
    bias,
    mask,
    mean,
    rstd,
    dx,
    dresidual,
    dweight_parts,
    dbias_parts,
    rows,
    length,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    CHANNELS: tl.constexpr,
    COMPUTE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dx and dresidual of whole rows; a program takes every num_programs-th tile, and leaves one part of
    dweight and dbias."""
    column = tl.arange(0, BLOCK)
    column_inside = column < length
    parameter = _parameter_at(column, length, CHANNELS)
    count = tl.full((1, 1), length, COMPUTE)
    dweight = tl.zeros((ROWS, BLOCK), COMPUTE)
    dbias = tl.zeros((ROWS, BLOCK), COMPUTE)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = tile * ROWS + tl.arange(0, ROWS).to(tl.int64)
        row_inside = row < rows
        inside = row_inside[:, None] & column_inside[None, :]
        at = row[:, None] * length + column[None, :]
        x_hat, scale = _restandardised(x, mean, rstd, row, row_inside, at, inside, CENTER, COMPUTE)
        z = x_hat
        if ACTIVATION is not None and mask is None:
            z = _affine(x_hat, weight, bias, residual, parameter, column_inside, at, inside)
        dz = _undone(dy, z, mask, at, inside, row, column, mask_bytes, ACTIVATION, COMPUTE)
        if dresidual is not None:
            tl.store(dresidual + at, dz.to(dresidual.dtype.element_ty), mask=inside)
        if dweight_parts is not None:
            dweight += dz * x_hat
        if dbias_parts is not None:
            dbias += dz
        if dx is not None:
            g = dz
            if weight is not None:
                g = g * tl.load(weight + parameter, mask=column_inside, other=0.0).to(COMPUTE)[None, :]
            gradient = g - x_hat * quotient(tl.sum(g * x_hat, 1, keep_dims=True), count)
            if CENTER:
                gradient -= quotient(tl.sum(g, 1, keep_dims=True), count)
            tl.store(dx + at, (gradient * scale).to(dx.dtype.element_ty), mask=inside)
    part = tl.program_id(0).to(tl.int64) * length + column
    if dweight_parts is not None:
        tl.store(dweight_parts + part, tl.sum(dweight, 0), mask=column_inside)
    if dbias_parts is not None:
        tl.store(dbias_parts + part, tl.sum(dbias, 0), mask=column_inside)


@triton.jit
def _restandardised(x, mean, rstd, row, row_inside, at, inside, CENTER: tl.constexpr, COMPUTE: tl.constexpr):
    """x̂ of a tile from moments that are known, and rstd as a column."""
    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    scale = tl.load(rstd + row[:, None], mask=row_inside[:, None], other=0.0).to(COMPUTE)
    if CENTER:
        hi, lo = split(tl.load(mean + row[:, None], mask=row_inside[:, None], other=0.0), COMPUTE)
        value = (value - hi) - lo
    return tl.where(inside, value * scale, 0.0), scale


@triton.jit
def reduce_pieces(
    x,
    parts,
    length,
    pieces,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The moments of each piece of each row: parts (3, rows, pieces) take hi, lo and m2_root."""
    row, piece = tl.program_id(1).to(tl.int64), tl.program_id(0)
    column = piece.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = (column < length)[None, :]
    value = tl.load(x + row * length + column[None, :], mask=inside, other=0.0).to(COMPUTE)
    count = tl.minimum(length - piece.to(tl.int64) * BLOCK, BLOCK).to(COMPUTE)
    hi, lo, m2_root = _moments(value, inside, count, CENTER)
    at = row * pieces + piece + tl.arange(0, 1)[:, None]
    step = tl.num_programs(1).to(tl.int64) * pieces
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
    BLOCK: tl.constexpr,
    PIECES: tl.constexpr,
):
    """y of a piece, by the moments of all pieces of its row."""
    # Backwards, because the last rows that the kernel before has read are in the second cache still.
    rows = tl.num_programs(1)
    row, piece = (rows - 1 - tl.program_id(1)).to(tl.int64), pieces - 1 - tl.program_id(0)
    hi, lo, m2_root = _merged_pieces(parts, row, rows, length, pieces, BLOCK, PIECES)
    scale = rstd_of(m2_root, tl.full((1, 1), length, COMPUTE), tl.full((1, 1), eps, COMPUTE))
    one = tl.arange(0, 1)[:, None]
    if rstd is not None:
        tl.store(rstd + row + one, scale.to(tl.float64), mask=piece + one == 0)
        if CENTER:
            tl.store(mean + row + one, wide(hi, lo), mask=piece + one == 0)
    column = piece.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column_inside = column < length
    inside = column_inside[None, :]
    at = row * length + column[None, :]
    x_hat = _standardised(tl.load(x + at, mask=inside, other=0.0).to(COMPUTE), inside, hi, lo, scale)
    parameter = _parameter_at(column, length, CHANNELS)
    z = _affine(x_hat, weight, bias, residual, parameter, column_inside, at, inside)
    _store_activated(z, y, mask, at, inside, row + tl.arange(0, 1), column, mask_bytes, ACTIVATION, 1, BLOCK)


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
):
    """x̂, dz, g = dz·weight and rstd of a piece, as (1, BLOCK) and (1, 1)."""
    column_inside = column < length
    inside = column_inside[None, :]
    at = row * length + column[None, :]
    rows = row + tl.arange(0, 1)
    x_hat, scale = _restandardised(x, mean, rstd, rows, rows >= 0, at, inside, CENTER, COMPUTE)
    parameter = _parameter_at(column, length, CHANNELS)
    z = x_hat
    if ACTIVATION is not None and mask is None:
        z = _affine(x_hat, weight, bias, residual, parameter, column_inside, at, inside)
    dz = _undone(dy, z, mask, at, inside, rows, column, mask_bytes, ACTIVATION, COMPUTE)
    g = dz
    if weight is not None:
        g = g * tl.load(weight + parameter, mask=column_inside, other=0.0).to(COMPUTE)[None, :]
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
    BLOCK: tl.constexpr,
):
    """Σ g·x̂ and Σ g of each piece of each row: parts (2, rows, pieces)."""
    row, piece = tl.program_id(1).to(tl.int64), tl.program_id(0)
    column = piece.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x_hat, _, g, _ = _piece_of_dz(
        dy, x, residual, weight, bias, mask, mean, rstd, row, column, length, mask_bytes,
        ACTIVATION, CENTER, CHANNELS, COMPUTE,
    )  # fmt: skip
    at = row * pieces + piece
    tl.store(parts + at, tl.sum(tl.sum(g * x_hat, 1), 0))
    tl.store(parts + tl.num_programs(1).to(tl.int64) * pieces + at, tl.sum(tl.sum(g, 1), 0))


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
    BLOCK: tl.constexpr,
    PIECES: tl.constexpr,
):
    """A program takes one piece of every num_programs(1)-th row, and adds up its parameters' gradients."""
    piece = tl.program_id(0)
    column = piece.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column_inside = column < length
    count = tl.full((1, 1), length, COMPUTE)
    every = tl.arange(0, PIECES)
    dweight = tl.zeros((1, BLOCK), COMPUTE)
    dbias = tl.zeros((1, BLOCK), COMPUTE)
    for number in range(tl.program_id(1), rows, tl.num_programs(1)):
        row = number + tl.arange(0, 1).to(tl.int64)
        x_hat, dz, g, scale = _piece_of_dz(
            dy, x, residual, weight, bias, mask, mean, rstd, row, column, length, mask_bytes,
            ACTIVATION, CENTER, CHANNELS, COMPUTE,
        )  # fmt: skip
        at = row * length + column[None, :]
        inside = column_inside[None, :]
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
    part = tl.program_id(1).to(tl.int64) * length + column
    if dweight_parts is not None:
        tl.store(dweight_parts + part, tl.sum(dweight, 0), mask=column_inside)
    if dbias_parts is not None:
        tl.store(dbias_parts + part, tl.sum(dbias, 0), mask=column_inside)

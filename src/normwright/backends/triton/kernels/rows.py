"""Kernels of the rows family where a row fits in one tile: moments over a row, a parameter per element of it.

Every tensor is (rows, length), dense, and read once. A program takes ROWS rows at a time; how a row is cut
depends on its length alone, so that its bits do not depend on what else is in the batch. Parameters lie in
the order of their own axes; where CHANNELS is not 0, rows are (space, CHANNELS) in memory and parameters
(CHANNELS, space).
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.moments import quotient, rstd_of, two_sums, wide
from normwright.backends.triton.kernels.row_tiles import (
    added,
    inside_of,
    parameter_of,
    restandardised,
    row_moments,
    store_activated,
    undone,
)


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
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y, mean and rstd of whole rows."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_inside = row < rows
    column = tl.arange(0, BLOCK)
    inside = inside_of(row_inside, column, length, EVEN)
    at = row[:, None] * length + column[None, :]
    count = tl.full((1, 1), length, COMPUTE)

    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    centred, hi, lo, m2_root = row_moments(value, inside, count, CENTER, EVEN)
    scale = rstd_of(m2_root, count, tl.full((1, 1), eps, COMPUTE))
    if rstd is not None:
        tl.store(rstd + row[:, None], scale.to(tl.float64), mask=row_inside[:, None])
        if CENTER:
            tl.store(mean + row[:, None], wide(hi, lo), mask=row_inside[:, None])

    z = centred * scale
    if CENTER:
        z -= lo * scale
    if weight is not None:
        z = z * parameter_of(weight, column, length, CHANNELS, EVEN, COMPUTE)
    z = added(z, bias, residual, at, inside, column, length, CHANNELS, EVEN)
    store_activated(z, y, mask, at, inside, row, row_inside, column, mask_bytes, ACTIVATION, ROWS, BLOCK)


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
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """dx and dresidual of whole rows; a program takes every num_programs-th tile, and leaves one part of
    dweight and dbias."""
    column = tl.arange(0, BLOCK)
    share = quotient(tl.full((1, 1), 1.0, COMPUTE), tl.full((1, 1), length, COMPUTE))
    dweight = tl.zeros((ROWS, BLOCK), COMPUTE)
    dbias = tl.zeros((ROWS, BLOCK), COMPUTE)
    # Longer rows leave no registers for the weight, and find it in the first cache.
    KEPT: tl.constexpr = BLOCK <= 8192
    if weight is not None and KEPT:
        scales = parameter_of(weight, column, length, CHANNELS, EVEN, COMPUTE)
    for tile in tl.range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        row = tile * ROWS + tl.arange(0, ROWS).to(tl.int64)
        row_inside = row < rows
        inside = inside_of(row_inside, column, length, EVEN)
        at = row[:, None] * length + column[None, :]
        if weight is not None and not KEPT:
            scales = parameter_of(weight, column, length, CHANNELS, EVEN, COMPUTE)
        x_hat, scale = restandardised(x, mean, rstd, row, row_inside, at, inside, CENTER, COMPUTE, EVEN)
        z = x_hat
        if ACTIVATION is not None and mask is None:
            if weight is not None:
                z = z * scales
            z = added(z, bias, residual, at, inside, column, length, CHANNELS, EVEN)
        dz = undone(dy, z, mask, at, inside, row, column, mask_bytes, ACTIVATION, COMPUTE)
        if dresidual is not None:
            tl.store(dresidual + at, dz.to(dresidual.dtype.element_ty), mask=inside)
        if dweight_parts is not None:
            dweight += dz * x_hat
        if dbias_parts is not None:
            dbias += dz
        if dx is not None:
            g = dz
            if weight is not None:
                g = g * scales
            if CENTER:
                along, level = two_sums(g * x_hat, g)
                gradient = g * scale - (x_hat * (along * share) + level * share) * scale
            else:
                along = tl.sum(g * x_hat, 1, keep_dims=True)
                gradient = g * scale - x_hat * (along * share * scale)
            tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside)
    part = tl.program_id(0).to(tl.int64) * length + column
    if dweight_parts is not None:
        tl.store(dweight_parts + part, tl.sum(dweight, 0), mask=column < length)
    if dbias_parts is not None:
        tl.store(dbias_parts + part, tl.sum(dbias, 0), mask=column < length)

"""Backward kernels of the channels family. See `kernels/channels_walk.py`.

`reduce_gradients` leaves Σdz·x̂ and Σdz of each range of each strip of channels; `backward_channels` begins by
adding the ranges of its strip up, in order, and then takes its own range from the end. Where the moments are
constants, or dx is not asked for, `reduce_gradients` does it all, but for adding the ranges up.

    dx = rstd·weight·(dz - Σdz/m - x̂·Σ(dz·x̂)/m)
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import LEAKY_SLOPE, constant, derivative
from normwright.backends.triton.kernels.channels import affine_terms, known_moments
from normwright.backends.triton.kernels.channels_walk import (
    chunks_of,
    mask_bytes_at,
    range_of,
    spread,
    store_sums,
    strip_channels,
    tile_at,
)
from normwright.backends.triton.kernels.mask import unpacked
from normwright.backends.triton.kernels.moments import quotient, split


@triton.jit
def _stored_moments(mean, rstd, channel, inside, COMPUTE: tl.constexpr):
    hi, lo = split(tl.load(mean + channel, mask=inside, other=0.0).to(tl.float64), COMPUTE)
    return hi, lo, tl.load(rstd + channel, mask=inside, other=0.0).to(COMPUTE)


@triton.jit
def _tile_of_dz(
    dy, x, residual, mask, hi, low, rstd, scale, level, tile, chunks, strip, rows, width, space, row_bytes,
    strip_bytes, ACTIVATION: tl.constexpr, CHANNELS: tl.constexpr, COMPUTE: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """dz and x̂ = (x - hi)·rstd - low of a tile, 0 where x is None; their offsets and which are inside."""
    at, inside = tile_at(tile, chunks, strip, rows, width, space, CHANNELS, ROWS, BLOCK)
    dz = tl.load(dy + at, mask=inside, other=0.0).to(COMPUTE)
    x_hat = tl.zeros((1, 1), COMPUTE)
    if x is not None:
        centred = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE) - hi
        x_hat = tl.where(inside, centred * rstd - low, 0.0)
    if mask is not None:
        bytes_at, bytes_inside = mask_bytes_at(
            tile, chunks, strip, rows, row_bytes, strip_bytes, CHANNELS, ROWS, BLOCK
        )
        ones = unpacked(tl.load(mask + bytes_at, mask=bytes_inside, other=0), ROWS, BLOCK)
        if ACTIVATION == "relu":
            dz = tl.where(ones, dz, 0.0)
        else:
            dz = tl.where(ones, dz, dz * constant(dz, LEAKY_SLOPE))
    elif ACTIVATION is not None:
        z = centred * scale + level
        if residual is not None:
            z += tl.load(residual + at, mask=inside, other=0.0).to(COMPUTE)
        dz = tl.where(inside, dz * derivative(z, ACTIVATION), 0.0)
    return dz, x_hat, at, inside


@triton.jit(do_not_specialize=["rows", "channels", "width_units", "space_units", "row_bytes", "strip_bytes"])
def reduce_gradients(
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
    channels,
    width_units,
    space_units,
    row_bytes,
    strip_bytes,
    eps: "fp64",
    VARIANCE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    COMPUTE: tl.constexpr,
    WIDTH_UNIT: tl.constexpr,
    SPACE_UNIT: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    SPACE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Parts are (ranges, channels). dx is that of constant moments. VARIANCE says that rstd is a variance."""
    strip, part, ranges = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    width = width_units.to(tl.int64) * WIDTH_UNIT
    space = space_units.to(tl.int64) * SPACE_UNIT
    chunks = chunks_of(space, CHANNELS, BLOCK)
    channel, inside = strip_channels(strip, channels, CHANNELS, PADDED)
    if VARIANCE:
        hi, lo, known_rstd = known_moments(mean, rstd, channel, inside, eps, COMPUTE)
    else:
        hi, lo, known_rstd = _stored_moments(mean, rstd, channel, inside, COMPUTE)
    scale, level = affine_terms(weight, bias, channel, inside, hi, lo, known_rstd, COMPUTE)
    low = spread(lo * known_rstd, space, CHANNELS, PADDED, SPACE, BLOCK)
    hi = spread(hi, space, CHANNELS, PADDED, SPACE, BLOCK)
    known_rstd = spread(known_rstd, space, CHANNELS, PADDED, SPACE, BLOCK)
    scale = spread(scale, space, CHANNELS, PADDED, SPACE, BLOCK)
    level = spread(level, space, CHANNELS, PADDED, SPACE, BLOCK)
    along = tl.zeros((ROWS, BLOCK), COMPUTE)
    total = tl.zeros((ROWS, BLOCK), COMPUTE)
    first, last = range_of(part, ranges, rows, chunks, ROWS)
    for tile in tl.range(first, last, num_stages=STAGES):
        dz, x_hat, at, tile_inside = _tile_of_dz(
            dy, x, residual, mask, hi, low, known_rstd, scale, level, tile, chunks, strip, rows, width, space,
            row_bytes, strip_bytes, ACTIVATION, CHANNELS, COMPUTE, ROWS, BLOCK,
        )  # fmt: skip
        if dresidual is not None:
            tl.store(dresidual + at, dz.to(dresidual.dtype.element_ty), mask=tile_inside)
        if dx is not None:
            tl.store(dx + at, (dz * scale).to(dx.dtype.element_ty), mask=tile_inside)
        if dweight_parts is not None:
            along += dz * x_hat
        if dbias_parts is not None:
            total += dz
    at = part.to(tl.int64) * channels + channel
    store_sums(dweight_parts, at, along, inside, space, CHANNELS, PADDED, SPACE, BLOCK)
    store_sums(dbias_parts, at, total, inside, space, CHANNELS, PADDED, SPACE, BLOCK)


@triton.jit
def _added_ranges(parts, channel, inside, ranges, channels, RANGES: tl.constexpr):
    """Σ over the ranges, (1, PADDED)."""
    part = tl.arange(0, RANGES)[:, None]
    at = parts + part.to(tl.int64) * channels + channel
    return tl.sum(tl.load(at, mask=(part < ranges) & inside, other=0.0), 0, keep_dims=True)


@triton.jit(do_not_specialize=["rows", "channels", "width_units", "space_units", "row_bytes", "strip_bytes"])
def backward_channels(
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
    dweight,
    dbias,
    rows,
    channels,
    width_units,
    space_units,
    row_bytes,
    strip_bytes,
    ACTIVATION: tl.constexpr,
    COMPUTE: tl.constexpr,
    WIDTH_UNIT: tl.constexpr,
    SPACE_UNIT: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    SPACE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    RANGES: tl.constexpr,
):
    """dx and dresidual, from the sums of all ranges; the first range's program stores dweight and dbias."""
    ranges = tl.num_programs(1)
    strip, part = tl.num_programs(0) - 1 - tl.program_id(0), ranges - 1 - tl.program_id(1)
    width = width_units.to(tl.int64) * WIDTH_UNIT
    space = space_units.to(tl.int64) * SPACE_UNIT
    chunks = chunks_of(space, CHANNELS, BLOCK)
    channel, inside = strip_channels(strip, channels, CHANNELS, PADDED)
    along = _added_ranges(dweight_parts, channel, inside, ranges, channels, RANGES)
    total = _added_ranges(dbias_parts, channel, inside, ranges, channels, RANGES)
    if part == 0:
        if dweight is not None:
            tl.store(dweight + channel, along.to(dweight.dtype.element_ty), mask=inside)
        if dbias is not None:
            tl.store(dbias + channel, total.to(dbias.dtype.element_ty), mask=inside)
    count = tl.full((1, 1), rows.to(tl.int64) * space, COMPUTE)
    along = spread(quotient(along, count), space, CHANNELS, PADDED, SPACE, BLOCK)
    total = spread(quotient(total, count), space, CHANNELS, PADDED, SPACE, BLOCK)
    hi, lo, known_rstd = _stored_moments(mean, rstd, channel, inside, COMPUTE)
    scale, level = affine_terms(weight, bias, channel, inside, hi, lo, known_rstd, COMPUTE)
    low = spread(lo * known_rstd, space, CHANNELS, PADDED, SPACE, BLOCK)
    hi = spread(hi, space, CHANNELS, PADDED, SPACE, BLOCK)
    known_rstd = spread(known_rstd, space, CHANNELS, PADDED, SPACE, BLOCK)
    scale = spread(scale, space, CHANNELS, PADDED, SPACE, BLOCK)
    level = spread(level, space, CHANNELS, PADDED, SPACE, BLOCK)
    first, last = range_of(part, ranges, rows, chunks, ROWS)
    for number in tl.range(first, last, num_stages=STAGES):
        dz, x_hat, at, tile_inside = _tile_of_dz(
            dy, x, residual, mask, hi, low, known_rstd, scale, level, first + last - 1 - number, chunks,
            strip, rows, width, space, row_bytes, strip_bytes, ACTIVATION, CHANNELS, COMPUTE, ROWS, BLOCK,
        )  # fmt: skip
        if dresidual is not None:
            tl.store(dresidual + at, dz.to(dresidual.dtype.element_ty), mask=tile_inside)
        gradient = (dz - total - x_hat * along) * scale
        tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=tile_inside)

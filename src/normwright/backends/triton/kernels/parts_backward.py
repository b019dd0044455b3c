"""Backward kernels of the parts family. See `parts_walk.py`.

`reduce_part_gradients` leaves Σdz·x̂ and Σdz of each range of each strip of channels; `backward_parts` begins
by adding the ranges of its part up, in order, and then takes its own range from the end. So dy and x are read
twice (the residual, too, where an activation is undone), and dx and dresidual written once.

    dx = rstd·weight·(dz - Σdz/m - x̂·Σ(dz·x̂)/m)
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import derivative
from normwright.backends.triton.kernels.channels import affine_terms
from normwright.backends.triton.kernels.moments import quotient, split
from normwright.backends.triton.kernels.parts_walk import (
    over_positions,
    place_of,
    range_of,
    spread,
    strip_channels,
    tile_at,
)


@triton.jit
def _known_moments(
    moments, weight, bias, part, parts, channels, channel, known, COMPUTE: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """hi, low, rstd, scale, level of each channel: x̂ = (x - hi)·rstd - low, z = (x - hi)·scale + level."""
    at = moments + part * channels + channel
    inside = known & (part >= 0)
    hi, lo = split(tl.load(at, mask=inside, other=0.0).to(tl.float64), COMPUTE)
    at += parts.to(tl.int64) * channels
    rstd = tl.load(at, mask=inside, other=0.0).to(COMPUTE)
    scale, level = affine_terms(weight, bias, channel, known, hi, lo, rstd, COMPUTE)
    low = spread(lo * rstd, CHANNELS)
    hi, rstd = spread(hi, CHANNELS), spread(rstd, CHANNELS)
    return hi, low, rstd, spread(scale, CHANNELS), spread(level, CHANNELS)


@triton.jit
def _dz_and_x_hat(
    dy, x, residual, at, inside, hi, low, rstd, scale, level, ACTIVATION: tl.constexpr, COMPUTE: tl.constexpr
):
    """Of a tile; 0 where it is not inside."""
    dz = tl.load(dy + at, mask=inside, other=0.0).to(COMPUTE)
    centred = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE) - hi
    x_hat = tl.where(inside, centred * rstd - low, 0.0)
    if ACTIVATION is not None:
        z = centred * scale + level
        if residual is not None:
            z += tl.load(residual + at, mask=inside, other=0.0).to(COMPUTE)
        dz = tl.where(inside, dz * derivative(z, ACTIVATION), 0.0)
    return dz, x_hat


@triton.jit(do_not_specialize=["pieces", "parts", "channel_units", "space_units"])
def reduce_part_gradients(
    dy,
    x,
    residual,
    weight,
    bias,
    moments,
    along_parts,
    level_parts,
    table,
    pieces,
    parts,
    channel_units,
    space_units,
    ACTIVATION: tl.constexpr,
    COMPUTE: tl.constexpr,
    CHANNEL_UNIT: tl.constexpr,
    UNIT: tl.constexpr,
    QUICKEST: tl.constexpr,
    PIECES: tl.constexpr,
    LENGTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Σdz·x̂ and Σdz, (ranges, channels) each."""
    channels = channel_units.to(tl.int64) * CHANNEL_UNIT
    space = space_units.to(tl.int64) * UNIT
    number, strip, _ = place_of(tl.program_id(0), channels, CHANNELS)
    part, first, last, _, _, _, _ = range_of(table, pieces, number)
    channel, known = strip_channels(strip, channels, CHANNELS)
    hi, low, rstd, scale, level = _known_moments(
        moments, weight, bias, part, parts, channels, channel, known, COMPUTE, CHANNELS
    )
    along = tl.zeros((PIECES, LENGTH, CHANNELS), COMPUTE)
    total = tl.zeros((PIECES, LENGTH, CHANNELS), COMPUTE)
    for tile in tl.range(first, last, num_stages=STAGES):
        at, inside = tile_at(
            table, pieces, tile, strip, channels, space, UNIT, QUICKEST, PIECES, LENGTH, CHANNELS
        )
        dz, x_hat = _dz_and_x_hat(
            dy, x, residual, at, inside, hi, low, rstd, scale, level, ACTIVATION, COMPUTE
        )
        along += dz * x_hat
        total += dz
    to = number.to(tl.int64) * channels + channel
    tl.store(along_parts + to, over_positions(along), mask=known)
    tl.store(level_parts + to, over_positions(total), mask=known)


@triton.jit
def _mean_of(sums, first, last, count, channels, channel, known, RANGES: tl.constexpr):
    """Σ over the ranges of a part, over its positions, (1, CHANNELS)."""
    number = first + tl.arange(0, RANGES)[:, None]
    at = sums + number * channels + channel
    total = tl.sum(tl.load(at, mask=(number < last) & known, other=0.0), 0, keep_dims=True)
    return quotient(total, tl.full((1, 1), count, total.dtype))


@triton.jit(do_not_specialize=["pieces", "parts", "channel_units", "space_units"])
def backward_parts(
    dy,
    x,
    residual,
    weight,
    bias,
    moments,
    along_parts,
    level_parts,
    dx,
    dresidual,
    table,
    pieces,
    parts,
    channel_units,
    space_units,
    ACTIVATION: tl.constexpr,
    COMPUTE: tl.constexpr,
    CHANNEL_UNIT: tl.constexpr,
    UNIT: tl.constexpr,
    QUICKEST: tl.constexpr,
    PIECES: tl.constexpr,
    LENGTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
    RANGES: tl.constexpr,
):
    """dx, from the sums of all ranges of a part, and dresidual; 0 where no part is."""
    channels = channel_units.to(tl.int64) * CHANNEL_UNIT
    space = space_units.to(tl.int64) * UNIT
    number, strip, _ = place_of(tl.num_programs(0) - 1 - tl.program_id(0), channels, CHANNELS)
    part, first, last, first_range, last_range, _, count = range_of(table, pieces, number)
    counts = part >= 0
    channel, known = strip_channels(strip, channels, CHANNELS)
    hi, low, rstd, scale, level = _known_moments(
        moments, weight, bias, part, parts, channels, channel, known, COMPUTE, CHANNELS
    )
    if dx is not None:
        along = _mean_of(along_parts, first_range, last_range, count, channels, channel, known, RANGES)
        total = _mean_of(level_parts, first_range, last_range, count, channels, channel, known, RANGES)
        along, total = spread(along, CHANNELS), spread(total, CHANNELS)
    for step in tl.range(first, last, num_stages=STAGES):
        tile = first + last - 1 - step
        at, inside = tile_at(
            table, pieces, tile, strip, channels, space, UNIT, QUICKEST, PIECES, LENGTH, CHANNELS
        )
        dz, x_hat = _dz_and_x_hat(
            dy, x, residual, at, inside & counts, hi, low, rstd, scale, level, ACTIVATION, COMPUTE
        )
        if dresidual is not None:
            tl.store(dresidual + at, dz.to(dresidual.dtype.element_ty), mask=inside)
        if dx is not None:
            gradient = tl.where(counts, (dz - total - x_hat * along) * scale, 0.0)
            tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside)

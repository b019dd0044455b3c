"""Dynamic tanh: y = tanh(alpha·x)·weight + bias, which reduces nothing. See `channels_walk.py`.

x is read once and y written once; the backward reads dy and x once, writes dx, and leaves the sums of each
range of each strip of channels, which `parameters.py` adds up.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import activate
from normwright.backends.triton.kernels.channels_walk import (
    chunks_of,
    range_of,
    spread,
    store_sums,
    strip_channels,
    tile_at,
)


@triton.jit
def _slope(alpha, COMPUTE: tl.constexpr):
    return tl.load(alpha + tl.arange(0, 1)[None, :]).to(COMPUTE)


@triton.jit
def _scale(weight, channel, inside, COMPUTE: tl.constexpr):
    scale = tl.full(channel.shape, 1.0, COMPUTE)
    if weight is not None:
        scale = tl.load(weight + channel, mask=inside, other=0.0).to(COMPUTE)
    return scale


@triton.jit(do_not_specialize=["rows", "channels", "width_units", "space_units"])
def squash_channels(
    x,
    alpha,
    weight,
    bias,
    y,
    rows,
    channels,
    width_units,
    space_units,
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
    """y."""
    strip, part, ranges = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    width = width_units.to(tl.int64) * WIDTH_UNIT
    space = space_units.to(tl.int64) * SPACE_UNIT
    chunks = chunks_of(space, CHANNELS, BLOCK)
    channel, inside = strip_channels(strip, channels, CHANNELS, PADDED)
    slope, scale = _slope(alpha, COMPUTE), _scale(weight, channel, inside, COMPUTE)
    level = tl.zeros(channel.shape, COMPUTE)
    if bias is not None:
        level = tl.load(bias + channel, mask=inside, other=0.0).to(COMPUTE)
    scale = spread(scale, space, CHANNELS, PADDED, SPACE, BLOCK)
    level = spread(level, space, CHANNELS, PADDED, SPACE, BLOCK)
    first, last = range_of(part, ranges, rows, chunks, ROWS)
    for tile in tl.range(first, last, num_stages=STAGES):
        at, tile_inside = tile_at(tile, chunks, strip, rows, width, space, CHANNELS, ROWS, BLOCK)
        z = tl.load(x + at, mask=tile_inside, other=0.0).to(COMPUTE) * slope
        value = activate(z, "tanh") * scale + level
        tl.store(y + at, value.to(y.dtype.element_ty), mask=tile_inside)


@triton.jit(do_not_specialize=["rows", "channels", "width_units", "space_units"])
def squash_gradients(
    dy,
    x,
    alpha,
    weight,
    dx,
    dalpha_parts,
    dweight_parts,
    dbias_parts,
    rows,
    channels,
    width_units,
    space_units,
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
    """dx, and the parts of the other gradients, (ranges, channels), of those that are asked for."""
    strip, part, ranges = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    width = width_units.to(tl.int64) * WIDTH_UNIT
    space = space_units.to(tl.int64) * SPACE_UNIT
    chunks = chunks_of(space, CHANNELS, BLOCK)
    channel, inside = strip_channels(strip, channels, CHANNELS, PADDED)
    slope, scale = _slope(alpha, COMPUTE), _scale(weight, channel, inside, COMPUTE)
    scale = spread(scale, space, CHANNELS, PADDED, SPACE, BLOCK)
    slopes = tl.zeros((ROWS, BLOCK), COMPUTE)
    along = tl.zeros((ROWS, BLOCK), COMPUTE)
    total = tl.zeros((ROWS, BLOCK), COMPUTE)
    first, last = range_of(part, ranges, rows, chunks, ROWS)
    for tile in tl.range(first, last, num_stages=STAGES):
        at, tile_inside = tile_at(tile, chunks, strip, rows, width, space, CHANNELS, ROWS, BLOCK)
        dt = tl.load(dy + at, mask=tile_inside, other=0.0).to(COMPUTE)
        value = tl.load(x + at, mask=tile_inside, other=0.0).to(COMPUTE)
        t = activate(value * slope, "tanh")
        dz = dt * (1.0 - t * t) * scale
        if dx is not None:
            tl.store(dx + at, (dz * slope).to(dx.dtype.element_ty), mask=tile_inside)
        if dalpha_parts is not None:
            slopes += dz * value
        if dweight_parts is not None:
            along += dt * t
        if dbias_parts is not None:
            total += dt
    at = part.to(tl.int64) * channels + channel
    store_sums(dalpha_parts, at, slopes, inside, space, CHANNELS, PADDED, SPACE, BLOCK)
    store_sums(dweight_parts, at, along, inside, space, CHANNELS, PADDED, SPACE, BLOCK)
    store_sums(dbias_parts, at, total, inside, space, CHANNELS, PADDED, SPACE, BLOCK)

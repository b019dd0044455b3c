"""Forward kernels of the parts family: moments over some positions of every channel. See `parts_walk.py`.

`reduce_parts` leaves the moments of each range of each strip of channels; `forward_parts` begins by putting
the ranges of its part together, in order, and then takes its own range from the end, because what the kernel
before has read last is in the second cache still. So x is read twice, the residual once, and y written once;
where no part is, y is only written.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import activate
from normwright.backends.triton.kernels.channels import affine_terms
from normwright.backends.triton.kernels.moments import SHRINK, split
from normwright.backends.triton.kernels.parts_walk import (
    counts_of,
    first_at,
    over_positions,
    place_of,
    range_of,
    spread,
    strip_channels,
    tile_at,
)
from normwright.backends.triton.kernels.ranges import STRETCH_SQUARE, few_digits, m2_of, put_together


@triton.jit
def _shift(
    x, table, pieces, tile, strip, channels, space, COMPUTE: tl.constexpr, UNIT: tl.constexpr,
    QUICKEST: tl.constexpr, PIECES: tl.constexpr, LENGTH: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The mean of a tile, taken about its first position: a constant has exactly itself."""
    at, inside = tile_at(
        table, pieces, tile, strip, channels, space, UNIT, QUICKEST, PIECES, LENGTH, CHANNELS
    )
    base_at, base_inside = first_at(
        table, pieces, tile, strip, channels, space, UNIT, QUICKEST, PIECES, LENGTH, CHANNELS
    )
    base = tl.load(x + base_at, mask=base_inside, other=0.0).to(COMPUTE)
    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    total = over_positions(tl.where(inside, value - base, 0.0))
    count = over_positions(inside)
    return base + spread(few_digits((total / tl.maximum(count, 1.0)).to(COMPUTE)), CHANNELS)


@triton.jit
def _sums(
    x, shift, first, last, table, pieces, strip, channels, space, SMALL: tl.constexpr, COMPUTE: tl.constexpr,
    UNIT: tl.constexpr, QUICKEST: tl.constexpr, PIECES: tl.constexpr, LENGTH: tl.constexpr,
    CHANNELS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Σ(x - shift) and Σ(x - shift)² of each channel in a range of tiles, in float64."""
    total = tl.zeros((PIECES, LENGTH, CHANNELS), COMPUTE)
    squares = tl.zeros((PIECES, LENGTH, CHANNELS), COMPUTE)
    for tile in tl.range(first, last, num_stages=STAGES):
        at, inside = tile_at(
            table, pieces, tile, strip, channels, space, UNIT, QUICKEST, PIECES, LENGTH, CHANNELS
        )
        deviation = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE) - shift
        deviation = tl.where(inside, deviation, 0.0)
        if SMALL:
            deviation *= SHRINK
        total += deviation
        squares += deviation * deviation
    return over_positions(total), over_positions(squares)


@triton.jit(do_not_specialize=["pieces", "channel_units", "space_units"])
def reduce_parts(
    x,
    sums,
    table,
    pieces,
    channel_units,
    space_units,
    COMPUTE: tl.constexpr,
    CHANNEL_UNIT: tl.constexpr,
    UNIT: tl.constexpr,
    QUICKEST: tl.constexpr,
    PIECES: tl.constexpr,
    LENGTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Mean and M2 of each channel in each range of a part, sums (2, ranges, channels), in float64."""
    channels = channel_units.to(tl.int64) * CHANNEL_UNIT
    space = space_units.to(tl.int64) * UNIT
    number, strip, ranges = place_of(tl.program_id(0), channels, CHANNELS)
    _, first, last, _, _, here, _ = range_of(table, pieces, number)
    shift = _shift(
        x, table, pieces, first, strip, channels, space, COMPUTE, UNIT, QUICKEST, PIECES, LENGTH, CHANNELS
    )
    total, squares = _sums(
        x, shift, first, last, table, pieces, strip, channels, space, False, COMPUTE, UNIT, QUICKEST, PIECES,
        LENGTH, CHANNELS, STAGES,
    )  # fmt: skip
    count = here.to(tl.float64)
    mean = tl.reshape(shift, (1, CHANNELS)).to(tl.float64) + total / count
    m2 = m2_of(total, squares, count)
    overflowed = squares == float("inf")
    if tl.max(overflowed.to(tl.int32)) > 0:
        total, squares = _sums(
            x, shift, first, last, table, pieces, strip, channels, space, True, COMPUTE, UNIT, QUICKEST,
            PIECES, LENGTH, CHANNELS, 1,
        )  # fmt: skip
        m2 = tl.where(overflowed, m2_of(total, squares, count) * STRETCH_SQUARE, m2)
    channel, known = strip_channels(strip, channels, CHANNELS)
    at = sums + number.to(tl.int64) * channels + channel
    tl.store(at, mean, mask=known)
    tl.store(at + ranges * channels, m2, mask=known)


@triton.jit
def _moments_of(sums, table, pieces, first, last, ranges, channels, channel, known, RANGES: tl.constexpr):
    """Mean and M2 of some channels in a part, a row in float64, from what `reduce_parts` left."""
    number = first + tl.arange(0, RANGES)[:, None]
    where = (number < last) & known
    at = sums + number * channels + channel
    mean = tl.load(at, mask=where, other=0.0)
    m2 = tl.load(at + ranges * channels, mask=where, other=0.0)
    return put_together(mean, m2, counts_of(table, pieces, number, number < last))


@triton.jit(do_not_specialize=["pieces", "parts", "ranges", "channel_units", "space_units"])
def forward_parts(
    x,
    residual,
    weight,
    bias,
    y,
    moments,
    sums,
    table,
    pieces,
    parts,
    ranges,
    channel_units,
    space_units,
    eps: "fp64",
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
    """y, 0 where no part is; the program of a part's first range stores its moments, (3, parts, channels).

    `ranges` are those of parts; there may be more, of no part.
    """
    channels = channel_units.to(tl.int64) * CHANNEL_UNIT
    space = space_units.to(tl.int64) * UNIT
    number, strip, _ = place_of(tl.num_programs(0) - 1 - tl.program_id(0), channels, CHANNELS)
    part, first, last, first_range, last_range, _, count = range_of(table, pieces, number)
    counts = part >= 0
    channel, known = strip_channels(strip, channels, CHANNELS)
    mean, m2 = _moments_of(
        sums, table, pieces, first_range, last_range, ranges, channels, channel, known, RANGES
    )
    variance = m2 / count.to(tl.float64)
    rstd = 1.0 / tl.sqrt(variance + eps)
    if number == first_range:
        at, step = moments + part * channels + channel, parts.to(tl.int64) * channels
        tl.store(at, mean.to(moments.dtype.element_ty), mask=known & counts)
        tl.store(at + step, rstd.to(moments.dtype.element_ty), mask=known & counts)
        tl.store(at + 2 * step, variance.to(moments.dtype.element_ty), mask=known & counts)
    hi, lo = split(mean, COMPUTE)
    scale, level = affine_terms(weight, bias, channel, known, hi, lo, rstd.to(COMPUTE), COMPUTE)
    hi, scale, level = spread(hi, CHANNELS), spread(scale, CHANNELS), spread(level, CHANNELS)
    for step in tl.range(first, last, num_stages=STAGES):
        tile = first + last - 1 - step
        at, inside = tile_at(
            table, pieces, tile, strip, channels, space, UNIT, QUICKEST, PIECES, LENGTH, CHANNELS
        )
        z = (tl.load(x + at, mask=inside & counts, other=0.0).to(COMPUTE) - hi) * scale + level
        if residual is not None:
            beside = tl.load(residual + at, mask=inside & counts, other=0.0, eviction_policy="evict_first")
            z += beside.to(COMPUTE)
        value = tl.where(counts, activate(z, ACTIVATION), 0.0).to(y.dtype.element_ty)
        tl.store(y + at, value, mask=inside, eviction_policy="evict_first")

"""Forward kernels of the channels family: moments over all but the channel axis. See `channels_walk.py`.

`reduce_channels` leaves the moments of each range of each strip of channels; `forward_channels` begins by
putting the ranges of its strip together, in order, and then takes its own range from the end, because what
the kernel before has read last is in the second cache still. `affine_channels` knows the moments.

Sums are of x - shift (`ranges.py`), the shift being the mean of the channel in the first tile of a range.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import activate
from normwright.backends.triton.kernels.channels_walk import (
    chunks_of,
    first_at,
    mask_bytes_at,
    over_channels,
    over_columns,
    range_of,
    seen_in,
    spread,
    strip_channels,
    tile_at,
)
from normwright.backends.triton.kernels.mask import packed, passes
from normwright.backends.triton.kernels.moments import SHRINK, split
from normwright.backends.triton.kernels.ranges import STRETCH_SQUARE, few_digits, m2_of, put_together
from normwright.backends.triton.kernels.running import count_batch, in_float64, move_running


@triton.jit
def _shift(
    x, first, chunks, strip, rows, width, space,
    CHANNELS: tl.constexpr, COMPUTE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The mean of the first tile, taken about its first element: a constant has exactly itself."""
    at, inside = tile_at(first, chunks, strip, rows, width, space, CHANNELS, ROWS, BLOCK)
    base_at, base_inside = first_at(first, chunks, strip, width, space, CHANNELS, ROWS, BLOCK)
    base = tl.load(x + base_at, mask=base_inside, other=0.0).to(COMPUTE)
    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    total = over_columns(tl.where(inside, value - base, 0.0), CHANNELS)
    count = over_columns(inside.to(tl.int32), CHANNELS)
    return base + few_digits((total / tl.maximum(count, 1.0)).to(COMPUTE))


@triton.jit
def _sums(
    x, shift, first, last, chunks, strip, rows, width, space, SMALL: tl.constexpr,
    CHANNELS: tl.constexpr, COMPUTE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Σ(x - shift) and Σ(x - shift)² of each column, or of one channel, in a range of tiles, in float64."""
    total = tl.zeros((ROWS, BLOCK), COMPUTE)
    squares = tl.zeros((ROWS, BLOCK), COMPUTE)
    for tile in tl.range(first, last, num_stages=STAGES):
        at, inside = tile_at(tile, chunks, strip, rows, width, space, CHANNELS, ROWS, BLOCK)
        deviation = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE) - shift
        deviation = tl.where(inside, deviation, 0.0)
        if SMALL:
            deviation *= SHRINK
        total += deviation
        squares += deviation * deviation
    return over_columns(total, CHANNELS), over_columns(squares, CHANNELS)


@triton.jit(do_not_specialize=["rows", "channels", "width_units", "space_units"])
def reduce_channels(
    x,
    parts,
    counter,
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
    """Mean and M2 of each channel in each range, parts (2, ranges, channels), and after them the elements of
    each range, (ranges,); in float64. Counts the batch, too."""
    strip, part, ranges = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    width = width_units.to(tl.int64) * WIDTH_UNIT
    space = space_units.to(tl.int64) * SPACE_UNIT
    chunks = chunks_of(space, CHANNELS, BLOCK)
    if counter is not None and strip + part == 0:
        count_batch(counter)
    first, last = range_of(part, ranges, rows, chunks, ROWS)
    shift = _shift(x, first, chunks, strip, rows, width, space, CHANNELS, COMPUTE, ROWS, BLOCK)
    total, squares = _sums(
        x, shift, first, last, chunks, strip, rows, width, space, False, CHANNELS, COMPUTE, ROWS, BLOCK,
        STAGES,
    )  # fmt: skip
    seen = seen_in(first, last, rows, space, chunks, CHANNELS, ROWS, BLOCK)
    count = seen.to(tl.float64)
    mean = shift.to(tl.float64) + total / count
    m2 = m2_of(total, squares, count)
    overflowed = squares == float("inf")
    if tl.max(overflowed.to(tl.int32)) > 0:
        total, squares = _sums(
            x, shift, first, last, chunks, strip, rows, width, space, True, CHANNELS, COMPUTE, ROWS, BLOCK, 1
        )
        m2 = tl.where(overflowed, m2_of(total, squares, count) * STRETCH_SQUARE, m2)
    if SPACE != 1:
        # The columns of a channel have as many elements each.
        middle = over_channels(mean, space, PADDED, SPACE, BLOCK) / space
        apart = mean - spread(middle, space, CHANNELS, PADDED, SPACE, BLOCK)
        m2 = over_channels(m2 + apart * apart * count, space, PADDED, SPACE, BLOCK)
        mean = middle
    if CHANNELS != 1:
        count *= space
    channel, inside = strip_channels(strip, channels, CHANNELS, PADDED)
    at = parts + part.to(tl.int64) * channels + channel
    step = ranges.to(tl.int64) * channels
    tl.store(at, mean, mask=inside)
    tl.store(at + step, m2, mask=inside)
    tl.store(parts + 2 * step + part, count)


@triton.jit
def _merged_ranges(parts, channel, inside, ranges, channels, RANGES: tl.constexpr):
    """Mean and M2 of some channels, a row in float64, from what `reduce_channels` left."""
    part = tl.arange(0, RANGES)[:, None]
    where = (part < ranges) & inside
    at = parts + part.to(tl.int64) * channels + channel
    step = ranges.to(tl.int64) * channels
    mean = tl.load(at, mask=where, other=0.0)
    m2 = tl.load(at + step, mask=where, other=0.0)
    count = tl.load(parts + 2 * step + part, mask=part < ranges, other=0.0)
    return put_together(mean, m2, count)


@triton.jit(do_not_specialize=["elements", "channels", "ranges"])
def merge_channels(
    parts, counted, mean, m2, elements, channels, ranges, BLOCK: tl.constexpr, RANGES: tl.constexpr
):
    """Count, mean and M2 of each channel, of `elements` elements each."""
    channel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = channel < channels
    known_mean, known_m2 = _merged_ranges(parts, channel, inside, ranges, channels, RANGES)
    tl.store(mean + channel, known_mean.to(mean.dtype.element_ty), mask=inside)
    tl.store(m2 + channel, known_m2.to(m2.dtype.element_ty), mask=inside)
    tl.store(counted, elements.to(counted.dtype.element_ty))


@triton.jit
def affine_terms(weight, bias, channel, inside, hi, lo, rstd, COMPUTE: tl.constexpr):
    """scale and level of each channel: z is (x - hi)·scale + level."""
    scale = rstd
    if weight is not None:
        scale = scale * tl.load(weight + channel, mask=inside, other=0.0).to(COMPUTE)
    level = -lo * scale
    if bias is not None:
        level = tl.load(bias + channel, mask=inside, other=0.0).to(COMPUTE) + level
    return scale, level


@triton.jit
def _store_range(
    x, residual, y, mask, hi, scale, level, first, last, chunks, strip, rows, width, space, row_bytes,
    strip_bytes, ACTIVATION: tl.constexpr, CHANNELS: tl.constexpr, COMPUTE: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """y of a range of tiles, from its end."""
    for number in tl.range(first, last, num_stages=STAGES):
        tile = first + last - 1 - number
        at, inside = tile_at(tile, chunks, strip, rows, width, space, CHANNELS, ROWS, BLOCK)
        z = (tl.load(x + at, mask=inside, other=0.0).to(COMPUTE) - hi) * scale + level
        if residual is not None:
            z += tl.load(residual + at, mask=inside, other=0.0, eviction_policy="evict_first").to(COMPUTE)
        value = activate(z, ACTIVATION).to(y.dtype.element_ty)
        tl.store(y + at, value, mask=inside, eviction_policy="evict_first")
        if mask is not None:
            bytes_at, bytes_inside = mask_bytes_at(
                tile, chunks, strip, rows, row_bytes, strip_bytes, CHANNELS, ROWS, BLOCK
            )
            tl.store(mask + bytes_at, packed(passes(z, ACTIVATION) & inside, ROWS, BLOCK), mask=bytes_inside)


@triton.jit(
    do_not_specialize=[
        "rows",
        "channels",
        "width_units",
        "space_units",
        "row_bytes",
        "strip_bytes",
        "mean_stride",
        "var_stride",
    ]
)
def forward_channels(
    x,
    residual,
    weight,
    bias,
    y,
    mask,
    mean,
    rstd,
    parts,
    running_mean,
    running_var,
    counter,
    rows,
    channels,
    width_units,
    space_units,
    row_bytes,
    strip_bytes,
    mean_stride,
    var_stride,
    momentum: "fp64",
    eps: "fp64",
    CUMULATIVE: tl.constexpr,
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
    """y and the mask. The first range's program stores the moments, and moves the running ones."""
    ranges = tl.num_programs(1)
    strip, part = tl.num_programs(0) - 1 - tl.program_id(0), ranges - 1 - tl.program_id(1)
    width = width_units.to(tl.int64) * WIDTH_UNIT
    space = space_units.to(tl.int64) * SPACE_UNIT
    chunks = chunks_of(space, CHANNELS, BLOCK)
    channel, inside = strip_channels(strip, channels, CHANNELS, PADDED)
    known_mean, m2 = _merged_ranges(parts, channel, inside, ranges, channels, RANGES)
    count = tl.full((1, 1), rows.to(tl.int64) * space, tl.float64)
    known_rstd = 1.0 / tl.sqrt(m2 / count + eps)
    if part == 0:
        tl.store(mean + channel, known_mean.to(mean.dtype.element_ty), mask=inside)
        tl.store(rstd + channel, known_rstd.to(rstd.dtype.element_ty), mask=inside)
        if running_mean is not None:
            move_running(
                running_mean, running_var, counter, channel, inside, known_mean, m2, count, mean_stride,
                var_stride, momentum, CUMULATIVE, x.dtype.element_ty.primitive_bitwidth == 16,
            )  # fmt: skip
    hi, lo = split(known_mean, COMPUTE)
    scale = known_rstd.to(COMPUTE)
    scale, level = affine_terms(weight, bias, channel, inside, hi, lo, scale, COMPUTE)
    hi = spread(hi, space, CHANNELS, PADDED, SPACE, BLOCK)
    scale = spread(scale, space, CHANNELS, PADDED, SPACE, BLOCK)
    level = spread(level, space, CHANNELS, PADDED, SPACE, BLOCK)
    first, last = range_of(part, ranges, rows, chunks, ROWS)
    _store_range(
        x, residual, y, mask, hi, scale, level, first, last, chunks, strip, rows, width, space, row_bytes,
        strip_bytes, ACTIVATION, CHANNELS, COMPUTE, ROWS, BLOCK, STAGES,
    )  # fmt: skip


@triton.jit
def known_moments(mean, variance, channel, inside, eps, COMPUTE: tl.constexpr):
    """hi, lo and rstd from a given mean and variance."""
    hi, lo = split(in_float64(tl.load(mean + channel, mask=inside, other=0.0)), COMPUTE)
    squared = in_float64(tl.load(variance + channel, mask=inside, other=1.0)) + eps
    return hi, lo, (1.0 / tl.sqrt(squared)).to(COMPUTE)


@triton.jit(do_not_specialize=["rows", "channels", "width_units", "space_units"])
def affine_channels(
    x,
    residual,
    weight,
    bias,
    mean,
    variance,
    y,
    rows,
    channels,
    width_units,
    space_units,
    eps: "fp64",
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
    """y, from moments that are given."""
    strip, part, ranges = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    width = width_units.to(tl.int64) * WIDTH_UNIT
    space = space_units.to(tl.int64) * SPACE_UNIT
    chunks = chunks_of(space, CHANNELS, BLOCK)
    channel, inside = strip_channels(strip, channels, CHANNELS, PADDED)
    hi, lo, rstd = known_moments(mean, variance, channel, inside, eps, COMPUTE)
    scale, level = affine_terms(weight, bias, channel, inside, hi, lo, rstd, COMPUTE)
    hi = spread(hi, space, CHANNELS, PADDED, SPACE, BLOCK)
    scale = spread(scale, space, CHANNELS, PADDED, SPACE, BLOCK)
    level = spread(level, space, CHANNELS, PADDED, SPACE, BLOCK)
    first, last = range_of(part, ranges, rows, chunks, ROWS)
    _store_range(
        x, residual, y, None, hi, scale, level, first, last, chunks, strip, rows, width, space, 0, 0,
        ACTIVATION, CHANNELS, COMPUTE, ROWS, BLOCK, STAGES,
    )  # fmt: skip

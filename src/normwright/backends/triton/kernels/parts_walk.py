"""Where a program of the parts family is in memory, by the table that `parts_plan.py` lays out.

A tile is PIECES by LENGTH by CHANNELS: so many pieces of the table, each of at most LENGTH positions; what a
piece has fewer is outside. A program takes a strip of CHANNELS channels and a range of tiles, all of one
part, in order. QUICKEST says that channels are quickest in memory; else positions are, and a piece lies
within a sample. What is known of each channel is a row, (1, CHANNELS), or spread, (1, 1, CHANNELS).

The table, in int64: where each piece begins (the number of its first position; where positions are quickest,
its place in memory), how long each is, both in UNIT; then a row of `RANGE` numbers for each range.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.channels_walk import spread as spread_channels

# Of a range: its part, or -1 where it is of none; its first tile, and the first beyond it; the first range of
# its part, and the first beyond that; the positions in it, and those in its part.
RANGE = tl.constexpr(7)
_HERE = tl.constexpr(5)


@triton.jit
def place_of(program, channels, CHANNELS: tl.constexpr):
    """A program's range and strip, and the number of ranges: those of a range lie side by side in memory."""
    strips = (channels + CHANNELS - 1) // CHANNELS
    return program // strips, program % strips, tl.num_programs(0) // strips


@triton.jit
def range_of(table, pieces, number):
    """The numbers of a range."""
    at = table + 2 * pieces.to(tl.int64) + number.to(tl.int64) * RANGE
    first, last = tl.load(at + 1).to(tl.int32), tl.load(at + 2).to(tl.int32)
    return tl.load(at), first, last, tl.load(at + 3), tl.load(at + 4), tl.load(at + 5), tl.load(at + 6)


@triton.jit
def counts_of(table, pieces, number, inside):
    """The positions in some ranges, 0 where not inside; in float64."""
    at = table + 2 * pieces.to(tl.int64) + number * RANGE + _HERE
    return tl.load(at, mask=inside, other=0).to(tl.float64)


@triton.jit
def strip_channels(strip, channels, CHANNELS: tl.constexpr):
    """The channels of a strip and which of them there are, (1, CHANNELS)."""
    channel = strip.to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return channel, channel < channels


@triton.jit
def _places_at(
    entry, along, pieces, strip, channels, space,
    UNIT: tl.constexpr, QUICKEST: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    position = tl.load(entry) * UNIT + along
    inside = along < tl.load(entry + pieces) * UNIT
    channel, known = strip_channels(strip, channels, CHANNELS)
    channel, known = channel[None, :, :], known[None, :, :]
    if QUICKEST:
        at = position * channels + channel
    else:
        at = position + channel * space
    return at, inside & known


@triton.jit
def tile_at(
    table, pieces, tile, strip, channels, space, UNIT: tl.constexpr, QUICKEST: tl.constexpr,
    PIECES: tl.constexpr, LENGTH: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Offsets of a tile's elements and which of them are inside."""
    piece = tl.full((1, 1, 1), tile, tl.int64) * PIECES + tl.arange(0, PIECES)[:, None, None]
    along = tl.arange(0, LENGTH)[None, :, None]
    return _places_at(table + piece, along, pieces, strip, channels, space, UNIT, QUICKEST, CHANNELS)


@triton.jit
def first_at(
    table, pieces, tile, strip, channels, space, UNIT: tl.constexpr, QUICKEST: tl.constexpr,
    PIECES: tl.constexpr, LENGTH: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The same of a tile's first position, (1, 1, CHANNELS)."""
    piece = tl.full((1, 1, 1), tile, tl.int64) * PIECES
    along = tl.arange(0, 1)[None, :, None]
    return _places_at(table + piece, along, pieces, strip, channels, space, UNIT, QUICKEST, CHANNELS)


@triton.jit
def spread(row, CHANNELS: tl.constexpr):
    """What is known of each channel, gathered for the columns of a tile: see `channels_walk.spread`."""
    return spread_channels(row, 1, CHANNELS, CHANNELS, 1, CHANNELS)[None, :, :]


@triton.jit
def over_positions(tile):
    """Σ over the positions of a tile, a row; in float64."""
    return tl.sum(tl.sum(tile.to(tl.float64), 0), 0)[None, :]

"""Where a program of the channels family is in memory, and what of its tile belongs to one channel.

Every tensor is a dense matrix (rows, width), width = channels·space: (N, C·S), or (N·S, C) where the channels
are quickest, whose space is 1. A program takes a strip of CHANNELS channels, and of that strip a range of its
tiles of ROWS by BLOCK, in order. The strip is one of three:

- one channel of a long space, in chunks of BLOCK;
- channels that are quickest, CHANNELS = BLOCK = PADDED, SPACE = 1;
- some channels of a short space, whole, CHANNELS·space of the BLOCK; to tell them apart they are gathered
  into PADDED channels by SPACE, the next powers of two (SPACE is 1 in the other two).

What is known of each channel is a row: (1, PADDED), or spread over the columns of a tile, (1, BLOCK); (1, 1)
where the strip is one channel.
"""

import triton
import triton.language as tl


@triton.jit
def chunks_of(space, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Tiles side by side in a strip."""
    if CHANNELS == 1:
        chunks = ((space + BLOCK - 1) // BLOCK).to(tl.int32)
    else:
        chunks = space.to(tl.int32) * 0 + 1
    return chunks


@triton.jit
def range_of(part, ranges, rows, chunks, ROWS: tl.constexpr):
    """The first tile of a range, and the first beyond it."""
    tiles = tl.cdiv(rows.to(tl.int64), ROWS) * chunks
    first = part.to(tl.int64) * tiles // ranges
    last = (part.to(tl.int64) + 1) * tiles // ranges
    return first.to(tl.int32), last.to(tl.int32)


@triton.jit
def _seen_before(tile, rows, space, chunks, CHANNELS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Elements of a channel, or of a column of one of several channels, in the tiles before this one."""
    group = (tile // chunks).to(tl.int64)
    above = tl.minimum(group * ROWS, rows)
    seen = above
    if CHANNELS == 1:
        left = tl.minimum((tile % chunks).to(tl.int64) * BLOCK, space)
        seen = above * space + (tl.minimum(above + ROWS, rows) - above) * left
    return seen


@triton.jit
def seen_in(
    first, last, rows, space, chunks, CHANNELS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Elements of a channel, or of a column of one of several channels, in a range of tiles."""
    before = _seen_before(first, rows, space, chunks, CHANNELS, ROWS, BLOCK)
    return _seen_before(last, rows, space, chunks, CHANNELS, ROWS, BLOCK) - before


@triton.jit
def tile_at(
    tile, chunks, strip, rows, width, space, CHANNELS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Offsets of a tile's elements and which of them are inside."""
    group = tile // chunks
    row = tl.full((ROWS, 1), group, tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.full((1, BLOCK), tile - group * chunks, tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    start = strip.to(tl.int64) * CHANNELS * space
    if CHANNELS == 1:
        inside = column < space
    else:
        inside = start + column < width
        if CHANNELS != BLOCK:  # else the strip has no other columns
            inside = inside & (column < space * CHANNELS)
    return row * width + (start + column), (row < rows) & inside


@triton.jit
def first_at(
    tile, chunks, strip, width, space, CHANNELS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Offsets of a tile's first element of each column, or of one channel, and which of them are inside."""
    group = tile // chunks
    row = tl.full((1, 1), group, tl.int64) * ROWS
    start = strip.to(tl.int64) * CHANNELS * space
    if CHANNELS == 1:
        column = tl.full((1, 1), tile - group * chunks, tl.int64) * BLOCK
    else:
        column = tl.arange(0, BLOCK)[None, :].to(tl.int64)
    return row * width + (start + column), start + column < width


@triton.jit
def mask_bytes_at(
    tile,
    chunks,
    strip,
    rows,
    row_bytes,
    strip_bytes,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Offsets of a tile's bytes in a mask and which of them are inside."""
    group = tile // chunks
    row = tl.full((ROWS, 1), group, tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    byte = tl.full((1, BLOCK // 8), tile - group * chunks, tl.int64) * (BLOCK // 8)
    byte = byte + tl.arange(0, BLOCK // 8)[None, :]
    start = strip.to(tl.int64) * strip_bytes
    inside = (row < rows) & (byte < strip_bytes) & (start + byte < row_bytes)
    return row * row_bytes + start + byte, inside


@triton.jit
def strip_channels(strip, channels, CHANNELS: tl.constexpr, PADDED: tl.constexpr):
    """The channels of a strip and which of them are inside, (1, PADDED)."""
    number = tl.arange(0, PADDED)[None, :]
    channel = strip.to(tl.int64) * CHANNELS + number
    return channel, (number < CHANNELS) & (channel < channels)


@triton.jit
def _taken(row, index, LENGTH: tl.constexpr, TAKEN: tl.constexpr):
    # Of one axis: Triton 3.7 fails on a gather of two.
    return tl.gather(tl.reshape(row, (LENGTH,)), tl.reshape(index, (TAKEN,)), 0)[None, :]


@triton.jit
def spread(
    row, space, CHANNELS: tl.constexpr, PADDED: tl.constexpr, SPACE: tl.constexpr, BLOCK: tl.constexpr
):
    """What is known of each channel, for each column of a tile.

    Gathered where the columns are the channels, too: a loop's arithmetic then takes the layout of its tiles,
    not that of what the row came from.
    """
    if CHANNELS == 1:
        result = row
    elif SPACE == 1:
        result = _taken(row, tl.arange(0, BLOCK)[None, :], PADDED, BLOCK)
    else:
        number = tl.arange(0, BLOCK)[None, :] // space.to(tl.int32)
        result = _taken(row, tl.minimum(number, PADDED - 1), PADDED, BLOCK)
    return result


@triton.jit
def _by_channel(row, space, PADDED: tl.constexpr, SPACE: tl.constexpr, BLOCK: tl.constexpr):
    """(1, BLOCK) of several channels' columns as (PADDED, SPACE); beyond the space are others'."""
    number = tl.arange(0, PADDED * SPACE)[None, :]
    column = number // SPACE * space.to(tl.int32) + number % SPACE
    taken = _taken(row, tl.minimum(column, BLOCK - 1), BLOCK, PADDED * SPACE)
    return tl.reshape(taken, (PADDED, SPACE))


@triton.jit
def over_columns(tile, CHANNELS: tl.constexpr):
    """Σ over the rows of a tile, and over the columns of one channel, in float64."""
    result = tl.sum(tile.to(tl.float64), 0, keep_dims=True)
    if CHANNELS == 1:
        result = tl.sum(result, 1, keep_dims=True)
    return result


@triton.jit
def over_channels(row, space, PADDED: tl.constexpr, SPACE: tl.constexpr, BLOCK: tl.constexpr):
    """Σ over the columns of each channel, (1, PADDED), of what `over_columns` gives."""
    if SPACE == 1:
        result = row
    else:
        table = _by_channel(row, space, PADDED, SPACE, BLOCK)
        result = tl.sum(tl.where(tl.arange(0, SPACE)[None, :] < space, table, 0.0), 1)[None, :]
    return result


@triton.jit
def store_sums(
    to, at, tile, inside, space, CHANNELS: tl.constexpr, PADDED: tl.constexpr, SPACE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """What a tile holds of each channel, added up, at some offsets of `to`; nothing where that is None."""
    if to is not None:
        of_channels = over_channels(over_columns(tile, CHANNELS), space, PADDED, SPACE, BLOCK)
        tl.store(to + at, of_channels, mask=inside)

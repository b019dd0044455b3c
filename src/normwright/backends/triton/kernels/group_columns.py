"""Kernels of the groups family where channels are quickest in memory: forward.

x is (samples, space, channels). A program takes a block of WIDTH channels of a sample, padded to COLUMNS
lanes; a piece is ROWS·steps positions of it. Moments in a piece are parts (3, samples, pieces, channels /
PER_PART): those of PER_PART channels, put together at once, a group's or as many of one as a block has; or
each channel's, where neither comes out even. A group's moments are put together from its parts.

Either one kernel reduces the pieces and the next does the rest, or, where there is one piece and each block
holds whole groups, one program does both (WHOLE) and finds x in a cache when it comes back. How a group is
cut is the same either way.

What a program does but once, sums over its lanes and putting parts together, costs as much as 16384
elements. Tried instead and no quicker on an H200: one kernel whose programs reduce unit after unit and write
each, from the second cache, as soon as all of it is reduced, waiting for counters (0.47 of a copy's bandwidth
for 0.45, bfloat16; with SiLU backward 0.42 for 0.44).
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.group_tiles import overflows, spread, store_activated
from normwright.backends.triton.kernels.moments import SHRINK, STRETCH, merged, quotient, rstd_of, wide


@triton.jit
def inside_of(row, rows, column_inside, EVEN: tl.constexpr):
    """Which elements of a tile are inside; EVEN says that all are, and nothing is then asked of them."""
    inside = (row < rows) & column_inside
    if EVEN:
        inside = tl.full(inside.shape, 1, tl.int1)
    return inside


@triton.jit
def _distances(source, row, rows, channels, column_inside, shift, COMPUTE: tl.constexpr, EVEN: tl.constexpr):
    """x - shift of a tile's positions; 0 outside."""
    inside = inside_of(row, rows, column_inside, EVEN)
    value = tl.load(source + row.to(tl.int64) * channels, mask=inside, other=0.0).to(COMPUTE)
    return tl.where(inside, value - shift, 0.0)


@triton.jit
def _reduce_piece(
    x,
    parts,
    samples,
    sample,
    block,
    piece,
    channels,
    space,
    pieces,
    steps,
    PER_PART: tl.constexpr,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """hi, lo and m2_root of each channel of a block in a piece: see `kernels/groups.py`."""
    lane = tl.arange(0, COLUMNS)[None, :]
    channel = block * WIDTH + lane
    column_inside = (lane < WIDTH) & (channel < channels)
    start = sample * 0 + piece * (ROWS * steps)
    rows = tl.minimum(space - start, ROWS * steps).to(tl.int32)
    source = x + (sample * space + start) * channels + channel
    row = tl.arange(0, ROWS)[:, None]
    shift = tl.zeros((1, COLUMNS), COMPUTE)
    if CENTER:
        origin = tl.load(source, mask=column_inside, other=0.0).to(COMPUTE)
        distance = _distances(source, row, rows, channels, column_inside, origin, COMPUTE, EVEN)
        few = tl.zeros((1, 1), COMPUTE) + tl.minimum(rows, ROWS)
        shift = origin + quotient(tl.sum(distance, 0, keep_dims=True), few)
    level = tl.zeros((ROWS, COLUMNS), COMPUTE)
    square = tl.zeros((ROWS, COLUMNS), COMPUTE)
    for step in tl.range(steps, num_stages=3):
        tile = row + step * ROWS
        distance = _distances(source, tile, rows, channels, column_inside, shift, COMPUTE, EVEN)
        level += distance
        square += distance * distance
    count = tl.zeros((1, 1), COMPUTE) + rows
    squares = tl.sum(square, 0, keep_dims=True)
    lo, m2_root = spread(tl.sum(level, 0, keep_dims=True), squares, count, CENTER)
    if overflows(squares):
        level = tl.zeros((ROWS, COLUMNS), COMPUTE)
        square = tl.zeros((ROWS, COLUMNS), COMPUTE)
        for step in tl.range(steps, num_stages=3):
            tile = row + step * ROWS
            distance = _distances(source, tile, rows, channels, column_inside, shift, COMPUTE, EVEN)
            level += distance * SHRINK
            square += (distance * SHRINK) * (distance * SHRINK)
        _, careful = spread(
            tl.sum(level, 0, keep_dims=True), tl.sum(square, 0, keep_dims=True), count, CENTER
        )
        m2_root = tl.where(squares == float("inf"), careful * STRETCH, m2_root)
    across = channels // PER_PART
    if PER_PART == 1:
        at, where = channel, column_inside
    else:
        PARTS: tl.constexpr = 1 if PER_PART == WIDTH else COLUMNS // PER_PART
        SHAPE: tl.constexpr = (PARTS, COLUMNS // PARTS)
        count = tl.where(column_inside, count, 0.0)
        shift, lo = tl.reshape(shift, SHAPE), tl.reshape(lo, SHAPE)
        shift, lo, m2_root = merged(shift, lo, tl.reshape(m2_root, SHAPE), tl.reshape(count, SHAPE), 1)
        at = block * (WIDTH // PER_PART) + tl.arange(0, PARTS)[:, None]
        where = at < across
    plane = samples.to(tl.int64) * pieces * across
    to = parts + (sample * pieces + piece) * across + at
    tl.store(to, shift, mask=where)
    tl.store(to + plane, lo, mask=where)
    tl.store(to + 2 * plane, m2_root, mask=where)


@triton.jit(do_not_specialize=["samples"])
def reduce_columns(
    x,
    parts,
    samples,
    channels,
    space,
    blocks,
    pieces,
    steps,
    PER_PART: tl.constexpr,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The moments of each piece. A piece's blocks are neighbours, so that whole rows are read together."""
    program = tl.program_id(0).to(tl.int64)
    unit = program // blocks
    _reduce_piece(
        x, parts, samples, unit // pieces, (program % blocks).to(tl.int32), unit % pieces, channels, space,
        pieces, steps, PER_PART, CENTER, COMPUTE, EVEN, ROWS, WIDTH, COLUMNS,
    )  # fmt: skip


@triton.jit
def _some_members(
    parts,
    samples,
    sample,
    group,
    first,
    groups,
    members,
    space,
    pieces,
    piece_size,
    weight_of_row,
    MEMBERS: tl.constexpr,
):
    """The parts of each group from `first` on, put together: hi, lo, m2_root and count, as columns."""
    number = first + tl.arange(0, MEMBERS)[None, :]
    piece = number // members
    inside = (piece < pieces) & (group < groups)
    across = groups * members
    at = (sample * pieces + piece) * across + group * members + number % members
    plane = samples.to(tl.int64) * pieces * across
    hi = tl.load(parts + at, mask=inside, other=0.0)
    lo = tl.load(parts + plane + at, mask=inside, other=0.0)
    m2_root = tl.load(parts + 2 * plane + at, mask=inside, other=0.0)
    rows = tl.minimum(space - piece * piece_size, piece_size) * weight_of_row
    count = tl.where(inside, rows, 0).to(parts.dtype.element_ty)
    hi, lo, m2_root = merged(hi, lo, m2_root, count, 1)
    return hi, lo, m2_root, tl.sum(count, 1, keep_dims=True)


@triton.jit
def _merged_groups(
    parts,
    samples,
    sample,
    group,
    groups,
    members,
    space,
    pieces,
    piece_size,
    weight_of_row,
    MEMBERS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """hi, lo and m2_root of some groups, as columns, from CHUNKS times MEMBERS parts of each."""
    hi, lo, m2_root, count = _some_members(
        parts, samples, sample, group, 0, groups, members, space, pieces, piece_size, weight_of_row, MEMBERS
    )
    if CHUNKS > 1:
        chunk = tl.arange(0, CHUNKS)[None, :]
        his, los = tl.where(chunk == 0, hi, 0.0), tl.where(chunk == 0, lo, 0.0)
        m2_roots, counts = tl.where(chunk == 0, m2_root, 0.0), tl.where(chunk == 0, count, 0.0)
        for number in range(1, tl.cdiv(members * pieces, MEMBERS)):
            hi, lo, m2_root, count = _some_members(
                parts, samples, sample, group, number * MEMBERS, groups, members, space, pieces, piece_size,
                weight_of_row, MEMBERS,
            )  # fmt: skip
            his, los = tl.where(chunk == number, hi, his), tl.where(chunk == number, lo, los)
            m2_roots = tl.where(chunk == number, m2_root, m2_roots)
            counts = tl.where(chunk == number, count, counts)
        hi, lo, m2_root = merged(his, los, m2_roots, counts, 1)
    return hi, lo, m2_root


@triton.jit
def to_channels(values, slot_of_channel, SLOTS: tl.constexpr, COLUMNS: tl.constexpr):
    """A row with each channel's value, from a column with each group's. A group's NaN stays in it."""
    if SLOTS == 1:
        row = values
    elif SLOTS == COLUMNS:
        row = tl.trans(values)
    else:
        mine = slot_of_channel == tl.arange(0, SLOTS)[:, None]
        row = tl.sum(tl.where(mine, values, 0.0), 0, keep_dims=True)
    return row


@triton.jit(do_not_specialize=["samples"])
def forward_columns(
    x,
    residual,
    weight,
    bias,
    y,
    mask,
    mean,
    rstd,
    parts,
    samples,
    channels,
    groups,
    space,
    blocks,
    pieces,
    steps,
    mask_bytes,
    eps: "fp64",
    ACTIVATION: tl.constexpr,
    PER_PART: tl.constexpr,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
    MEMBERS: tl.constexpr,
    CHUNKS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """y of a piece of a block, or of all of its pieces (WHOLE), which are then reduced first."""
    # Backwards, because what was read last is in the second cache still.
    program = tl.num_programs(0).to(tl.int64) - 1 - tl.program_id(0)
    block = (program % blocks).to(tl.int32)
    if WHOLE:
        sample = program // blocks
        first, last = 0, tl.cdiv(space, ROWS)
        for piece in range(pieces):
            _reduce_piece(
                x, parts, samples, sample, block, piece, channels, space, pieces, steps, PER_PART, CENTER,
                COMPUTE, EVEN, ROWS, WIDTH, COLUMNS,
            )  # fmt: skip
        tl.debug_barrier()
    else:
        sample = program // blocks // pieces
        first = program // blocks % pieces * steps
        last = tl.minimum(first + steps, tl.cdiv(space, ROWS))
    lane = tl.arange(0, COLUMNS)[None, :]
    channel = block * WIDTH + lane
    column_inside = (lane < WIDTH) & (channel < channels)
    share = channels // groups
    first_group = block * WIDTH // share
    group = first_group + tl.arange(0, SLOTS)[:, None]
    hi, lo, m2_root = _merged_groups(
        parts, samples, sample, group, groups, share // PER_PART, space, pieces, ROWS * steps, PER_PART,
        MEMBERS, CHUNKS,
    )  # fmt: skip
    count = ((tl.zeros((1, 1), tl.int64) + space) * share).to(COMPUTE)
    scale = rstd_of(m2_root, count, tl.full((1, 1), eps, COMPUTE))
    if rstd is not None:
        # A group is its first channel's block's to store.
        mine = (group < groups) & (group * share >= block * WIDTH) & (first == 0)
        tl.store(rstd + sample * groups + group, scale.to(tl.float64), mask=mine)
        if CENTER:
            tl.store(mean + sample * groups + group, wide(hi, lo), mask=mine)
    slot = channel // share - first_group
    hi, lo = to_channels(hi, slot, SLOTS, COLUMNS), to_channels(lo, slot, SLOTS, COLUMNS)
    scale = to_channels(scale, slot, SLOTS, COLUMNS)
    offset = -lo * scale
    if weight is not None:
        factor = tl.load(weight + channel, mask=column_inside, other=0.0).to(COMPUTE)
        scale, offset = scale * factor, offset * factor
    if bias is not None:
        offset += tl.load(bias + channel, mask=column_inside, other=0.0).to(COMPUTE)
    byte = block * WIDTH // 8 + tl.arange(0, COLUMNS // 8)[None, :]
    byte_inside = (tl.arange(0, COLUMNS // 8)[None, :] * 8 < WIDTH) & (byte < mask_bytes)
    for number in tl.range(first, last, num_stages=3):
        row = (last - 1 - (number - first)) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = inside_of(row, space, column_inside, EVEN)
        position = sample * space + row
        at = position * channels + channel
        z = (tl.load(x + at, mask=inside, other=0.0).to(COMPUTE) - hi) * scale + offset
        if residual is not None:
            z += tl.load(residual + at, mask=inside, other=0.0).to(COMPUTE)
        store_activated(
            z, y, mask, at, inside, position * mask_bytes + byte, byte_inside & (row < space), ACTIVATION,
            ROWS, COLUMNS,
        )  # fmt: skip

"""Kernels of the groups family where channels are quickest in memory: forward.

x is (samples, space, channels). A program takes a block of WIDTH channels of a sample, padded to COLUMNS
lanes; a piece is ROWS·steps positions of it. A channel has its moments in each piece, as parts (3, samples,
pieces, channels), and a group's are put together from those of its channels in all the pieces. Where a
group is many blocks wide (FOLD), a block's channels are put together at once, and a part is a block's.

Either one kernel reduces the pieces and the next does the rest, or, where there are blocks enough and each
holds whole groups, one program does all the pieces (WHOLE) and finds x in the second cache when it comes
back. How a group is cut is the same either way.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.group_tiles import overflows, spread, store_activated
from normwright.backends.triton.kernels.moments import SHRINK, STRETCH, merged, quotient, rstd_of, wide


@triton.jit
def _distances(source, row, rows, channels, column_inside, shift, COMPUTE: tl.constexpr):
    """x - shift of a tile's positions; 0 outside."""
    inside = row < rows
    value = tl.load(source + row.to(tl.int64) * channels, mask=inside & column_inside, other=0.0).to(COMPUTE)
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
    FOLD: tl.constexpr,
    COMPUTE: tl.constexpr,
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
    origin = tl.load(source, mask=column_inside, other=0.0).to(COMPUTE)
    distance = _distances(source, row, rows, channels, column_inside, origin, COMPUTE)
    few = tl.zeros((1, 1), COMPUTE) + tl.minimum(rows, ROWS)
    shift = origin + quotient(tl.sum(distance, 0, keep_dims=True), few)
    level = tl.zeros((ROWS, COLUMNS), COMPUTE)
    square = tl.zeros((ROWS, COLUMNS), COMPUTE)
    for step in tl.range(steps, num_stages=3):
        distance = _distances(source, row + step * ROWS, rows, channels, column_inside, shift, COMPUTE)
        level += distance
        square += distance * distance
    count = tl.zeros((1, 1), COMPUTE) + rows
    squares = tl.sum(square, 0, keep_dims=True)
    lo, m2_root = spread(tl.sum(level, 0, keep_dims=True), squares, count)
    if overflows(squares):
        level = tl.zeros((ROWS, COLUMNS), COMPUTE)
        square = tl.zeros((ROWS, COLUMNS), COMPUTE)
        for step in tl.range(steps, num_stages=3):
            distance = _distances(source, row + step * ROWS, rows, channels, column_inside, shift, COMPUTE)
            level += distance * SHRINK
            square += (distance * SHRINK) * (distance * SHRINK)
        _, careful = spread(tl.sum(level, 0, keep_dims=True), tl.sum(square, 0, keep_dims=True), count)
        m2_root = tl.where(squares == float("inf"), careful * STRETCH, m2_root)
    if FOLD:
        shift, lo, m2_root = merged(shift, lo, m2_root, tl.where(column_inside, count, 0.0), 1)
        across = channels // WIDTH
        at = tl.zeros((1, 1), tl.int32) + block
        where = at < across
    else:
        across = channels
        at = channel
        where = column_inside
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
    FOLD: tl.constexpr,
    COMPUTE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The moments of each piece. A piece's blocks are neighbours, so that whole rows are read together."""
    program = tl.program_id(0).to(tl.int64)
    unit = program // blocks
    _reduce_piece(
        x, parts, samples, unit // pieces, (program % blocks).to(tl.int32), unit % pieces, channels, space,
        pieces, steps, FOLD, COMPUTE, ROWS, WIDTH, COLUMNS,
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
    FOLD: tl.constexpr,
    COMPUTE: tl.constexpr,
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
                x, parts, samples, sample, block, piece, channels, space, pieces, steps, FOLD, COMPUTE, ROWS,
                WIDTH, COLUMNS,
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
    members, weight_of_row = share, 1
    if FOLD:
        members, weight_of_row = share // WIDTH, WIDTH
    hi, lo, m2_root = _merged_groups(
        parts, samples, sample, group, groups, members, space, pieces, ROWS * steps, weight_of_row, MEMBERS,
        CHUNKS,
    )  # fmt: skip
    count = ((tl.zeros((1, 1), tl.int64) + space) * share).to(COMPUTE)
    scale = rstd_of(m2_root, count, tl.full((1, 1), eps, COMPUTE))
    if rstd is not None:
        # A group is its first channel's block's to store.
        mine = (group < groups) & (group * share >= block * WIDTH) & (first == 0)
        tl.store(rstd + sample * groups + group, scale.to(tl.float64), mask=mine)
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
        inside = (row < space) & column_inside
        position = sample * space + row
        at = position * channels + channel
        z = (tl.load(x + at, mask=inside, other=0.0).to(COMPUTE) - hi) * scale + offset
        if residual is not None:
            z += tl.load(residual + at, mask=inside, other=0.0).to(COMPUTE)
        store_activated(
            z, y, mask, at, inside, position * mask_bytes + byte, byte_inside & (row < space), ACTIVATION,
            ROWS, COLUMNS,
        )  # fmt: skip

"""Kernels of the groups family where channels are quickest in memory: backward.

See `kernels/groups_backward.py` for the mathematics, `kernels/group_columns.py` for the blocks and pieces. A
channel's Σdz and Σdz·x̂ in each piece are parts (samples, pieces, channels).
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.group_columns import inside_of, to_channels
from normwright.backends.triton.kernels.group_tiles import undone
from normwright.backends.triton.kernels.moments import quotient, split


@triton.jit
def _gradient(
    dy,
    x,
    residual,
    factor,
    offset,
    mask,
    hi,
    lift,
    scale,
    channel,
    position,
    channels,
    inside,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """x̂ and dz of a tile. factor and offset: weight and bias, where the activation's input must be known."""
    at = position * channels + channel
    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    x_hat = (value - hi) * scale - lift
    z = x_hat
    if ACTIVATION is not None and mask is None:
        z = x_hat * factor + offset
        if residual is not None:
            z += tl.load(residual + at, mask=inside, other=0.0).to(COMPUTE)
    byte = position * mask_bytes + channel // 8
    dz = undone(dy, z, mask, at, inside, byte, channel % 8, ACTIVATION, COMPUTE)
    return x_hat, dz, at


@triton.jit
def _reduce_piece(
    dy,
    x,
    residual,
    factor,
    offset,
    mask,
    hi,
    lift,
    scale,
    along_parts,
    level_parts,
    sample,
    piece,
    channel,
    column_inside,
    channels,
    space,
    pieces,
    steps,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Σdz·x̂ and Σdz of each channel of a block in a piece."""
    along = tl.zeros((ROWS, COLUMNS), COMPUTE)
    level = tl.zeros((ROWS, COLUMNS), COMPUTE)
    for step in tl.range(steps, num_stages=3):
        row = sample * 0 + (piece * steps + step) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = inside_of(row, space, column_inside, EVEN)
        x_hat, dz, _ = _gradient(
            dy, x, residual, factor, offset, mask, hi, lift, scale, channel, sample * space + row, channels,
            inside, mask_bytes, ACTIVATION, COMPUTE,
        )  # fmt: skip
        # Outside, dz is 0 but x̂ may be anything.
        along += tl.where(inside, dz * x_hat, 0.0)
        level += dz
    at = (sample * pieces + piece) * channels + channel
    tl.store(along_parts + at, tl.sum(along, 0, keep_dims=True), mask=column_inside)
    tl.store(level_parts + at, tl.sum(level, 0, keep_dims=True), mask=column_inside)


@triton.jit
def _known(
    weight,
    bias,
    mean,
    rstd,
    sample,
    channel,
    column_inside,
    channels,
    groups,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """hi, lo·rstd, rstd, weight (or 1) and bias (or 0) of each channel of a block, as rows."""
    group = sample * groups + channel // (channels // groups)
    scale = tl.load(rstd + group, mask=column_inside, other=0.0).to(COMPUTE)
    hi, lo = tl.zeros_like(scale), tl.zeros_like(scale)
    if CENTER:
        hi, lo = split(tl.load(mean + group, mask=column_inside, other=0.0).to(tl.float64), COMPUTE)
    factor, offset = tl.zeros_like(scale) + 1.0, tl.zeros_like(scale)
    if weight is not None:
        factor = tl.load(weight + channel, mask=column_inside, other=0.0).to(COMPUTE)
    if bias is not None:
        offset = tl.load(bias + channel, mask=column_inside, other=0.0).to(COMPUTE)
    return hi, lo * scale, scale, factor, offset


@triton.jit
def reduce_gradient_columns(
    dy,
    x,
    residual,
    weight,
    bias,
    mask,
    mean,
    rstd,
    along_parts,
    level_parts,
    channels,
    groups,
    space,
    blocks,
    pieces,
    steps,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Σdz·x̂ and Σdz of each piece."""
    program = tl.program_id(0).to(tl.int64)
    unit, block = program // blocks, (program % blocks).to(tl.int32)
    sample, piece = unit // pieces, unit % pieces
    lane = tl.arange(0, COLUMNS)[None, :]
    channel = block * WIDTH + lane
    column_inside = (lane < WIDTH) & (channel < channels)
    hi, lift, scale, factor, offset = _known(
        weight, bias, mean, rstd, sample, channel, column_inside, channels, groups, CENTER, COMPUTE
    )
    _reduce_piece(
        dy, x, residual, factor, offset, mask, hi, lift, scale, along_parts, level_parts, sample, piece,
        channel, column_inside, channels, space, pieces, steps, mask_bytes, ACTIVATION, COMPUTE, EVEN,
        ROWS, COLUMNS,
    )  # fmt: skip


@triton.jit
def _group_sums(
    along_parts,
    level_parts,
    weight,
    sample,
    group,
    groups,
    share,
    pieces,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Σg·x̂ and Σg of SLOTS groups, as columns."""
    along = tl.zeros((SLOTS, MEMBERS), COMPUTE)
    level = tl.zeros((SLOTS, MEMBERS), COMPUTE)
    for first in range(0, share * pieces, MEMBERS):
        number = first + tl.arange(0, MEMBERS)[None, :]
        piece = number // share
        inside = (piece < pieces) & (group < groups)
        channel = group * share + number % share
        at = (sample * pieces + piece) * (groups * share) + channel
        some_along = tl.load(along_parts + at, mask=inside, other=0.0)
        some_level = tl.load(level_parts + at, mask=inside, other=0.0)
        if weight is not None:
            factor = tl.load(weight + channel, mask=inside, other=0.0).to(COMPUTE)
            some_along, some_level = some_along * factor, some_level * factor
        along += some_along
        level += some_level
    return tl.sum(along, 1, keep_dims=True), tl.sum(level, 1, keep_dims=True)


@triton.jit
def backward_columns(
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
    along_parts,
    level_parts,
    channels,
    groups,
    space,
    blocks,
    pieces,
    steps,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
    MEMBERS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """dx and dresidual of a piece of a block, or of all its pieces (WHOLE), which are then reduced first."""
    # Backwards, because what was read last is in the second cache still.
    program = tl.num_programs(0).to(tl.int64) - 1 - tl.program_id(0)
    block = (program % blocks).to(tl.int32)
    sample = program // blocks
    first, last = 0, tl.cdiv(space, ROWS)
    if not WHOLE:
        first = sample % pieces * steps
        last = tl.minimum(first + steps, last)
        sample = sample // pieces
    lane = tl.arange(0, COLUMNS)[None, :]
    channel = block * WIDTH + lane
    column_inside = (lane < WIDTH) & (channel < channels)
    hi, lift, scale, factor, offset = _known(
        weight, bias, mean, rstd, sample, channel, column_inside, channels, groups, CENTER, COMPUTE
    )
    if WHOLE:
        for piece in range(pieces):
            _reduce_piece(
                dy, x, residual, factor, offset, mask, hi, lift, scale, along_parts, level_parts, sample,
                piece, channel, column_inside, channels, space, pieces, steps, mask_bytes, ACTIVATION,
                COMPUTE, EVEN, ROWS, COLUMNS,
            )  # fmt: skip
        tl.debug_barrier()
    mean_along, mean_g = tl.zeros_like(scale), tl.zeros_like(scale)
    if dx is not None:
        share = channels // groups
        first_group = block * WIDTH // share
        group = first_group + tl.arange(0, SLOTS)[:, None]
        along, level = _group_sums(
            along_parts, level_parts, weight, sample, group, groups, share, pieces, COMPUTE, SLOTS, MEMBERS
        )
        count = ((tl.zeros((1, 1), tl.int64) + space) * share).to(COMPUTE)
        slot = channel // share - first_group
        mean_along = to_channels(quotient(along, count), slot, SLOTS, COLUMNS)
        if CENTER:
            mean_g = to_channels(quotient(level, count), slot, SLOTS, COLUMNS)
    for number in tl.range(first, last, num_stages=3):
        row = (last - 1 - (number - first)) * ROWS + tl.arange(0, ROWS)[:, None]
        inside = inside_of(row, space, column_inside, EVEN)
        x_hat, dz, at = _gradient(
            dy, x, residual, factor, offset, mask, hi, lift, scale, channel, sample * space + row, channels,
            inside, mask_bytes, ACTIVATION, COMPUTE,
        )  # fmt: skip
        if dresidual is not None:
            tl.store(dresidual + at, dz.to(dresidual.dtype.element_ty), mask=inside)
        if dx is not None:
            gradient = (dz * factor - x_hat * mean_along - mean_g) * scale
            tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside)

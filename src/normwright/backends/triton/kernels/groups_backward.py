"""Kernels of the groups family where space is quickest in memory: backward.

    dx = rstd·(g - mean(g) - x̂·mean(g·x̂)),  g = dz·weight,  dz = dy·a'(z),  without mean(g) if not CENTER

A channel's Σdz and Σdz·x̂ within a sample serve twice: weighted, they add up to the group's; over the
batch, to the gradients of bias and weight. Tiles are rows of whole or cut planes, one channel each. The
ways are those of `kernels/groups.py`. Parts are (samples, pieces, channels), where a piece is BLOCK·steps
elements of a plane.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.group_tiles import affine, of_group, parameter_of, undone
from normwright.backends.triton.kernels.moments import quotient, split, two_sums


@triton.jit
def _gradient(
    dy,
    x,
    residual,
    weight,
    bias,
    mask,
    hi,
    lo,
    scale,
    group,
    run,
    column,
    inside,
    groups,
    runs,
    length,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """x̂ and dz of a tile. SPACE: the elements of a plane where a run of the mask is a whole group, else 0."""
    at = ((group * runs + run) * length)[:, None] + column[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    x_hat = tl.where(inside, (value - hi) * scale - lo * scale, 0.0)
    z = x_hat
    if ACTIVATION is not None and mask is None:
        z = affine(
            x_hat, residual, weight, bias, group, run, column, at, inside, groups, runs, length, 0, COMPUTE
        )
    if SPACE == 0:
        byte = (group * runs + run)[:, None] * mask_bytes + (column // 8)[None, :]
        bit = (column % 8)[None, :]
    else:
        element = run[:, None] * SPACE + column[None, :]
        byte = group[:, None] * mask_bytes + element // 8
        bit = element % 8
    dz = undone(dy, z, mask, at, inside, byte, bit, ACTIVATION, COMPUTE)
    return x_hat, dz, at


@triton.jit
def _write(
    x_hat,
    dz,
    mean_g,
    mean_along,
    scale,
    weight,
    dx,
    dresidual,
    at,
    group,
    run,
    column,
    inside,
    groups,
    runs,
    length,
    COMPUTE: tl.constexpr,
):
    if dresidual is not None:
        tl.store(dresidual + at, dz.to(dresidual.dtype.element_ty), mask=inside)
    if dx is not None:
        g = dz
        if weight is not None:
            g = g * parameter_of(weight, group, run, column, inside, groups, runs, length, 0, COMPUTE)
        tl.store(dx + at, ((g - x_hat * mean_along - mean_g) * scale).to(dx.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["total"])
def backward_groups(
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
    total,
    groups,
    runs,
    length,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    GROUPS: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dx, dresidual and the parts of GROUPS whole groups."""
    row = tl.arange(0, GROUPS * RUNS)
    group = tl.program_id(0).to(tl.int64) * GROUPS + row // RUNS
    run = row % RUNS
    group_inside = (group < total)[:, None]
    row_inside = group_inside & (run < runs)[:, None]
    column = tl.arange(0, BLOCK)
    inside = row_inside
    if not EVEN:
        inside = inside & (column < length)[None, :]
    scale = tl.load(rstd + group[:, None], mask=group_inside, other=0.0).to(COMPUTE)
    hi, lo = tl.zeros_like(scale), tl.zeros_like(scale)
    if CENTER:
        hi, lo = split(tl.load(mean + group[:, None], mask=group_inside, other=0.0).to(tl.float64), COMPUTE)
    x_hat, dz, at = _gradient(
        dy, x, residual, weight, bias, mask, hi, lo, scale, group, run, column, inside, groups, runs,
        length, mask_bytes, ACTIVATION, SPACE, COMPUTE,
    )  # fmt: skip
    along, level = two_sums(dz * x_hat, dz)
    part = (group * runs + run)[:, None]
    if along_parts is not None:
        tl.store(along_parts + part, along, mask=row_inside)
    if level_parts is not None:
        tl.store(level_parts + part, level, mask=row_inside)
    if weight is not None:
        factor = parameter_of(weight, group, run, column, inside, groups, runs, length, 0, COMPUTE)
        along, level = along * factor, level * factor
    count = tl.zeros((GROUPS * RUNS, 1), COMPUTE) + runs * length
    mean_along = quotient(of_group(along, GROUPS, RUNS), count)
    mean_g = tl.zeros_like(mean_along)
    if CENTER:
        mean_g = quotient(of_group(level, GROUPS, RUNS), count)
    _write(
        x_hat, dz, mean_g, mean_along, scale, weight, dx, dresidual, at, group, run, column, inside,
        groups, runs, length, COMPUTE,
    )  # fmt: skip


@triton.jit
def _reduce_piece(
    dy,
    x,
    residual,
    weight,
    bias,
    mask,
    hi,
    lo,
    scale,
    along_parts,
    level_parts,
    group,
    first_run,
    piece,
    groups,
    runs,
    length,
    pieces,
    steps,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Σdz·x̂ and Σdz of a piece of each of RUNS planes."""
    run = first_run + tl.arange(0, RUNS)
    rows = group + tl.zeros((RUNS,), tl.int64)
    along = tl.zeros((RUNS, BLOCK), COMPUTE)
    level = tl.zeros((RUNS, BLOCK), COMPUTE)
    for step in tl.range(steps, num_stages=2):
        # In length's integer type.
        column = (length * 0 + piece * steps + step) * BLOCK + tl.arange(0, BLOCK)
        inside = (run < runs)[:, None] & (column < length)[None, :]
        x_hat, dz, _ = _gradient(
            dy, x, residual, weight, bias, mask, hi, lo, scale, rows, run, column, inside, groups, runs,
            length, mask_bytes, ACTIVATION, SPACE, COMPUTE,
        )  # fmt: skip
        along += dz * x_hat
        level += dz
    channel = (rows % groups * runs + run)[:, None]
    at = (rows // groups * pieces + piece)[:, None] * (groups * runs) + channel
    tl.store(along_parts + at, tl.sum(along, 1, keep_dims=True), mask=(run < runs)[:, None])
    tl.store(level_parts + at, tl.sum(level, 1, keep_dims=True), mask=(run < runs)[:, None])


@triton.jit
def _moments_of(mean, rstd, group, CENTER: tl.constexpr, COMPUTE: tl.constexpr):
    """hi, lo and rstd of a group, each as a (1, 1)."""
    at = group + tl.zeros((1, 1), tl.int64)
    hi, lo = tl.zeros((1, 1), COMPUTE), tl.zeros((1, 1), COMPUTE)
    if CENTER:
        hi, lo = split(tl.load(mean + at).to(tl.float64), COMPUTE)
    return hi, lo, tl.load(rstd + at).to(COMPUTE)


@triton.jit
def reduce_gradient_pieces(
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
    groups,
    runs,
    length,
    pieces,
    steps,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program takes a piece of RUNS planes of a group."""
    program = tl.program_id(0).to(tl.int64)
    units = tl.cdiv(runs, RUNS) * pieces
    group, unit = program // units, (program % units).to(tl.int32)
    hi, lo, scale = _moments_of(mean, rstd, group, CENTER, COMPUTE)
    _reduce_piece(
        dy, x, residual, weight, bias, mask, hi, lo, scale, along_parts, level_parts, group,
        unit // pieces * RUNS, unit % pieces, groups, runs, length, pieces, steps, mask_bytes, ACTIVATION,
        SPACE, COMPUTE, RUNS, BLOCK,
    )  # fmt: skip


@triton.jit
def _group_sums(
    along_parts,
    level_parts,
    weight,
    group,
    groups,
    runs,
    pieces,
    COMPUTE: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Σg·x̂ and Σg of a group, each as a (1, 1), from the parts of its channels."""
    along = tl.zeros((MEMBERS,), COMPUTE)
    level = tl.zeros((MEMBERS,), COMPUTE)
    for first in range(0, runs * pieces, MEMBERS):
        number = first + tl.arange(0, MEMBERS)
        inside = number < runs * pieces
        channel = group % groups * runs + number % runs
        at = (group // groups * pieces + number // runs) * (groups * runs) + channel
        some_along = tl.load(along_parts + at, mask=inside, other=0.0)
        some_level = tl.load(level_parts + at, mask=inside, other=0.0)
        if weight is not None:
            factor = tl.load(weight + channel, mask=inside, other=0.0).to(COMPUTE)
            some_along, some_level = some_along * factor, some_level * factor
        along += some_along
        level += some_level
    return tl.sum(along, 0, keep_dims=True)[:, None], tl.sum(level, 0, keep_dims=True)[:, None]


@triton.jit
def backward_pieces(
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
    groups,
    runs,
    length,
    pieces,
    steps,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
    MEMBERS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """dx and dresidual of `steps` tiles, or of all of a group (WHOLE), which is then reduced first."""
    across = tl.cdiv(length, BLOCK)
    blocks = tl.cdiv(runs, RUNS)
    tiles = blocks * across
    # Backwards, because what was read last is in the second cache still.
    program = tl.num_programs(0).to(tl.int64) - 1 - tl.program_id(0)
    if WHOLE:
        group = program
        first, last = tiles * 0, tiles
        hi, lo, scale = _moments_of(mean, rstd, group, CENTER, COMPUTE)
        for unit in range(blocks * pieces):
            _reduce_piece(
                dy, x, residual, weight, bias, mask, hi, lo, scale, along_parts, level_parts, group,
                unit // pieces * RUNS, unit % pieces, groups, runs, length, pieces, steps, mask_bytes,
                ACTIVATION, SPACE, COMPUTE, RUNS, BLOCK,
            )  # fmt: skip
        tl.debug_barrier()
    else:
        units = tl.cdiv(tiles, steps)
        group = program // units
        first = (program % units).to(tl.int32) * steps
        last = tl.minimum(first + steps, tiles)
        hi, lo, scale = _moments_of(mean, rstd, group, CENTER, COMPUTE)
    mean_along = tl.zeros((1, 1), COMPUTE)
    mean_g = tl.zeros((1, 1), COMPUTE)
    if dx is not None:
        along, level = _group_sums(
            along_parts, level_parts, weight, group, groups, runs, pieces, COMPUTE, MEMBERS
        )
        count = ((tl.zeros((1, 1), tl.int64) + length) * runs).to(COMPUTE)
        mean_along = quotient(along, count)
        if CENTER:
            mean_g = quotient(level, count)
    rows = group + tl.zeros((RUNS,), tl.int64)
    for number in tl.range(first, last, num_stages=2):
        tile = last - 1 - (number - first)
        run = tile // across * RUNS + tl.arange(0, RUNS)
        column = tile % across * BLOCK + tl.arange(0, BLOCK)
        inside = (run < runs)[:, None] & (column < length)[None, :]
        x_hat, dz, at = _gradient(
            dy, x, residual, weight, bias, mask, hi, lo, scale, rows, run, column, inside, groups, runs,
            length, mask_bytes, ACTIVATION, SPACE, COMPUTE,
        )  # fmt: skip
        _write(
            x_hat, dz, mean_g, mean_along, scale, weight, dx, dresidual, at, rows, run, column, inside,
            groups, runs, length, COMPUTE,
        )  # fmt: skip

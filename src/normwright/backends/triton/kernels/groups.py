"""Kernels of the groups family where space is quickest in memory: forward.

A group is one stretch of L = runs·length elements. Two ways:

- It fits in one tile (`forward_groups`): it is read once. A program takes GROUPS groups.
- It does not (`*_pieces`): its moments are those of its pieces, BLOCK·steps elements each, put together.
  Either one kernel reduces the pieces and the next does the rest, so that many programs share a group; or,
  where there are groups enough, one program does all of a group (WHOLE), and finds x in the second cache
  when it comes back to it.

How a group is cut depends on its shape alone, and is the same either way, so that a sample's bits do not
depend on the batch. Programs are counted along the one axis of a grid that has no limit of 65535. steps is
no constant, lest the loops be unrolled: that takes twice the registers.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.group_tiles import (
    affine,
    group_moments,
    overflows,
    spread,
    store_activated,
)
from normwright.backends.triton.kernels.moments import SHRINK, STRETCH, merged, quotient, rstd_of, wide


@triton.jit
def _write(
    value,
    hi,
    lo,
    scale,
    residual,
    weight,
    bias,
    y,
    mask,
    group,
    run,
    first,
    at,
    inside,
    groups,
    runs,
    length,
    mask_bytes,
    ACTIVATION: tl.constexpr,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Normalises a tile and stores y and the mask. first: its first column, a multiple of 8."""
    x_hat = (value - hi) * scale - lo * scale
    column = first + tl.arange(0, BLOCK)
    z = affine(
        x_hat, residual, weight, bias, group, run, column, at, inside, groups, runs, length, SPACE, COMPUTE
    )
    byte = first // 8 + tl.arange(0, BLOCK // 8)
    byte_inside = (tl.max(inside.to(tl.int32), 1, keep_dims=True) > 0) & (byte < mask_bytes)[None, :]
    where = (group * runs + run)[:, None] * mask_bytes + byte[None, :]
    store_activated(z, y, mask, at, inside, where, byte_inside, ACTIVATION, ROWS, BLOCK)


@triton.jit(do_not_specialize=["total"])
def forward_groups(
    x,
    residual,
    weight,
    bias,
    y,
    mask,
    mean,
    rstd,
    total,
    groups,
    runs,
    length,
    mask_bytes,
    eps: "fp64",
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
    GROUPS: tl.constexpr,
    RUNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """y, and what a backward needs, of GROUPS whole groups."""
    row = tl.arange(0, GROUPS * RUNS)
    group = tl.program_id(0).to(tl.int64) * GROUPS + row // RUNS
    run = row % RUNS
    group_inside = (group < total)[:, None]
    column = tl.arange(0, BLOCK)
    inside = group_inside
    if not EVEN:
        inside = inside & (run < runs)[:, None] & (column < length)[None, :]
    at = ((group * runs + run) * length)[:, None] + column[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
    origin = tl.load(x + (group * runs * length)[:, None], mask=group_inside, other=0.0).to(COMPUTE)
    count = tl.zeros((GROUPS * RUNS, 1), COMPUTE) + runs * length
    hi, lo, m2_root = group_moments(value, inside, origin, count, CENTER, EVEN, GROUPS, RUNS)
    scale = rstd_of(m2_root, count, tl.full((1, 1), eps, COMPUTE))
    if rstd is not None:
        one = group_inside & (run == 0)[:, None]
        tl.store(rstd + group[:, None], scale.to(tl.float64), mask=one)
        if CENTER:
            tl.store(mean + group[:, None], wide(hi, lo), mask=one)
    _write(
        value, hi, lo, scale, residual, weight, bias, y, mask, group, run, 0, at, inside, groups, runs,
        length, mask_bytes, ACTIVATION, SPACE, COMPUTE, GROUPS * RUNS, BLOCK,
    )  # fmt: skip


@triton.jit
def _distances(source, step, elements, shift, COMPUTE: tl.constexpr, BLOCK: tl.constexpr):
    """x - shift of a piece's next BLOCK elements; 0 outside."""
    column = step * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = column < elements
    value = tl.load(source + column, mask=inside, other=0.0).to(COMPUTE)
    return tl.where(inside, value - shift, 0.0)


@triton.jit
def _reduce_piece(
    x,
    parts,
    total,
    group,
    piece,
    size,
    pieces,
    steps,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """hi, lo and m2_root of a piece into parts (3, total, pieces).

    Distances are taken from the mean of the piece's first BLOCK elements. That being a mean of 1/steps of
    them all, Σd² - (Σd)²/n cancels by a factor of steps at worst, and no lane need wait for another
    until the end.
    """
    start = (tl.zeros((1, 1), tl.int64) + piece) * (BLOCK * steps)
    elements = tl.minimum(size[:, None] - start, BLOCK * steps).to(tl.int32)
    source = x + group * size[:, None] + start
    shift = tl.zeros((1, 1), COMPUTE)
    if CENTER:
        origin = tl.load(source).to(COMPUTE)
        distance = _distances(source, 0, elements, origin, COMPUTE, BLOCK)
        few = tl.zeros((1, 1), COMPUTE) + tl.minimum(elements, BLOCK)
        shift = origin + quotient(tl.sum(distance, 1, keep_dims=True), few)
    level = tl.zeros((1, BLOCK), COMPUTE)
    square = tl.zeros((1, BLOCK), COMPUTE)
    for step in tl.range(steps, num_stages=3):
        distance = _distances(source, step, elements, shift, COMPUTE, BLOCK)
        level += distance
        square += distance * distance
    count = tl.zeros((1, 1), COMPUTE) + elements
    squares = tl.sum(square, 1, keep_dims=True)
    lo, m2_root = spread(tl.sum(level, 1, keep_dims=True), squares, count, CENTER)
    if overflows(squares):
        level = tl.zeros((1, BLOCK), COMPUTE)
        square = tl.zeros((1, BLOCK), COMPUTE)
        for step in tl.range(steps, num_stages=3):
            small = _distances(source, step, elements, shift, COMPUTE, BLOCK) * SHRINK
            level += small
            square += small * small
        _, careful = spread(
            tl.sum(level, 1, keep_dims=True), tl.sum(square, 1, keep_dims=True), count, CENTER
        )
        m2_root = careful * STRETCH
    at = group * pieces + piece + tl.zeros((1, 1), tl.int64)
    plane = total.to(tl.int64) * pieces
    tl.store(parts + at, shift)
    tl.store(parts + plane + at, lo)
    tl.store(parts + 2 * plane + at, m2_root)


@triton.jit(do_not_specialize=["total"])
def reduce_pieces(
    x,
    parts,
    total,
    runs,
    length,
    pieces,
    steps,
    CENTER: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The moments of each piece of each group."""
    program = tl.program_id(0).to(tl.int64)
    size = (tl.zeros((1,), tl.int64) + length) * runs
    group, piece = program // pieces, program % pieces
    _reduce_piece(x, parts, total, group, piece, size, pieces, steps, CENTER, COMPUTE, BLOCK)


@triton.jit
def _merged_pieces(parts, total, group, size, pieces, piece_size, PIECES: tl.constexpr):
    """hi, lo and m2_root of a group, each as a (1, 1)."""
    # In one dimension: of a row, Triton may give every thread the whole.
    piece = tl.arange(0, PIECES)
    inside = piece < pieces
    at = group * pieces + piece
    plane = total.to(tl.int64) * pieces
    hi = tl.load(parts + at, mask=inside, other=0.0)
    lo = tl.load(parts + plane + at, mask=inside, other=0.0)
    m2_root = tl.load(parts + 2 * plane + at, mask=inside, other=0.0)
    left = size - piece.to(tl.int64) * piece_size
    count = tl.maximum(tl.minimum(left, piece_size), 0).to(parts.dtype.element_ty)
    hi, lo, m2_root = merged(hi, lo, m2_root, count, 0)
    return hi[:, None], lo[:, None], m2_root[:, None]


@triton.jit(do_not_specialize=["total"])
def forward_pieces(
    x,
    residual,
    weight,
    bias,
    y,
    mask,
    mean,
    rstd,
    parts,
    total,
    groups,
    runs,
    length,
    pieces,
    steps,
    mask_bytes,
    eps: "fp64",
    ACTIVATION: tl.constexpr,
    CENTER: tl.constexpr,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECES: tl.constexpr,
    RUNS: tl.constexpr,
    WIDE: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """y of `steps` tiles of (RUNS, WIDE), or of all of a group (WHOLE), which is then reduced first."""
    size = (tl.zeros((1,), tl.int64) + length) * runs
    across = tl.cdiv(length, WIDE)
    tiles = tl.cdiv(runs, RUNS) * across
    # Backwards, because what was read last is in the second cache still.
    program = tl.num_programs(0).to(tl.int64) - 1 - tl.program_id(0)
    if WHOLE:
        group = program
        first, last = tiles * 0, tiles
        for piece in range(pieces):
            _reduce_piece(x, parts, total, group, piece, size, pieces, steps, CENTER, COMPUTE, BLOCK)
        tl.debug_barrier()
    else:
        units = tl.cdiv(tiles, steps)
        group = program // units
        first = (program % units).to(tl.int32) * steps
        last = tl.minimum(first + steps, tiles)
    hi, lo, m2_root = _merged_pieces(parts, total, group, size, pieces, BLOCK * steps, PIECES)
    scale = rstd_of(m2_root, size[:, None].to(COMPUTE), tl.full((1, 1), eps, COMPUTE))
    if rstd is not None:
        one = tl.zeros((1, 1), tl.int64)
        tl.store(rstd + group + one, scale.to(tl.float64), mask=one + first == 0)
        if CENTER:
            tl.store(mean + group + one, wide(hi, lo), mask=one + first == 0)
    for number in tl.range(first, last, num_stages=3):
        tile = last - 1 - (number - first)
        run = tile // across * RUNS + tl.arange(0, RUNS)
        begin = tile % across * WIDE
        column = begin + tl.arange(0, WIDE)
        inside = (run < runs)[:, None] & (column < length)[None, :]
        at = ((group * runs + run) * length)[:, None] + column[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(COMPUTE)
        groups_of_rows = group + tl.zeros((RUNS,), tl.int64)
        _write(
            value, hi, lo, scale, residual, weight, bias, y, mask, groups_of_rows, run, begin, at, inside,
            groups, runs, length, mask_bytes, ACTIVATION, SPACE, COMPUTE, RUNS, WIDE,
        )  # fmt: skip

"""What the kernels of the groups family share: sums over a tile's groups, and where its elements lie.

Contiguous, a sample is cut in groups of `runs` runs of `length` elements, and a tile is (GROUPS·RUNS,
BLOCK): RUNS rows for each of GROUPS groups. Where SPACE is 0, a run is the plane of one channel; else it is
a whole group, whose channels are SPACE elements each.
"""

import triton
import triton.language as tl

from normwright.backends.triton.kernels.activation import activate, derivative
from normwright.backends.triton.kernels.mask import packed, passes, through
from normwright.backends.triton.kernels.moments import SHRINK, STRETCH, quotient, spread, two_sums


@triton.jit
def of_group(sums, GROUPS: tl.constexpr, RUNS: tl.constexpr):
    """Σ over each group of a (GROUPS·RUNS, 1) column, for each of its rows."""
    if RUNS != 1:
        if GROUPS == 1:
            sums = tl.broadcast_to(tl.sum(sums, 0, keep_dims=True), (RUNS, 1))
        else:
            sums = tl.sum(tl.reshape(sums, (GROUPS, RUNS)), 1, keep_dims=True)
            sums = tl.reshape(tl.broadcast_to(sums, (GROUPS, RUNS)), (GROUPS * RUNS, 1))
    return sums


@triton.jit
def overflows(square):
    """Whether a sum of squares is infinite."""
    return tl.max(tl.where(square == float("inf"), 1, 0)) > 0


@triton.jit
def _distance(value, shift, inside, EVEN: tl.constexpr):
    distance = value - shift
    if not EVEN:
        distance = tl.where(inside, distance, 0.0)
    return distance


@triton.jit
def group_moments(
    value,
    inside,
    origin,
    count,
    CENTER: tl.constexpr,
    EVEN: tl.constexpr,
    GROUPS: tl.constexpr,
    RUNS: tl.constexpr,
):
    """hi, lo and m2_root of the groups of a tile, as columns. origin: an element of each group."""
    if CENTER:
        # About an element, so that a constant group has no rounding at all.
        total = tl.sum(_distance(value, origin, inside, EVEN), 1, keep_dims=True)
        hi = origin + quotient(of_group(total, GROUPS, RUNS), count)
    else:
        hi = tl.zeros_like(origin)
    distance = _distance(value, hi, inside, EVEN)
    level, square = two_sums(distance, distance * distance)
    square = of_group(square, GROUPS, RUNS)
    lo, m2_root = spread(of_group(level, GROUPS, RUNS), square, count, CENTER)
    if overflows(square):
        small = distance * SHRINK
        level, squares = two_sums(small, small * small)
        _, careful = spread(of_group(level, GROUPS, RUNS), of_group(squares, GROUPS, RUNS), count, CENTER)
        m2_root = tl.where(square == float("inf"), careful * STRETCH, m2_root)
    return hi, lo, m2_root


@triton.jit
def parameter_of(
    source, group, run, column, inside, groups, runs, length, SPACE: tl.constexpr, COMPUTE: tl.constexpr
):
    """The weight or bias of a tile's elements, in a shape that broadcasts against it."""
    if SPACE == 0:
        at = (group % groups * runs + run)[:, None]
        where = tl.max(inside.to(tl.int32), 1, keep_dims=True) > 0
    else:
        at = (group % groups * (length // SPACE))[:, None] + (column // SPACE)[None, :]
        where = inside
    return tl.load(source + at, mask=where, other=0.0).to(COMPUTE)


@triton.jit
def affine(
    x_hat,
    residual,
    weight,
    bias,
    group,
    run,
    column,
    at,
    inside,
    groups,
    runs,
    length,
    SPACE: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """x̂·weight + bias + residual of those that are not None."""
    z = x_hat
    if weight is not None:
        z = z * parameter_of(weight, group, run, column, inside, groups, runs, length, SPACE, COMPUTE)
    if bias is not None:
        z = z + parameter_of(bias, group, run, column, inside, groups, runs, length, SPACE, COMPUTE)
    if residual is not None:
        z = z + tl.load(residual + at, mask=inside, other=0.0).to(COMPUTE)
    return z


@triton.jit
def store_activated(
    z,
    y,
    mask,
    at,
    inside,
    byte,
    byte_inside,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Stores y, and the mask where it is not None: byte is where each 8 elements of a row go."""
    tl.store(y + at, activate(z, ACTIVATION).to(y.dtype.element_ty), mask=inside)
    if mask is not None:
        tl.store(mask + byte, packed(passes(z, ACTIVATION) & inside, ROWS, BLOCK), mask=byte_inside)


@triton.jit
def undone(dy, z, mask, at, inside, byte, bit, ACTIVATION: tl.constexpr, COMPUTE: tl.constexpr):
    """dz: dy through the activation, by its mask where it is not None; 0 outside."""
    dz = tl.load(dy + at, mask=inside, other=0.0).to(COMPUTE)
    if mask is not None:
        dz = through(dz, mask, byte, bit, inside, ACTIVATION)
    elif ACTIVATION is not None:
        dz = tl.where(inside, dz * derivative(z, ACTIVATION), 0.0)
    return dz

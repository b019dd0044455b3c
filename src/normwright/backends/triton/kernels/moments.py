"""Moments within a kernel: sums about a shift, parts merged by Chan's formula in one order.

A mean is a pair, hi + lo. hi is a float near it, so that x - hi is nearly free of rounding even where the
mean is a million times the deviation; lo is what hi lacks. A kernel keeps their sum in float64.

A sum of squares m2 comes as its root, √Σ(x - mean)², which does not overflow where the deviation itself does
not. The squares do above 1e18: they are then taken of the 2^-100th part.
"""

import triton
import triton.language as tl

_LARGE = tl.constexpr(1e18)
SHRINK = tl.constexpr(2.0**-100)
STRETCH = tl.constexpr(2.0**100)


@triton.jit
def quotient(a, b):
    """a/b, rounded once."""
    if a.dtype == tl.float64:
        ratio = a / b
    else:
        ratio = tl.math.div_rn(a, b)
    return ratio


@triton.jit
def root(a):
    """√a, rounded once."""
    if a.dtype == tl.float64:
        value = tl.sqrt(a)
    else:
        value = tl.math.sqrt_rn(a)
    return value


@triton.jit
def root_of_squares(values, AXIS: tl.constexpr):
    """√Σ values² along an axis, which is kept at length 1; right where the squares overflow."""
    squares = tl.sum(values * values, AXIS, keep_dims=True)
    result = root(squares)
    if tl.max(tl.where(squares == float("inf"), 1, 0)) > 0:
        small = values * SHRINK
        careful = root(tl.sum(small * small, AXIS, keep_dims=True)) * STRETCH
        result = tl.where(squares == float("inf"), careful, result)
    return result


@triton.jit
def two_sums(a, b):
    """Σa and Σb along the rows of two tiles, as columns: together, so that the warps meet once, not twice."""
    first, second = tl.split(tl.sum(tl.join(a, b), 1))
    return first[:, None], second[:, None]


@triton.jit
def spread(level, square, count, CENTER: tl.constexpr):
    """lo and m2_root of elements, from Σd and Σd² of their distances d from a shift that lies among them.

    Without CENTER the mean is taken as 0, and so must the shift be: lo is then 0 and m2 is Σd².
    """
    if not CENTER:
        level = tl.zeros_like(level)
    lo = quotient(level, count)
    m2 = square - level * lo
    return lo, root(tl.where(m2 < 0, 0.0, m2))


@triton.jit
def distances_and_root(distance, count):
    """lo and m2_root of the rows of a tile, as columns; right where the squares overflow."""
    level, squares = two_sums(distance, distance * distance)
    lo, m2_root = spread(level, squares, count, True)
    if tl.max(tl.where(squares == float("inf"), 1, 0)) > 0:
        small = distance * SHRINK
        level, square = two_sums(small, small * small)
        _, careful = spread(level, square, count, True)
        m2_root = tl.where(squares == float("inf"), careful * STRETCH, m2_root)
    return lo, m2_root


@triton.jit
def merged(hi, lo, m2_root, count, AXIS: tl.constexpr):
    """Chan's formula over an axis of parts, which is kept at length 1.

    hi, lo, m2_root: of each part; 0 where its count is 0. count: elements of each part, in the same dtype and
    shape. Returns hi, lo and m2_root of all. Every program that shares moments does this: quotients and roots
    are the quick ones, good to two units in the last place of lo and of m2_root.
    """
    share = count * (1.0 / tl.sum(count, AXIS, keep_dims=True))
    base = tl.sum(hi * share, AXIS, keep_dims=True)
    offset = tl.where(count > 0, (hi - base) + lo, 0.0)
    lift = tl.sum(offset * share, AXIS, keep_dims=True)
    between = tl.where(count > 0, offset - lift, 0.0) * tl.sqrt(count)
    squares = tl.sum(m2_root * m2_root + between * between, AXIS, keep_dims=True)
    total = tl.sqrt(squares)
    if tl.max(tl.where(squares == float("inf"), 1, 0)) > 0:
        within, apart = m2_root * SHRINK, between * SHRINK
        small = tl.sqrt(tl.sum(within * within + apart * apart, AXIS, keep_dims=True))
        total = tl.where(squares == float("inf"), small * STRETCH, total)
    return base, lift, total


@triton.jit
def rstd_of(m2_root, count, eps):
    """1/√(m2/count + eps)."""
    deviation = m2_root * quotient(tl.full((1, 1), 1.0, m2_root.dtype), root(count))
    scale = tl.where(deviation > _LARGE, SHRINK, 1.0).to(deviation.dtype)
    small = deviation * scale
    return quotient(scale, root(small * small + eps * scale * scale))


@triton.jit
def wide(hi, lo):
    """The mean in float64."""
    return hi.to(tl.float64) + lo.to(tl.float64)


@triton.jit
def split(mean, COMPUTE: tl.constexpr):
    """hi and lo of a mean in float64."""
    hi = mean.to(COMPUTE)
    return hi, (mean - hi.to(tl.float64)).to(COMPUTE)

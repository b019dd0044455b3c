"""Moments within a kernel: sums about a shift, parts merged by Chan's formula in one order.

A mean is a pair, hi + lo. hi is a float near it, so that x - hi is nearly free of rounding even where the
mean is a million times the deviation; lo is what hi lacks. A kernel keeps their sum in float64.

A sum of squares m2 comes as its root, √Σ(x - mean)², which does not overflow where the deviation itself does
not. The squares do above 1e18: they are then taken of the 2^-100th part.
"""

import triton
import triton.language as tl

_LARGE = tl.constexpr(1e18)
_SHRINK = tl.constexpr(2.0**-100)
_STRETCH = tl.constexpr(2.0**100)


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
        small = values * _SHRINK
        careful = root(tl.sum(small * small, AXIS, keep_dims=True)) * _STRETCH
        result = tl.where(squares == float("inf"), careful, result)
    return result


@triton.jit
def two_sums(a, b):
    """Σa and Σb along the rows of two tiles, as columns: together, so that the warps meet once and not twice."""
    first, second = tl.split(tl.sum(tl.join(a, b), 1))
    return first[:, None], second[:, None]


@triton.jit
def spread(level, square, count):
    """lo and m2_root of elements, from Σd and Σd² of their distances d from a shift that lies among them."""
    lo = quotient(level, count)
    m2 = square - level * lo
    return lo, root(tl.where(m2 < 0, 0.0, m2))


@triton.jit
def distances_and_root(distance, count):
    """lo and m2_root of the rows of a tile, as columns; right where the squares overflow."""
    level, squares = two_sums(distance, distance * distance)
    lo, m2_root = spread(level, squares, count)
    if tl.max(tl.where(squares == float("inf"), 1, 0)) > 0:
        small = distance * _SHRINK
        level, square = two_sums(small, small * small)
        _, careful = spread(level, square, count)
        m2_root = tl.where(squares == float("inf"), careful * _STRETCH, m2_root)
    return lo, m2_root


@triton.jit
def merged(hi, lo, m2_root, count, AXIS: tl.constexpr):
    """Chan's formula over an axis of parts, which is kept at length 1.

    hi, lo, m2_root: of each part; 0 where its count is 0. count: elements of each part, in the same dtype, and
    in a shape that broadcasts. Returns hi, lo and m2_root of all.
    """
    total = tl.sum(count, AXIS, keep_dims=True)
    # One of the parts' own: equal means merge into exactly themselves. The interpreter warns of a maximum of NaNs.
    base = tl.max(tl.where((count > 0) & (hi == hi), hi, float("-inf")), AXIS, keep_dims=True)
    offset = tl.where(count > 0, (hi - base) + lo, 0.0)
    lift = quotient(tl.sum(offset * count, AXIS, keep_dims=True), total)
    between = tl.where(count > 0, offset - lift, 0.0) * root(count)
    within = root_of_squares(m2_root, AXIS)
    apart = root_of_squares(between, AXIS)
    return base, lift, hypotenuse(within, apart)


@triton.jit
def hypotenuse(a, b):
    """√(a² + b²) of two that are not negative; right where the squares overflow."""
    scale = tl.where(tl.maximum(a, b) > _LARGE, _SHRINK, 1.0).to(a.dtype)
    a, b = a * scale, b * scale
    return quotient(root(a * a + b * b), scale)


@triton.jit
def rstd_of(m2_root, count, eps):
    """1/√(m2/count + eps)."""
    deviation = quotient(m2_root, root(count))
    scale = tl.where(deviation > _LARGE, _SHRINK, 1.0).to(deviation.dtype)
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

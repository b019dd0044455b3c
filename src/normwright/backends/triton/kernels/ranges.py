"""The moments of a range of elements from sums about a shift, and those of several ranges, put together.

Sums are of x - shift, the shift being near the mean: a loop adds up in registers alone, and a mean a million
times the deviation does no harm.
"""

import triton
import triton.language as tl

# What makes good for SHRINK in a square, which float64 holds.
STRETCH_SQUARE = tl.constexpr(2.0**200)

_SHIFT_OUT = tl.constexpr(2.0**44)


@triton.jit
def few_digits(value):
    """The leading 8 or so binary digits, so that short numbers stay short about it, and their sums exact."""
    if value.dtype == tl.float64:
        stretched = value * _SHIFT_OUT
        result = (value + stretched) - stretched
    else:
        result = value.to(tl.bfloat16).to(value.dtype)
    return result


@triton.jit
def m2_of(total, squares, count):
    """Σ(x - mean)² from the sums about a shift."""
    m2 = squares - total * (total / count)
    return tl.where(m2 < 0, 0.0, m2)  # asked so that a NaN passes


@triton.jit
def put_together(mean, m2, count):
    """Mean and M2 over the first axis of ranges, which is kept at length 1, by Chan's formula.

    They lie about the mean of one of them, so that equal means merge into exactly themselves.
    """
    total = tl.sum(count, 0, keep_dims=True)
    known = (count > 0) & (mean == mean)  # the interpreter warns of a maximum of NaNs alone
    base = tl.max(tl.where(known, mean, float("-inf")), 0, keep_dims=True)
    offset = tl.where(count > 0, mean - base, 0.0)
    lift = tl.sum(offset * count, 0, keep_dims=True) / total
    offset -= lift
    return base + lift, tl.sum(m2 + offset * offset * count, 0, keep_dims=True)

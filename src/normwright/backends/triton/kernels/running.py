"""The running statistics, moved as `backends/moments.py` does: each operation is rounded as PyTorch does it.

In float64 a product of floats is exact, so that no compiler can contract it into another rounding.
"""

import triton
import triton.language as tl


@triton.jit
def _rounded(value, dtype: tl.constexpr):
    """A float64 rounded to a dtype, in float64; to a half type by way of float32, as PyTorch does."""
    if dtype == tl.float64:
        result = value
    elif dtype == tl.float32:
        result = value.to(tl.float32).to(tl.float64)
    else:
        result = value.to(tl.float32).to(dtype).to(tl.float32).to(tl.float64)
    return result


@triton.jit
def in_float64(value):
    """A value of any float; a half type goes by way of float32, for the interpreter's sake."""
    if value.dtype == tl.float64:
        wide = value
    else:
        wide = value.to(tl.float32).to(tl.float64)
    return wide


@triton.jit
def _store(at, value, inside):
    """Stores running statistics that are rounded already; to a half type by way of float32."""
    dtype: tl.constexpr = at.dtype.element_ty
    if dtype != tl.float64:
        value = value.to(tl.float32)
    tl.store(at, value.to(dtype), mask=inside)


@triton.jit
def _single(value, dtype: tl.constexpr):
    """Rounded to what PyTorch computes a dtype in: float32, or float64."""
    if dtype == tl.float64:
        result = value
    else:
        result = value.to(tl.float32).to(tl.float64)
    return result


@triton.jit
def count_batch(counter):
    """One more batch, in the counter's dtype."""
    at = counter + tl.arange(0, 1)
    tl.store(at, (tl.load(at) + 1).to(counter.dtype.element_ty))


@triton.jit
def _share(counter, momentum, dtype: tl.constexpr, CUMULATIVE: tl.constexpr):
    """This batch's share in a running statistic, (1, 1): momentum, or 1/batches."""
    if CUMULATIVE:
        batches = tl.load(counter + tl.arange(0, 1)[None, :]).to(tl.float64)
        share = _rounded(1.0 / _rounded(batches, dtype), dtype)
    else:
        share = _rounded(tl.full((1, 1), momentum, tl.float64), dtype)
    return share


@triton.jit
def move_running(
    running_mean,
    running_var,
    counter,
    channel,
    inside,
    mean,
    m2,
    count,
    mean_stride,
    var_stride,
    momentum,
    CUMULATIVE: tl.constexpr,
    HALF: tl.constexpr,
):
    """Moves both, of some channels, towards a batch's mean and unbiased variance m2/(count - 1), float64.

    HALF says that the batch is of a half type: its share of the variance is then rounded to float32.
    """
    MEAN: tl.constexpr = running_mean.dtype.element_ty
    share = _share(counter, momentum, MEAN, CUMULATIVE)
    at = running_mean + channel * mean_stride
    from_batch = _rounded(_rounded(mean, MEAN) * share, MEAN)
    kept = _rounded(in_float64(tl.load(at, mask=inside, other=0.0)) * _rounded(1.0 - share, MEAN), MEAN)
    _store(at, _rounded(from_batch + kept, MEAN), inside)

    VAR: tl.constexpr = running_var.dtype.element_ty
    if not CUMULATIVE:
        share = _share(counter, momentum, VAR, CUMULATIVE)
    at = running_var + channel * var_stride
    unbiased = _rounded(_rounded(m2, VAR) / _single(count - 1.0, VAR), VAR)
    from_batch = unbiased * share
    if HALF:
        from_batch = _single(from_batch, VAR)
    keep = 1.0 - share
    if not CUMULATIVE:
        keep = _rounded(keep, VAR)
    else:
        keep = _rounded(keep, MEAN)
    kept = _rounded(in_float64(tl.load(at, mask=inside, other=0.0)) * keep, VAR)
    _store(at, _rounded(from_batch + kept, VAR), inside)

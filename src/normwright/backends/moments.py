"""Standardising over some axes, and the way back, in plain differentiable PyTorch.

Everything here keeps the reduced axes (`keepdim`), so that a moment broadcasts against x.

Precision. A mean and a variance are summed in float64 on the CPU and on GPUs, in float32 or wider elsewhere
(`statistics_dtype`); elements, and the sums of a backward, are float32, or float64 where x is
(`compute_dtype`). The float64 mean is split in two floats, mean = shift + low: x - shift is then nearly
free of rounding, even where the mean is a million times the deviation, and low, at most half an ulp of
the mean, is put right afterwards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Squares of float32 overflow from 1.8e19 on. A factor of 2^-100 is exact and brings the largest
# float32, 3.4e38, to 2.7e8.
_SHRINK = 2.0**-100

# PyTorch's names of the devices that have float64; "cuda" is ROCm's too.
_WITH_FLOAT64 = ("cpu", "cuda")

# PyTorch adds fewer elements than 32768 in one thread.
_BLOCK = 16384


class Moments(NamedTuple):
    """The moments of x over some axes, in `statistics_dtype(x)`. mean is None where it is taken as 0."""

    mean: Tensor | None
    variance: Tensor
    rstd: Tensor


def statistics_dtype(x: Tensor) -> torch.dtype:
    """The dtype that moments of x are kept in: float64, but on devices that may lack it float32 or wider."""
    return torch.float64 if x.device.type in _WITH_FLOAT64 or x.dtype == torch.float64 else torch.float32


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of elementwise arithmetic on x."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def total(terms: Tensor, axes: list[int], dtype: torch.dtype | None = None) -> Tensor:
    """Σ over the axes, which are kept at length 1, in an order that the number of threads does not change."""
    if terms.numel() < 2 * _BLOCK or _kept(terms, axes) > 1:
        return terms.sum(axes, keepdim=True, dtype=dtype)
    # PyTorch would cut a sum with a single result among its threads. Here one thread takes each block.
    flat = terms.flatten()
    whole = flat.numel() // _BLOCK * _BLOCK
    blocks = flat[:whole].view(-1, _BLOCK).sum(1, dtype=dtype)
    return (blocks.sum() + flat[whole:].sum(dtype=dtype)).view([1] * terms.dim())


def _kept(terms: Tensor, axes: list[int]) -> int:
    return math.prod(size for axis, size in enumerate(terms.shape) if axis not in axes)


def _mean(terms: Tensor, axes: list[int], dtype: torch.dtype | None = None) -> Tensor:
    return total(terms, axes, dtype) / math.prod(terms.shape[axis] for axis in axes)


def _centre(x: Tensor, mean: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """x - shift, and low: see the head of this file."""
    wide = x.to(compute_dtype(x))
    if mean is None:
        return wide, None
    shift = mean.to(wide.dtype)
    return wide - shift, mean - shift


def _scale(centred: Tensor, low: Tensor | None, rstd: Tensor) -> Tensor:
    """(centred - low)·rstd, where centred + low is x - mean."""
    narrow = rstd.to(centred.dtype)
    if low is None or low.dtype == centred.dtype:
        return centred * narrow
    return torch.addcmul(-(low * rstd).to(centred.dtype), centred, narrow)


def _mean_square(centred: Tensor, low: Tensor | None, axes: list[int], dtype: torch.dtype) -> Tensor:
    mean_square = _mean(centred.square(), axes, dtype)
    return mean_square if low is None else (mean_square - low.square()).clamp_min(0)


def _rstd(centred: Tensor, low: Tensor | None, variance: Tensor, eps: float, axes: list[int]) -> Tensor:
    rstd = (variance + eps).rsqrt()
    overflowed = torch.isinf(variance)
    # Under a transform of torch.func, or where a graph is made, values cannot be asked.
    traced = torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack() > 0
    if not traced and not bool(overflowed.any()):
        return rstd
    # Only magnitudes above 1e19 come here: the squares overflowed, the deviation itself does not.
    shrunk_low = None if low is None else low * _SHRINK
    shrunk = _mean_square(centred * _SHRINK, shrunk_low, axes, variance.dtype)
    # A root of 0 that is not taken would have a derivative that is none.
    deviation = torch.where(overflowed, shrunk, 1.0).sqrt() / _SHRINK
    careful = torch.hypot(deviation, torch.full_like(deviation, math.sqrt(eps))).reciprocal()
    return torch.where(overflowed, careful, rstd)


def standardise(x: Tensor, axes: list[int], eps: float, *, center: bool) -> tuple[Tensor, Moments]:
    """x̂ = (x - mean)/√(variance + eps) over the axes, with variance Σ(x - mean)²/m (biased).

    Args:
        x: any shape, floating point.
        axes: the axes that are reduced.
        eps: added to the variance; same unit as x².
        center: False takes the mean as 0, as RMS norm does.
    Returns:
        x̂ of x's shape in `compute_dtype(x)`, and the moments with the reduced axes kept at length 1.
    """
    dtype = statistics_dtype(x)
    mean = _mean(x, axes, dtype) if center else None
    centred, low = _centre(x, mean)
    variance = _mean_square(centred, low, axes, dtype)
    rstd = _rstd(centred, low, variance, eps, axes)
    return _scale(centred, low, rstd), Moments(mean, variance, rstd)


def textbook_moments(x: Tensor, axes: list[int], eps: float, *, center: bool) -> Moments:
    """The same moments by the shortest formula, which autograd can differentiate again and again."""
    wide = x.to(statistics_dtype(x))
    mean = wide.mean(axes, keepdim=True) if center else None
    variance = (wide if mean is None else wide - mean).square().mean(axes, keepdim=True)
    return Moments(mean, variance, (variance + eps).rsqrt())


def restandardise(x: Tensor, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """x̂ from moments that are known already, in `compute_dtype(x)`."""
    centred, low = _centre(x, mean)
    return _scale(centred, low, rstd)


def unbiased(x: Tensor, variance: Tensor, count: int | Tensor, dtype: torch.dtype) -> Tensor:
    """count/(count - 1)·variance, rounded to dtype as PyTorch does: the sum of squares, then the quotient.

    It comes in the wider dtype in which PyTorch then multiplies it, which is float32 for a half x.
    """
    wider = statistics_dtype(x) if x.dtype.itemsize > 2 else compute_dtype(x)
    return ((variance * count).to(dtype) / (count - 1)).to(torch.promote_types(dtype, wider))


def moved(running: Tensor, batch: Tensor, factor: float | Tensor) -> Tensor:
    """factor·batch + (1 - factor)·running in running's dtype: PyTorch's formula, to the bit.

    It keeps a batch's mean in running's dtype and its variance in a wider one; so must the caller.
    """
    share = factor if isinstance(factor, Tensor) else running.new_full((), factor)
    return (batch * share.to(batch.dtype) + running * (1 - share)).to(running.dtype)


def share_of_batch(
    momentum: float | None, num_batches_tracked: Tensor | None, dtype: torch.dtype
) -> float | Tensor:
    """momentum, or where it is None 1/batches so far, this one counted, which keeps the cumulative mean."""
    if momentum is not None:
        return momentum
    assert num_batches_tracked is not None
    return num_batches_tracked.to(dtype).reciprocal()


def move_running_statistics(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    count: int,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_batches_tracked: Tensor | None,
    momentum: float | None,
) -> None:
    """Moves them in place towards a batch of x, given its moments (C,) over so many elements each.

    An empty batch is counted, and moves nothing.
    """
    if num_batches_tracked is not None:
        num_batches_tracked.add_(1)
    if not count or running_mean is None or running_var is None:
        return
    factor = share_of_batch(momentum, num_batches_tracked, running_mean.dtype)
    batch_variance = unbiased(x, variance, count, running_var.dtype)
    running_mean.copy_(moved(running_mean, mean.to(running_mean.dtype), factor))
    running_var.copy_(moved(running_var, batch_variance, factor))


def standardise_backward(g: Tensor, x_hat: Tensor, rstd: Tensor, axes: list[int], *, center: bool) -> Tensor:
    """dx = rstd·(g - mean(g) - x̂·mean(g·x̂)), with g the gradient of x̂ (without mean(g) when not centred)."""
    dx = torch.addcmul(g, x_hat, _mean(g * x_hat, axes), value=-1)
    if center:
        dx = dx - _mean(g, axes)
    return dx * rstd.to(g.dtype)

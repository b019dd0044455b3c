"""The distribution of a tensor, from a fixed subsample of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: The most elements of a tensor that its distribution is read from: a percentile of as many is off by at most
#: 0.8 of a percentile point (one standard error, √(0.25/4096)), the mean by 1/64 of a deviation.
SAMPLE = 4096
#: Of the distribution, in percent: the batch-norm paper's figure 1 draws 15, 50 and 85.
PERCENTILES = (1, 15, 50, 85, 99)


@dataclass(frozen=True)
class Spread:
    """How the elements of one tensor are distributed, in one mini-batch.

    All but the counts are of a subsample of at most `spread.SAMPLE` elements, those that are finite; NaN
    where none is.

    Args:
        step: the mini-batch, counted from 0.
        count: elements of the tensor.
        nonfinite: of them, those that are NaN or infinite.
        mean: of the sample.
        deviation: the sample's standard deviation, biased.
        skewness: mean of ((x − mean)/deviation)³; 0 where all elements are equal.
        least, most: of the sample.
        percentiles: of the sample, at `PERCENTILES`.
    """

    step: int
    count: int
    nonfinite: int
    mean: float
    deviation: float
    skewness: float
    least: float
    most: float
    percentiles: tuple[float, ...]


def sample_of(x: Tensor) -> Tensor:
    """At most `SAMPLE` elements of a tensor, evenly spaced in memory: a view where its memory is dense.

    The spacing shares no factor with any axis, so that no channel or column is preferred.

    Example:
        >>> sample_of(torch.arange(4096 * 7.0).view(64, 448)).shape
        torch.Size([3186])
    """
    flat = _in_memory_order(x.detach())
    space = -(-len(flat) // SAMPLE)
    while space > 1 and any(math.gcd(space, size) > 1 for size in x.shape):
        space += 1
    return flat[:: max(space, 1)]


def spread_of(x: Tensor, step: int) -> Spread:
    """How a tensor is distributed; see `Spread`."""
    values = sample_of(x).to(torch.float64).cpu().numpy()
    finite = np.sort(values[np.isfinite(values)])
    nonfinite = count_nonfinite(x)
    if not len(finite):
        none = math.nan
        return Spread(step, x.numel(), nonfinite, none, none, none, none, none, (none,) * len(PERCENTILES))
    least, most = float(finite[0]), float(finite[-1])
    # Shares of the largest magnitude neither overflow nor vanish when they are squared or cubed.
    scale = max(-least, most) or 1.0
    shares = finite / scale
    mean = float(shares.mean())
    apart = shares - mean if least < most else np.zeros_like(shares)
    deviation = float(np.sqrt(np.mean(apart**2)))
    skewness = float(np.mean((apart / deviation) ** 3)) if deviation > 0 else 0.0
    percentiles = tuple(map(float, np.percentile(finite, PERCENTILES)))
    return Spread(
        step, x.numel(), nonfinite, mean * scale, deviation * scale, skewness, least, most, percentiles
    )


def count_nonfinite(x: Tensor) -> int:
    """How many elements are NaN or infinite; most often one sum tells that none is."""
    x = x.detach()
    if not x.is_floating_point():
        return 0
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    if math.isfinite(x.sum(dtype=wide).item()):
        return 0
    return x.numel() - int(torch.isfinite(x).sum())


def _in_memory_order(x: Tensor) -> Tensor:
    """All elements of a tensor, on one axis, without a copy where that can be."""
    if x.dim() and torch.ops.aten.is_non_overlapping_and_dense(x):
        return x.as_strided((x.numel(),), (1,), x.storage_offset())
    return x.reshape(-1)

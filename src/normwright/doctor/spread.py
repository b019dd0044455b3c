"""The distribution of a tensor, from a fixed subsample of it."""

from __future__ import annotations

from dataclasses import dataclass

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

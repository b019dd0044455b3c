"""Count, mean and sum of squared deviations per channel, which merge in any cut of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Accumulator:
    """Moments of the elements seen so far, in float64 on the CPU.

    Two of them merge, by Chan's formula, into the one of all their elements, however unequal their counts;
    one of no elements changes nothing. Nothing cancels: squares are only ever taken of differences.

        count = a + b,   mean = mean_a + (mean_b − mean_a)·b/count,
        m2 = m2_a + m2_b + (mean_b − mean_a)²·a·b/count

    Args:
        count: (), or in the shape of mean where channels differ in it (as under a mask).
        mean: (C,), or any shape: (T, C) for statistics per time step.
        m2: in mean's shape; the sum of squared deviations from the mean.
    References:
        Chan, Golub & LeVeque 1979, Stanford STAN-CS-79-773.
    Example:
        >>> one = Accumulator.of(torch.tensor([[1.0], [3.0]]))
        >>> both = one.merged(Accumulator.of(torch.tensor([[8.0]])))
        >>> both.mean, both.variance
        (tensor([4.], dtype=torch.float64), tensor([8.6667], dtype=torch.float64))
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    @classmethod
    def of(cls, elements: Tensor) -> Accumulator:
        """The moments of (B, C) elements over B."""
        zeros = torch.zeros(elements.shape, dtype=torch.float64)
        return cls.of_batches(torch.ones(len(elements)), elements, zeros)

    @classmethod
    def of_batches(cls, counts: Tensor, means: Tensor, m2s: Tensor) -> Accumulator:
        """The moments of B mini-batches merged.

        Args:
            counts: (B,), or (B, C) where channels differ in it; at least one positive.
            means: (B, C), or (B, …).
            m2s: (B, C), as means.
        """
        counts, means, m2s = (tensor.to("cpu", torch.float64) for tensor in (counts, means, m2s))
        weights = counts.reshape(*counts.shape, *[1] * (means.dim() - counts.dim()))
        count = weights.sum(0)
        # From the first mini-batch's mean on, where a large common mean would cost digits.
        mean = means[0] + (weights * (means - means[0])).sum(0) / count
        m2 = (m2s + weights * (means - mean).square()).sum(0)
        return cls(count.reshape(counts.shape[1:]), mean, m2)

    @property
    def variance(self) -> Tensor:
        """The biased variance, m2/count."""
        return self.m2 / self.count

    def merged(self, other: Accumulator) -> Accumulator:
        """The moments of the elements of both."""
        count = self.count + other.count
        share = torch.where(count > 0, other.count / count, torch.zeros_like(count))
        apart = other.mean - self.mean
        return Accumulator(
            count,
            self.mean + apart * share,
            self.m2 + other.m2 + apart.square() * self.count * share,
        )

    def faded(self, share: float) -> Accumulator:
        """The same moments, with each element counting for `share` of one."""
        return Accumulator(self.count * share, self.mean, self.m2 * share)

"""Count, mean and sum of squared deviations per channel, which merge in any cut of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


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
    def of(cls, elements: Tensor) -> Self:
        """The moments of (B, C) elements over B."""
        zeros = torch.zeros(elements.shape, dtype=torch.float64)
        return cls.of_batches(torch.ones(len(elements)), elements, zeros)

    @classmethod
    def of_batches(cls, counts: Tensor, means: Tensor, m2s: Tensor) -> Self:
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

    @classmethod
    def side_by_side(cls, parts: Sequence[Accumulator]) -> Self:
        """The moments of all their channels, (ΣC,)."""
        return cls(
            torch.cat([part.count.expand_as(part.mean) for part in parts]),
            torch.cat([part.mean for part in parts]),
            torch.cat([part.m2 for part in parts]),
        )

    def split(self, sizes: list[int]) -> list[Self]:
        """The moments of so many channels each, within which the count is the same; they share no memory.

        Sent to another process, a view would take with it all that it is a view of.
        """
        parts = (part.split(sizes) for part in (self.count, self.mean, self.m2))
        return [
            type(self)(count[0].clone(), mean.clone(), m2.clone())
            for count, mean, m2 in zip(*parts, strict=True)
        ]

    @property
    def variance(self) -> Tensor:
        """The biased variance, m2/count."""
        return self.m2 / self.count

    def merged(self, other: Self) -> Self:
        """The moments of the elements of both."""
        count = self.count + other.count
        share = torch.where(count > 0, other.count / count, torch.zeros_like(count))
        apart = other.mean - self.mean
        return type(self)(
            count,
            self.mean + apart * share,
            self.m2 + other.m2 + apart.square() * self.count * share,
        )

    def faded(self, share: float) -> Self:
        """The same moments, with each element counting for `share` of one."""
        return type(self)(self.count * share, self.mean, self.m2 * share)


class CovarianceAccumulator(Accumulator):
    """Moments of groups of d channels: m2 is (G, d, d), the sums of products of deviations from the mean.

    It merges as the other does, with the products of each group's differences where that has squares.

    Example:
        >>> parts = [torch.tensor([[1.0, 1.0], [3.0, 5.0]]), torch.tensor([[8.0, 0.0]])]
        >>> zeros = torch.zeros(3, 1, 2, 2)
        >>> whole = CovarianceAccumulator.of_batches(torch.ones(3), torch.cat(parts), zeros)
        >>> torch.allclose(whole.variance[0], torch.cov(torch.cat(parts).double().T, correction=0))
        True
    """

    @classmethod
    def of_batches(cls, counts: Tensor, means: Tensor, m2s: Tensor) -> Self:
        """The moments of B mini-batches merged: counts (B,), means (B, C), m2s (B, G, d, d)."""
        counts, means, m2s = (tensor.to("cpu", torch.float64) for tensor in (counts, means, m2s))
        count = counts.sum()
        mean = means[0] + (counts.unsqueeze(1) * (means - means[0])).sum(0) / count
        m2 = m2s + counts.view(-1, 1, 1, 1) * products(means - mean, m2s)
        return cls(count, mean, m2.sum(0))

    def merged(self, other: Self) -> Self:
        """The moments of the elements of both."""
        count = self.count + other.count
        share = torch.where(count > 0, other.count / count, torch.zeros_like(count))
        apart = other.mean - self.mean
        m2 = self.m2 + other.m2 + products(apart, self.m2) * self.count * share
        return type(self)(count, self.mean + apart * share, m2)


def products(apart: Tensor, like: Tensor) -> Tensor:
    """(…, C) deviations to the products (…, G, d, d) within each group, the shape of `like`."""
    columns = apart.reshape(*like.shape[:-1], 1)
    return columns @ columns.mT

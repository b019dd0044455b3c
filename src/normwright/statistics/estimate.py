"""What is known of a layer's population so far, and how well it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from normwright.statistics.accumulator import Accumulator, CovarianceAccumulator

Estimator = Literal["total", "within"]
ESTIMATORS: tuple[str, ...] = get_args(Estimator)


@dataclass(frozen=True, eq=False)
class Estimate:
    """The mini-batches of one layer, merged.

    Args:
        elements: moments of all elements.
        variances: moments of the mini-batches' unbiased variances, each weighted by its count of elements.
        batches: how many mini-batches; a use of a layer is one, and for instance norm so is each sample.
    """

    elements: Accumulator
    variances: Accumulator
    batches: int

    @classmethod
    def of_batches(cls, counts: Tensor, means: Tensor, variances: Tensor) -> Estimate:
        """The estimate from mini-batches.

        Args:
            counts: (B,), or (B, C) where channels differ in it; at least 2.
            means: (B, C).
            variances: (B, C), unbiased; or covariances (B, G, d, d) of groups of channels.
        """
        degrees = (counts.double() - 1).view(*counts.shape, *[1] * (variances.dim() - counts.dim()))
        nothing = torch.zeros(variances.shape, dtype=torch.float64)
        kind = CovarianceAccumulator if variances.dim() > 2 else Accumulator
        return cls(
            kind.of_batches(counts, means, variances.cpu() * degrees),
            Accumulator.of_batches(counts, variances, nothing),
            len(counts),
        )

    def merged(self, other: Estimate) -> Estimate:
        """The estimate from the mini-batches of both."""
        return Estimate(
            self.elements.merged(other.elements),
            self.variances.merged(other.variances),
            self.batches + other.batches,
        )

    @classmethod
    def side_by_side(cls, estimates: Sequence[Estimate]) -> Estimate:
        """The estimate of all their channels, of as many mini-batches each; of covariances, the variances."""
        parts = [estimate.of_channels() for estimate in estimates]
        return cls(
            Accumulator.side_by_side([part.elements for part in parts]),
            Accumulator.side_by_side([part.variances for part in parts]),
            parts[0].batches,
        )

    def split(self, sizes: list[int]) -> list[Estimate]:
        """The estimates of so many channels each, within which counts are the same."""
        parts = zip(self.elements.split(sizes), self.variances.split(sizes), strict=True)
        return [Estimate(elements, variances, self.batches) for elements, variances in parts]

    def variance(self, estimator: Estimator) -> Tensor:
        """(C,): of all elements, Σ(x − mean)²/M, or the mean of the unbiased variances of mini-batches.

        (G, d, d) where covariances were given.
        """
        return self.elements.variance if estimator == "total" else self.variances.mean

    def standard_errors(self, estimator: Estimator) -> tuple[Tensor, Tensor]:
        """(C,) each: of the mean, in deviations, and of the variance, in variances.

        Elements of one mini-batch are no independent draws (pixels of an image are alike), mini-batches
        are: the errors are taken from how far the B mini-batches lie apart, each weighted by its count m_B
        of the M elements.

            error of the mean      √( Σ m_B·(mean_B − mean)² / ((B − 1)·M) )
            error of the variance  √( Σ m_B·(s²_B − s²)² / ((B − 1)·M)  +  2/(B − 1)·between² )

        between, the variance of the mini-batches' means, is a part of the total variance alone. Infinite for
        one mini-batch; zero where a channel is constant. Of covariances, those of the variances among them.
        """
        if self.elements.m2.dim() > 2:
            return self.of_channels().standard_errors(estimator)
        if self.batches < 2:
            return torch.full_like(self.elements.mean, math.inf), torch.full_like(
                self.elements.mean, math.inf
            )
        freedom = self.batches - 1
        between = self._between()
        of_mean = (between / freedom).sqrt()
        of_variance = self.variances.variance / freedom
        if estimator == "total":
            of_variance = of_variance + 2 / freedom * between.square()
        variance = self.variance(estimator)
        constant = variance <= 0
        scale = torch.where(constant, torch.ones_like(variance), variance)
        return of_mean / scale.sqrt(), of_variance.sqrt() / scale

    def of_channels(self) -> Estimate:
        """The estimate of each channel by itself, where it is one of covariances."""
        if self.elements.m2.dim() < 3:
            return self
        elements, variances = self.elements, self.variances
        return Estimate(
            Accumulator(elements.count, elements.mean, diagonal(elements.m2)),
            Accumulator(variances.count, diagonal(variances.mean), diagonal(variances.m2)),
            self.batches,
        )

    def _between(self) -> Tensor:
        """The variance of the mini-batches' means: the total one less that inside mini-batches."""
        count = self.elements.count
        # Σ (m_B − 1)·s²_B, with the weights m_B of `variances`; at most 1/m off where counts are unequal.
        inside = self.variances.mean * (count - self.batches)
        return ((self.elements.m2 - inside) / count).clamp_min(0)


def diagonal(covariances: Tensor) -> Tensor:
    """(C,), the variances among the covariances (G, d, d) of groups of channels."""
    return covariances.diagonal(dim1=-2, dim2=-1).flatten(-2)


def channel_wise(moment: Tensor) -> Tensor:
    """(C,), a moment of each channel; of covariances (G, d, d), their variances."""
    return diagonal(moment) if moment.dim() == 3 else moment

"""Source statistics and what was seen of a target domain, blended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from normwright.statistics.accumulator import Accumulator, CovarianceAccumulator, products
from normwright.statistics.estimate import channel_wise

# One sample says nothing of its own error. It is taken for one against so many of the source.
_AGAINST_ONE_SAMPLE = 16.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one layer has seen of the target domain.

    Samples are the independent draws: elements of one image are alike.

    Args:
        elements: moments of all elements; with covariances where the layer whitens.
        means: moments of the samples' means, each sample counting 1.
        squares: moments of the samples' mean squares (x − source mean)².
        eps: as the layer's calls had it; it keeps the choice of N from dividing by a dead channel's variance.
    """

    elements: Accumulator
    means: Accumulator
    squares: Accumulator
    eps: float

    @classmethod
    def of_samples(
        cls,
        means: Tensor,
        variances: Tensor,
        count: int,
        source_mean: Tensor,
        eps: float,
        covariance: Tensor | None = None,
    ) -> Evidence:
        """The evidence of one call.

        Args:
            means, variances: (n, C), of each sample; the variances biased.
            count: elements per sample and channel.
            source_mean: (C,).
            eps: the call's.
            covariance: (G, d, d), of all elements together, biased, where the layer whitens.
        """
        counts = torch.full((len(means),), count)
        if covariance is None:
            elements = Accumulator.of_batches(counts, means, variances * count)
        else:
            total = counts.sum().double()
            elements = CovarianceAccumulator(total, means.mean(0), covariance * total)
        return cls(
            elements,
            Accumulator.of(means),
            Accumulator.of(variances + (means - source_mean).square()),
            eps,
        )

    @property
    def samples(self) -> float:
        """How many samples were seen; a faded one counts less."""
        return float(self.means.count)

    def merged(self, other: Evidence) -> Evidence:
        """The evidence of both."""
        return Evidence(
            self.elements.merged(other.elements),
            self.means.merged(other.means),
            self.squares.merged(other.squares),
            self.eps,
        )

    def faded(self, share: float) -> Evidence:
        """The same evidence, with each sample counting for `share` of one."""
        return Evidence(
            self.elements.faded(share), self.means.faded(share), self.squares.faded(share), self.eps
        )


@dataclass(frozen=True, eq=False)
class Blend:
    """Statistics between source and target.

    Args:
        mean, variance: (C,), float64; of whitening, the covariance (G, d, d).
        source_share: λ = N/(N + n), the weight of the source.
    """

    mean: Tensor
    variance: Tensor
    source_share: float


def blend(evidence: Evidence, mean: Tensor, variance: Tensor, weight: float | None) -> Blend:
    """Takes the source for N samples beside the n that were seen, as one mixture.

        mean = λ·mean_s + (1 − λ)·mean_t,    λ = N/(N + n)
        variance = λ·variance_s + (1 − λ)·variance_t + λ·(1 − λ)·(mean_s − mean_t)²

    Args:
        evidence: of the target.
        mean, variance: (C,), of the source, float64. A covariance (G, d, d) takes the products of its group's
            distances for the square.
        weight: N, in samples; None for the one that `chosen_share` chooses.
    References:
        Schneider et al. 2020, arXiv:2006.16971, whose blended variance has no last term.
    """
    target, n = evidence.elements, evidence.samples
    share = chosen_share(evidence, mean, channel_wise(variance)) if weight is None else weight / (weight + n)
    distance = target.mean - mean
    apart = products(distance, variance) if variance.dim() == 3 else distance.square()
    return Blend(
        share * mean + (1 - share) * target.mean,
        share * variance + (1 - share) * target.variance + share * (1 - share) * apart,
        share,
    )


def chosen_share(evidence: Evidence, mean: Tensor, variance: Tensor) -> float:
    """The share λ of the source with the least expected error of the blend, for one layer.

    The blend of an estimate with squared error E, unbiased, and of a source that lies B away from the
    truth has the least error for λ = E/(E + B²). E is known from how far the samples lie apart; the squared
    distance between estimate and source is E + B² on average. Both are summed over the channels, for the mean
    in units of the variance and for the mean square in units of twice its square, which is how much a normal
    distribution is changed by either:

        λ = Σ_c (e_mean + e_square) / Σ_c ((mean_t − mean_s)²/v + (square_t − v)²/(2v²)),   at most 1

    Where the target is the source, λ nears 1 and nothing is lost; the larger the shift beside what chance
    explains, the nearer λ is to 0.

    References:
        James & Stein 1961, "Estimation with quadratic loss", the shrinkage that this is an instance of.
    """
    n = evidence.samples
    if n <= 1:
        return _AGAINST_ONE_SAMPLE / (_AGAINST_ONE_SAMPLE + n)
    unit = variance + evidence.eps
    freedom = n * (n - 1)
    error = evidence.means.m2 / freedom / unit + evidence.squares.m2 / freedom / (2 * unit.square())
    distance = (evidence.means.mean - mean).square() / unit
    distance = distance + (evidence.squares.mean - variance).square() / (2 * unit.square())
    total = float(distance.sum())
    return min(1.0, float(error.sum()) / total) if total > 0 else 1.0

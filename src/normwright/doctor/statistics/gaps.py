"""How far outputs lie apart that are normalised by one pair of moments or another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from normwright.functional.whitening.autograd import Rule
from normwright.statistics.estimate import diagonal


def output_apart(
    mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Mean squares per channel, over elements of the first moments, before the weight.

        y = (x - mean)/√(variance + eps),   y' = (x - mean')/√(variance' + eps)
        E(y' - y)² = variance·(rstd' - rstd)² + ((mean - mean')·rstd')²,   E y² = variance·rstd²

    Args:
        mean, variance: (C,) of the elements, in float64.
        other_mean, other_variance: (C,), that they might be normalised by.
        eps: added to a variance.
    Returns:
        (C,) each: E(y' - y)² and E y².
    Example:
        >>> zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        >>> output_apart(zero, one, one / 2, one, 0.0)
        (tensor([0.2500], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    rstd, other_rstd = (variance + eps).rsqrt(), (other_variance.clamp_min(0) + eps).rsqrt()
    apart = variance * (rstd - other_rstd).square() + ((mean - other_mean) * other_rstd).square()
    return apart, variance * rstd.square()


def whitened_apart(
    mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor, rule: Rule
) -> tuple[Tensor, Tensor]:
    """The same of whitening, whose P = (Σ + eps·I)^(-1/2) mixes the channels of a group.

        y = P·(x - mean),   y' = P'·(x - mean')
        E(y' - y)² = diag((P' - P)·Σ·(P' - P)) + (P'·(mean - mean'))²,   E y² = diag(P·Σ·P)

    Args:
        mean, covariance: (C,) and (G, d, d) of the elements, in float64.
        other_mean, other_covariance: that they might be whitened by.
        rule: how a covariance becomes P.
    Returns:
        (C,) each: E(y' - y)² and E y².
    Example:
        >>> from normwright.functional.whitening.autograd import Rule
        >>> zero, one = torch.zeros(2).double(), torch.eye(2)[None].double()
        >>> whitened_apart(zero, one, zero, 4 * one, Rule(2, 0.0, "zca", 1))[0]
        tensor([0.2500, 0.2500], dtype=torch.float64)
    """
    own, other = rule.projection(covariance), rule.projection(other_covariance)
    apart = other - own
    shift = (other @ (mean - other_mean).view(len(other), -1, 1)).flatten()
    return diagonal(apart @ covariance @ apart) + shift.square(), diagonal(own @ covariance @ own)


def relative(apart: Tensor, whole: Tensor, weight: Tensor | None) -> float:
    """√(Σ weight²·apart / Σ weight²·whole) over the channels; NaN where there is nothing to compare.

    A weight that is 0 throughout, as residual branches may start with, counts as 1.
    """
    if weight is not None and bool((weight != 0).any()):
        squares = weight.detach().to("cpu", torch.float64).square()
        apart, whole = apart * squares, whole * squares
    total = float(whole.sum())
    return math.sqrt(max(float(apart.sum()), 0.0) / total) if total > 0 else math.nan

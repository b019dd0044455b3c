"""How far a layer's values lie from a Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

# Of one unit; more add nothing that a mean over a layer's units would show.
_MOST_VALUES = 4_096


def gaussian_distance(values: Tensor) -> float:
    """The 2-Wasserstein distance of standardised values from the standard Gaussian, mean over units.

        W² = mean over i of (x̂₍ᵢ₎ − Φ⁻¹((i − ½)/n))²

    x̂₍ᵢ₎ are a unit's n values less their mean, over their deviation, in rising order. It is 0 for a Gaussian
    of any mean and deviation, 0.54 for a Gaussian cut off at its mean by a ReLU, 0.21 for a uniform variable,
    and less than √2. Units that give one value alone are left out; NaN where all do.

    Args:
        values: (N, C) or (N, C, *space); every position counts as a value of its channel, of which at most
            4,096 are taken, evenly spaced.
    Example:
        >>> round(gaussian_distance(torch.linspace(0, 1, 1000).reshape(-1, 1)), 2)
        0.21
    """
    units = values.transpose(0, 1).flatten(1).double()
    units = units[:, :: -(-units.shape[1] // _MOST_VALUES)]
    units = units[units.std(1) > 0]
    if not len(units):
        return float("nan")
    ordered = (
        ((units - units.mean(1, keepdim=True)) / units.std(1, correction=0, keepdim=True)).sort(1).values
    )
    count = units.shape[1]
    quantiles = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    return float((ordered - quantiles).square().mean(1).sqrt().mean())

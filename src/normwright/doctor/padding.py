"""What padded positions do to the moments of batch normalisers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaddingFacts:
    """One normaliser that takes the moments of the mini-batch over positions of which some are padding.

    Args:
        layer: qualified name.
        kind: its class's name.
        share: of padded positions among the elements of its moments.
        mean_shift: how far they move the mean, in deviations of the rest; root mean square over channels.
        variance_ratio: the variance with them over the one without; the channel that is farthest from 1.
        gap: relative error of the outputs at the other positions.
    """

    layer: str
    kind: str
    share: float
    mean_shift: float
    variance_ratio: float
    gap: float

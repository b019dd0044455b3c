"""Whether a sample's answer in inference mode depends on the samples beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CompanyFacts:
    """A batch against its halves, in inference mode.

    Args:
        samples: of the batch.
        outputs: relative difference of the outputs, in their deviations.
        rounding: what the order of sums may explain of it, by the outputs' dtype.
        layers: normalisers whose output differs where their input does not, with the relative difference, in
            the order of the forward pass.
    """

    samples: int
    outputs: float
    rounding: float
    layers: tuple[tuple[str, float], ...]

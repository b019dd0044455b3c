"""Which normalisers take moments of too few elements, at any size of batch."""

from __future__ import annotations

import math

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import SkipError
from normwright.doctor.statistics.moments import MomentFacts
from normwright.doctor.thresholds import THRESHOLDS


def over_batches(evidence: Evidence) -> tuple[MomentFacts, ...]:
    """Those that normalise by the moments of the batch in training."""
    return tuple(facts for facts in evidence.moments if facts.in_training and not facts.per_sample)


def noise_at(facts: MomentFacts, samples: float) -> float:
    """Relative noise of a mean over so many samples; it falls with the root of their number."""
    measured = facts.corrected if math.isfinite(facts.corrected) else facts.expected
    return measured * math.sqrt(facts.samples / samples)


def too_noisy(facts: MomentFacts, samples: float) -> str:
    """The threshold that moments of so many samples do not meet, or ""."""
    if noise_at(facts, samples) > THRESHOLDS["batch_noise"].value:
        return "batch_noise"
    return "batch_samples" if samples < THRESHOLDS["batch_samples"].value else ""


def larger_batches_first(evidence: Evidence) -> str:
    """The advice on gradients that moments of too few elements may have taken, or "".

    Of m centred and scaled elements m − 2 degrees of freedom are left: of a gradient that comes back through
    a batch norm over two elements, nothing is.
    """
    try:
        over = over_batches(evidence)
    except SkipError:
        return ""
    noisy = [facts for facts in over if too_noisy(facts, facts.samples) == "batch_noise"]
    if not noisy:
        return ""
    fewest = min(noisy, key=lambda facts: facts.elements)
    return (
        "Mend the size of the batch first (see batch_too_small), then look again: batch norm over "
        f"{fewest.elements} elements, as in {fewest.layer or 'the network'}, lets little of the gradient "
        "back."
    )


def is_of_one(facts: MomentFacts, samples: int) -> bool:
    """Whether so many samples give it one element per moment, which PyTorch refuses."""
    return facts.elements * samples == facts.samples

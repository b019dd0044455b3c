"""Which normalisers take moments of too few elements, at any size of batch."""

from __future__ import annotations

import math

from normwright.doctor.evidence import Evidence
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


def is_of_one(facts: MomentFacts, samples: int) -> bool:
    """Whether so many samples give it one element per moment, which PyTorch refuses."""
    return facts.elements * samples == facts.samples

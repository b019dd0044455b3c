"""Gradients are accumulated over mini-batches that are each too small for their moments."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.small_batches import noise_at, over_batches, too_noisy
from normwright.doctor.subject import Subject
from normwright.doctor.treatments.to_group_norm import to_group_norm


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser that is noisy over a mini-batch, and would not be over a whole step's."""
    times = evidence.accumulation
    if times == 1:
        raise SkipError("gradients are not accumulated")
    for facts in over_batches(evidence):
        if too_noisy(facts, facts.samples) and not too_noisy(facts, facts.samples * times):
            noise = noise_at(facts, facts.samples)
            message = (
                f"the optimiser sees {facts.samples * times} samples a step, its moments {facts.samples}: "
                "means "
                f"are off by {noise:.2g} deviations, over the whole step by {noise / times**0.5:.2g}"
            )
            yield Fault(facts.layer, message, noise, "accumulated_noise")


def healthy() -> Subject:
    """Mini-batches that are large enough each."""
    return _subject(64)


def sick() -> Subject:
    """Four samples a mini-batch, 32 a step."""
    return _subject(4)


def _subject(samples: int) -> Subject:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    batches = tuple((torch.randn(samples, 4), torch.randint(2, (samples,))) for _ in range(8))
    return Subject(network, batches, nn.functional.cross_entropy, accumulation=8)


RULE = Rule(
    name="accumulation_mismatch",
    what="Gradient accumulation enlarges the optimiser's batch, but not the one that is normalised over.",
    why="Each mini-batch is still normalised by its own few samples, and running statistics move towards the "
    "moments of parts, whose variance lacks what lies between them.",
    advice="Convert to group norm, or take larger mini-batches; normwright.statistics.accumulate(network) "
    "makes "
    "the running statistics those of the whole step.",
    references=("pytorch/pytorch issue 46516", "Wu & He 2018, arXiv:1803.08494"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=to_group_norm,
)

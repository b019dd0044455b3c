"""The mini-batch has too few samples for its moments."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.small_batches import noise_at, over_batches, too_noisy
from normwright.doctor.subject import Subject
from normwright.doctor.treatments.to_group_norm import to_group_norm
from normwright.network.counting import how_many


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose moments are noisy; where samples are few, at least one."""
    found = [(facts, too_noisy(facts, facts.samples)) for facts in over_batches(evidence)]
    noisy = [facts for facts, threshold in found if threshold == "batch_noise"]
    for facts in noisy:
        noise = noise_at(facts, facts.samples)
        message = (
            f"the mean of {how_many(facts.samples, 'sample')}, {how_many(facts.elements, 'element')}, is off "
            f"by {noise:.2g} deviations from batch to batch"
        )
        yield Fault(facts.layer, message, noise, "batch_noise")
    few = [facts for facts, threshold in found if threshold == "batch_samples"]
    if few and not noisy:
        worst = max(few, key=lambda facts: noise_at(facts, facts.samples))
        message = (
            f"moments are of {how_many(worst.samples, 'sample')}; here, where they are noisiest, means are "
            f"off by {noise_at(worst, worst.samples):.2g} deviations from batch to batch"
        )
        yield Fault(worst.layer, message, float(worst.samples), "batch_samples")


def healthy() -> Subject:
    """32 samples a batch."""
    return _subject(32)


def sick() -> Subject:
    """4 samples a batch."""
    return _subject(4)


def _subject(samples: int) -> Subject:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return Subject(network, tuple(torch.randn(samples, 4) for _ in range(4)))


RULE = Rule(
    name="batch_too_small",
    what="The moments of a mini-batch are of too few samples.",
    why="Each sample is shifted and scaled by what the few beside it happen to be, and inference, which goes "
    "by the population, computes something else than training did.",
    advice="Take a larger batch, synchronise the batch norms of several processes, or convert them to group "
    'norm: normwright.convert(network, to="group").',
    references=("Wu & He 2018, arXiv:1803.08494", "Ioffe 2017, arXiv:1702.03275"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=to_group_norm,
)

"""Batch norm over a single sample, or a single element."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.small_batches import over_batches
from normwright.doctor.subject import Subject
from normwright.doctor.treatments.to_group_norm import to_group_norm
from normwright.network.counting import how_many


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each layer that a batch gives one element per moment; else for batches of one."""
    layers = dict.fromkeys(refused.layer for refused in evidence.refused)
    for layer in layers:
        first = next(refused for refused in evidence.refused if refused.layer == layer)
        yield Fault(layer, f"batch {first.place + 1}: {first.because}", 1.0)
    alone = [facts for facts in over_batches(evidence) if facts.samples == 1]
    if alone and not layers:
        message = (
            f"batches are of one sample: of {how_many(len(alone), 'batch normaliser')} the moments are its "
            "alone, and inference, by those of the population, computes something else"
        )
        yield Fault(alone[0].layer, message, 1.0, severity="warning")


def healthy() -> Subject:
    """16 samples a batch."""
    return _subject(16)


def sick() -> Subject:
    """One."""
    return _subject(1)


def _subject(samples: int) -> Subject:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return Subject(network, tuple(torch.randn(samples, 4) for _ in range(4)))


RULE = Rule(
    name="batch_of_one",
    what="A mini-batch gives a batch normaliser one sample, or one value per channel.",
    why="The variance of one value is unknown: PyTorch raises. Over the positions of one sample batch "
    "norm is "
    "instance norm in training, and something else in inference.",
    advice="Take larger batches, and drop_last=True where the last holds one sample, or convert to group "
    "norm: "
    'normwright.convert(network, to="group").',
    references=("pytorch/pytorch issue 7716", "Wu & He 2018, arXiv:1803.08494"),
    severity="error",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=to_group_norm,
)

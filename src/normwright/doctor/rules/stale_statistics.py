"""Running statistics are not those of the network's data at its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.staleness import in_words, judged
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.treatments.recalibrated import recalibrated


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose running statistics are far from the population."""
    if evidence.averaged:
        return  # averaged_weights_stale holds them against less
    for facts in evidence.running:
        # as built in a layer as built: there is nothing yet that could be stale
        verdict = None if facts.untrained else judged(facts, THRESHOLDS["stale_gap"].value)
        if verdict is not None:
            severity, reason = verdict
            message = in_words(facts) + (f"; {reason}" if reason else "")
            yield Fault(facts.layer, message, facts.gap, "stale_gap", severity)


def healthy() -> Subject:
    """Statistics of the data that the network is run on."""
    subject = sick()
    return dataclasses.replace(subject, network=recalibrated(subject, "1")[0])


def sick() -> Subject:
    """A network that has been trained, on data of another scale."""
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).train()
    for _ in range(60):
        network(torch.randn(32, 4))
    return Subject(network, tuple(4 * torch.randn(32, 4) + 1 for _ in range(4)))


RULE = Rule(
    name="stale_statistics",
    what="Running statistics are far from the mean and variance of what the layer is given.",
    why="Inference normalises by them: the layers after it are given what they were not trained on, and the "
    "network is worse in inference than in training.",
    advice="Estimate the statistics anew over training data: normwright.recalibrate(network, batches).",
    references=("Wu & Johnson 2021, arXiv:2105.07576, section 3", "pytorch/pytorch issue 4741"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=lambda subject, finding: recalibrated(subject, finding.layer),
)

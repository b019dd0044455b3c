"""Running statistics are not those of the network's data at its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Severity
from normwright.doctor.recalibrated import recalibrated
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.running import RunningFacts
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose running statistics are far from the population."""
    if evidence.averaged:
        return  # averaged_weights_stale holds them against less
    for facts in evidence.running:
        if facts.gap > THRESHOLDS["stale_gap"].value:
            reason, severity = _reason(facts)
            yield Fault(facts.layer, f"{_in_words(facts)}{reason}", facts.gap, "stale_gap", severity)


def _reason(facts: RunningFacts) -> tuple[str, Severity]:
    if facts.frozen:
        return "; they are frozen, and training goes by them too", "note"
    if facts.untrained:
        return "; the network was never trained, and they are still as built", "note"
    if facts.remainder and facts.gap_beyond_start <= THRESHOLDS["stale_gap"].value:
        return (
            f"; after {facts.tracked} batches {facts.remainder:.0%} of their initial values is still in them",
            "note",
        )
    return "", "warning"


def _in_words(facts: RunningFacts) -> str:
    shift = max(map(abs, facts.mean_shift))
    least, most = min(facts.variance_ratio), max(facts.variance_ratio)
    return (
        f"outputs in inference are off by {facts.gap:.0%} of their size: running means by up to {shift:.2g} "
        f"deviations, running variances {least:.2g} to {most:.2g} times the data's"
    )


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

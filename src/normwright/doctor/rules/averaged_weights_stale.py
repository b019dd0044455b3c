"""Averaged weights with the running statistics of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.staleness import in_words
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.treatments.recalibrated import recalibrated

# Below it no batch of the size that is at hand could tell.
_NOTICED = 0.01


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose running statistics are not the averaged network's."""
    if not evidence.averaged:
        raise SkipError("the weights are not said to be averaged: averaged=False")
    for facts in evidence.running:
        if facts.gap > _NOTICED:
            grave = facts.gap > THRESHOLDS["averaged_gap"].value
            yield Fault(facts.layer, in_words(facts), facts.gap, "averaged_gap", None if grave else "note")


def healthy() -> Subject:
    """Statistics that were estimated anew after the averaging."""
    subject = sick()
    return dataclasses.replace(subject, network=recalibrated(subject, "1")[0])


def sick() -> Subject:
    """The mean of two networks' weights, with the statistics of the last."""
    network, other = _network(), _network()
    batches = tuple(torch.randn(64, 4) for _ in range(4))
    for batch in batches * 25:
        network(batch)
    with torch.no_grad():
        for parameter, second in zip(network.parameters(), other.parameters(), strict=True):
            parameter.lerp_(second, 0.5)
    return Subject(network, batches, averaged=True)


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).train()


RULE = Rule(
    name="averaged_weights_stale",
    what="A network of averaged weights (SWA, EMA) has the running statistics of other weights.",
    why="Statistics are of activations, and these are no average of what the averaged networks computed.",
    advice="Run training data through the averaged network once: normwright.recalibrate(network, "
    "batches), or "
    "torch.optim.swa_utils.update_bn.",
    references=("Izmailov et al. 2018, arXiv:1803.05407, section 3.2",),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=lambda subject, finding: recalibrated(subject, finding.layer),
)

"""What a normaliser is given varies less than eps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser where eps is more than half of the denominator in most channels."""
    for facts in evidence.moments:
        if facts.below_eps > THRESHOLDS["eps_share"].value:
            yield Fault(
                facts.layer,
                f"the variance of {facts.below_eps:.0%} of its channels is at most eps = {facts.eps:g} (the "
                f"median is {facts.middle_variance:.2g}), so that they are hardly normalised",
                facts.below_eps,
                "eps_share",
            )


def healthy() -> Subject:
    """Inputs of a deviation around 1."""
    return _subject(1.0)


def sick() -> Subject:
    """Pixels divided by 255 twice."""
    return _subject(1 / 255**2)


def _subject(scale: float) -> Subject:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return Subject(network, tuple(scale * torch.randn(32, 4) for _ in range(2)))


RULE = Rule(
    name="eps_dominates",
    what="The variance of what a normaliser is given is below its eps.",
    why="rstd = 1/√(variance + eps) is then set by eps: outputs stay small, and they follow the scale of the "
    "input, which a normaliser is there to take away.",
    advice="Scale the network's input to a deviation of 1, or make eps small against the variance.",
    references=("Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1",),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

"""Most of what reaches a sigmoid or tanh lies in its flat part."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each hidden layer; an output that is sure of itself is meant to saturate."""
    for facts in evidence.activations:
        if not facts.flat or facts.is_output:
            continue
        share = statistics.median(facts.flat)
        if share >= THRESHOLDS["saturated_share"].value:
            yield Fault(
                facts.layer, f"{share:.0%} of its outputs are in the flat part of {facts.kind}",
                share, "saturated_share",
            )  # fmt: skip


def healthy() -> Subject:
    """A batch norm before tanh."""
    return _subject(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


def sick() -> Subject:
    """Weights of deviation 5 before tanh."""
    linear = nn.Linear(8, 8)
    nn.init.normal_(linear.weight, std=5.0)
    return _subject(linear, nn.Tanh(), nn.Linear(8, 2))


def _subject(*layers: nn.Module) -> Subject:
    batch = torch.randn(32, 8), torch.randint(2, (32,))
    return Subject(nn.Sequential(*layers), (batch,), nn.functional.cross_entropy)


RULE = Rule(
    name="saturated_activation",
    what="Most outputs of a hidden sigmoid or tanh lie where its derivative is below 5 % of its maximum.",
    why="The gradient is multiplied by that derivative: hardly any of it reaches the layers below.",
    advice="Put a normaliser between the linear layer or convolution and the activation, lower the initial "
    "weights (Xavier), or take ReLU.",
    references=("Glorot & Bengio 2010, AISTATS", "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.2"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

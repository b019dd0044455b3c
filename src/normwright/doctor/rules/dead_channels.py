"""Channels of a hidden layer that are never active."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.training.dying import dead_faults


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each layer."""
    yield from dead_faults(evidence, "channels", spatial=True)


def healthy() -> Subject:
    """A batch norm before the ReLU."""
    return _subject(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


def sick() -> Subject:
    """Filters and biases that answer any bright image with a negative number."""
    layer = nn.Conv2d(3, 8, 3)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, -1.0)
    return _subject(layer, nn.ReLU())


def _subject(*layers: nn.Module) -> Subject:
    batch = torch.rand(16, 3, 6, 6), torch.randint(2, (16,))
    return Subject(
        nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 2)), (batch,), nn.functional.cross_entropy
    )


RULE = Rule(
    name="dead_channels",
    what="Channels of a layer give 0, or lie in the flat part of their function, at every position of every "
    "sample.",
    why="No gradient passes a channel that is flat everywhere: its filter never moves again, and costs time "
    "and memory for nothing.",
    advice="Put a normaliser before the activation where there is none, raise its bias, lower the learning "
    "rate, or take a function without a dead side (LeakyReLU).",
    references=("Maas et al. 2013, Rectifier nonlinearities", "Mehta et al. 2019, arXiv:1811.12495"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

"""Units of a hidden layer that are never active."""

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
    yield from dead_faults(evidence, "units", spatial=False)


def healthy() -> Subject:
    """A batch norm before the ReLU."""
    return _subject(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())


def sick() -> Subject:
    """A bias that no input outweighs."""
    layer = nn.Linear(8, 8)
    nn.init.constant_(layer.bias, -20.0)
    return _subject(layer, nn.ReLU())


def _subject(*layers: nn.Module) -> Subject:
    batch = torch.randn(64, 8), torch.randint(2, (64,))
    return Subject(nn.Sequential(*layers, nn.Linear(8, 2)), (batch,), nn.functional.cross_entropy)


RULE = Rule(
    name="dead_units",
    what="Units of a layer give 0, or lie in the flat part of their function, for every sample.",
    why="No gradient passes a unit that is flat for every sample: its weights never move again, and the "
    "layer is as wide as what is left of it.",
    advice="Put a normaliser before the activation where there is none, lower the learning rate or the "
    "initial bias, or take a function without a dead side (LeakyReLU).",
    references=("Maas et al. 2013, Rectifier nonlinearities", "He et al. 2015, arXiv:1502.01852"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

"""Padded positions count in the moments of a batch normaliser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose moments padding moves."""
    for facts in evidence.padding:
        if facts.gap > THRESHOLDS["padding_gap"].value:
            yield Fault(
                facts.layer,
                f"{facts.share:.0%} of the elements of its moments are padding, which moves its outputs "
                "at the "
                f"other positions by {facts.gap:.0%} of their size (means by {facts.mean_shift:.2g} "
                "deviations, a "
                f"variance to {facts.variance_ratio:.2g} times)",
                facts.gap,
                "padding_gap",
            )


def healthy() -> Subject:
    """Sequences of one length."""
    return _subject(8)


def sick() -> Subject:
    """Sequences of 2 to 8 positions, padded with zeros to 8."""
    return _subject(2)


def _subject(shortest: int) -> Subject:
    lengths = torch.randint(shortest, 9, (16,))
    padding = torch.arange(8) >= lengths[:, None]
    x = (2 + torch.randn(16, 3, 8)).masked_fill(padding[:, None], 0.0)
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Conv1d(3, 2, 1))
    return Subject(network, (x,), padding=_zeros)


def _zeros(batch: Any) -> Tensor:
    padding: Tensor = (batch == 0).all(1)
    return padding


RULE = Rule(
    name="padding_contamination",
    what="Padded positions are among the elements whose mean and variance a batch normaliser takes.",
    why="The moments then depend on how much padding a batch happens to have: the same sequence comes out "
    "otherwise beside a longer one, and inference sees another share of padding than training.",
    advice="Normalise the unpadded positions alone (pack them, or select them by the mask), or normalise "
    "each "
    "position by itself (layer norm).",
    references=("Laurent et al. 2015, arXiv:1510.01378, section 3",),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

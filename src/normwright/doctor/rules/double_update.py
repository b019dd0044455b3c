"""Activation checkpointing moves running statistics a second time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.statistics.count_once import count_once


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser whose statistics move inside a backward."""
    for facts in evidence.counts:
        if facts.moves_recomputed:
            yield Fault(
                facts.layer,
                f"it runs {facts.runs:g} times a mini-batch, but its running statistics move {facts.moves:g} "
                "times: again when the backward runs it for the second time",
                facts.moves,
            )


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Makes a recomputation put them back."""
    count_once(subject.network)
    return subject.network, subject.optimiser


class _Checkpointed(nn.Module):
    """A layer and its normaliser, whose activations are computed anew in the backward."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.output = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 2)."""
        y: Any = checkpoint(self.inside, x, use_reentrant=False)
        scores: Tensor = self.output(y)
        return scores


def healthy() -> Subject:
    """Statistics that are put back."""
    subject = sick()
    count_once(subject.network)
    return subject


def sick() -> Subject:
    """PyTorch's batch norm in a checkpoint."""
    batches = tuple((torch.randn(16, 4), torch.randint(2, (16,))) for _ in range(3))
    return Subject(_Checkpointed(), batches, nn.functional.cross_entropy)


RULE = Rule(
    name="double_update",
    what="Activation checkpointing runs a normaliser twice, and its running statistics move twice.",
    why="They forget faster than momentum says, and an average over all batches (momentum=None) or anything "
    "that goes by num_batches_tracked is wrong.",
    advice="Call normwright.statistics.count_once(network), or use normwright.nn's normalisers, which "
    "count once.",
    references=("pytorch/pytorch issue 96136",),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
)

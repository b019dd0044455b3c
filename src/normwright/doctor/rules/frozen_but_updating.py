"""A normaliser is meant to stand still, but its running statistics move."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.network.freezing import freeze


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser that seems frozen and moves."""
    for facts in evidence.counts:
        if facts.meant_frozen and facts.moves:
            yield Fault(
                facts.layer,
                f"{facts.meant_frozen}, but its running statistics move {_often(facts.moves)}",
                facts.moves,
            )


def _often(moves: float) -> str:
    if moves < 1:
        return f"in {moves:.0%} of the mini-batches"
    return "with every mini-batch" if moves == 1 else f"{moves:g} times a mini-batch"


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Holds its statistics where they are, whatever mode the network is put in."""
    name = finding.layer.partition(": ")[0]
    return freeze(subject.network, names=[name] if name else None, inplace=True), subject.optimiser


def healthy() -> Subject:
    """The frozen part is held in inference."""
    subject = sick()
    freeze(subject.network, names=["1"], inplace=True)
    return subject


def sick() -> Subject:
    """Parameters of a pretrained part take no gradient; `train()` has put its normaliser in training mode."""
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    network[:2].requires_grad_(False)
    batches = tuple((torch.randn(16, 4), torch.randint(2, (16,))) for _ in range(3))
    return Subject(network.train(), batches, nn.functional.cross_entropy)


RULE = Rule(
    name="frozen_but_updating",
    what="A normaliser's weight and bias are frozen, but its running statistics move with every batch.",
    why="requires_grad_(False) leaves running statistics alone, and train() undoes an eval() of the "
    "layer: the "
    "pretrained part computes something else after every step.",
    advice="Freeze the statistics too, after every train(): normwright.freeze(network, names=[layer]).",
    references=("pytorch/pytorch issue 86590",),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
)

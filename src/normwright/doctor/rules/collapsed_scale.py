"""A normaliser's weight is so near to 0 that its channels carry nothing."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.missing import known
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.training.scales import COLLAPSED, ScaleFacts, weights_of


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser with many such channels; a few, or a start at 0, are a note."""
    stepped = _stepped(evidence)
    for facts in evidence.scales:
        share = facts.collapsed / facts.channels
        if share < THRESHOLDS["collapsed_few"].value:
            continue
        many = share >= THRESHOLDS["collapsed_share"].value
        if _only_starts_there(facts, stepped):
            many, message = False, "its weight starts at 0, as that of a residual branch may"
        else:
            message = f"{facts.collapsed} of {facts.channels} weights are below {COLLAPSED:g} in magnitude"
        yield Fault(
            facts.layer, message, share, "collapsed_share" if many else "collapsed_few",
            None if many else "note", mechanical=many,
        )  # fmt: skip


def _only_starts_there(facts: ScaleFacts, stepped: bool) -> bool:
    """A weight of 0 that training moves away from there, as far as there was a step to see it in."""
    return facts.largest_before == 0 and facts.trained and (facts.largest > 0 or not stepped)


def _stepped(evidence: Evidence) -> bool:
    """Whether the optimiser made a step."""
    return any(facts.updates for facts in known(lambda: evidence.gradients))


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Sets the weights that are close to 0 to 1, where a normaliser starts."""
    weight = weights_of(subject.network)[finding.layer]
    with torch.no_grad():
        weight[weight.abs() < COLLAPSED] = 1.0
    return subject.network, subject.optimiser


def healthy() -> Subject:
    """Weights as they are built."""
    return _subject(1.0)


def sick() -> Subject:
    """Weights that decay has pulled to 0."""
    return _subject(1e-4)


def _subject(weight: float) -> Subject:
    norm = nn.BatchNorm1d(8)
    nn.init.constant_(norm.weight, weight)
    network = nn.Sequential(nn.Linear(4, 8), norm, nn.ReLU(), nn.Linear(8, 2))
    batch = torch.randn(16, 4), torch.randint(2, (16,))
    return Subject(network, (batch,), nn.functional.cross_entropy)


RULE = Rule(
    name="collapsed_scale",
    what="Weights of a normaliser are close to 0, so that their channels are constant.",
    why="What a normaliser scales has deviation 1, so its weight is the deviation of what it hands on: such "
    "a channel carries nothing, and neither does the gradient through it.",
    advice="Set the weights to 1 and leave them out of weight decay; if they shrank by themselves, the "
    "channels can be pruned.",
    references=("Liu et al. 2017, arXiv:1708.06519", "Goyal et al. 2017, arXiv:1706.02677, section 5.1"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
)

"""A normaliser whose moments are of one or two elements."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from normwright.doctor.evidence import Evidence
from normwright.doctor.finding import Finding
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.structure.normalisers import NormaliserFacts
from normwright.doctor.subject import Subject

_CENTRED = ("group", "instance", "layer")


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for each normaliser within a sample of which at most a sign is left."""
    for norm in evidence.normalisers:
        if norm.elements is None or not norm.by_data or norm.kind not in (*_CENTRED, "rms"):
            continue
        left = norm.elements - (norm.kind in _CENTRED)
        if left > 1:
            continue
        yield Fault(
            norm.name,
            f"each of its moments is of {norm.elements} element{'s' * (norm.elements > 1)}, so that it gives "
            f"{'±1' if left else '0'}, times its weight, whatever comes in",
            norm.elements,
            "group_elements",
            where=norm.where,
            mechanical=_can_regroup(norm),
        )


def _can_regroup(norm: NormaliserFacts) -> bool:
    return norm.kind == "group" and norm.known and not norm.functional and (norm.groups or 0) > 1


def treat(subject: Subject, finding: Finding) -> tuple[nn.Module, Optimizer | None]:
    """Takes half as many groups until a moment is of more than two elements."""
    norm = subject.network.get_submodule(finding.layer)
    assert isinstance(norm, nn.GroupNorm)
    space = max(1, int(finding.value or 1) * norm.num_groups // norm.num_channels)
    groups = norm.num_groups
    while groups > 1 and (norm.num_channels % groups or norm.num_channels // groups * space <= 2):
        groups -= 1
    norm.num_groups = groups
    return subject.network, subject.optimiser


def healthy() -> Subject:
    """Groups of four channels, on a map of one pixel."""
    return _subject(groups=2)


def sick() -> Subject:
    """As many groups as channels, on a map of one pixel."""
    return _subject(groups=8)


def _subject(groups: int) -> Subject:
    pooled = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    network = nn.Sequential(*pooled, nn.Conv2d(8, 8, 1), nn.GroupNorm(groups, 8))
    return Subject(network, (torch.randn(4, 3, 8, 8),))


RULE = Rule(
    name="group_of_one",
    what="A normaliser takes each mean and variance of one or two elements.",
    why="One element less its own mean is 0, and two become +1 and -1: of the input nothing but an order "
    "gets through, and no gradient comes back.",
    advice="Take fewer groups, or normalise before the map is pooled to one pixel, or drop the normaliser.",
    references=("Wu & He 2018, arXiv:1803.08494", "Ulyanov et al. 2016, arXiv:1607.08022"),
    severity="error",
    check=check,
    healthy=healthy,
    sick=sick,
    treat=treat,
    static=True,
)

"""The steps of the trial make the loss worse than that of answers which know nothing of their sample."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for the network.

    A loss that rises is no fault by itself: where next to nothing is left of it, the first steps of an
    optimiser without a memory may well double it, and mini-batches differ. So the mean over the trial is held
    against the loss of answers that are the same whatever the sample: more than that nobody need lose.
    """
    evidence.need_optimiser()
    modes = evidence.modes
    if math.isnan(modes.loss_uninformed):
        raise SkipError("the loss of answers that know nothing of their sample is unknown")
    nothing = max(modes.loss_training, modes.loss_uninformed)
    if nothing <= 0:
        raise SkipError("a loss that may be below 0 does not say how much there is to lose")
    after = [loss for loss in evidence.losses[evidence.accumulation :] if math.isfinite(loss)]
    if not after:
        raise SkipError("no mini-batch followed the optimiser's first step")
    mean = sum(after) / len(after)
    threshold = "forgetting_loss" if modes.loss_training < modes.loss_uninformed / 2 else "diverging_loss"
    if mean / nothing >= THRESHOLDS[threshold].value:
        yield Fault(
            "", f"after the optimiser's first step the loss is {mean:.3g} on average; before it is "
            f"{modes.loss_training:.3g}, and {modes.loss_uninformed:.3g} where each sample is given the mean "
            "answer to the others", mean / nothing, threshold,
        )  # fmt: skip


def healthy() -> Subject:
    """An ordinary learning rate."""
    return _subject(0.1)


def sick() -> Subject:
    """One that is a hundred times as large."""
    return _subject(10.0)


def _subject(rate: float) -> Subject:
    network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    batches = []
    for _ in range(4):
        x = torch.randn(64, 8)
        batches.append((x, (x.sum(1) > 0).long()))
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    return Subject(network, tuple(batches), nn.functional.cross_entropy, optimiser)


RULE = Rule(
    name="diverging_loss",
    what="The optimiser's first steps bring the loss to where it is, or above, if every sample gets the same "
    "answer.",
    why="What the network knew is lost, and nothing is learned in its place: training diverges, or goes on "
    "from nothing.",
    advice="Lower the learning rate (normwright.lr_range_test finds the range that trains), let it rise "
    "from 0 over the first steps, or clip gradients; what is trained takes smaller steps than what is not.",
    references=(
        "Smith 2017, arXiv:1506.01186, section 3.3",
        "Goyal et al. 2017, arXiv:1706.02677, section 2.2",
    ),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

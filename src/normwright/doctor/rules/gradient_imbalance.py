"""Layers near the loss and layers near the input get gradients of very different size."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.examples import sigmoid_network, two_classes
from normwright.doctor.missing import SkipError
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.small_batches import larger_batches_first
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.training.profile import are_moved_alike, ends, ladder


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault for the network; a note where the optimiser's steps make up for it."""
    rungs = ladder(evidence)
    if len(rungs) < 2:
        raise SkipError("it takes two layers with weights")
    at_input, at_loss = ends(rungs)
    larger, smaller = max(at_input, at_loss), min(at_input, at_loss)
    if smaller == 0 or larger / smaller < THRESHOLDS["gradient_imbalance"].value:
        return
    steps = ends(rungs, by="moved")
    made_up_for = are_moved_alike(steps)
    how = (
        f"; {evidence.optimiser}'s steps differ by {max(steps) / min(steps):.2g} times" if made_up_for else ""
    )
    where = "at the loss" if at_loss > at_input else "at the input"
    other = "at the input" if at_loss > at_input else "at the loss"
    yield Fault(
        "", f"against the weights, the gradient of the layers {where} is {larger / smaller:.3g} times "
        f"that of the layers {other}{how}", larger / smaller, "gradient_imbalance",
        "note" if made_up_for else None, advice=larger_batches_first(evidence),
    )  # fmt: skip


def healthy() -> Subject:
    """Four sigmoid layers with batch norm."""
    return _subject(normalised=True)


def sick() -> Subject:
    """The same without."""
    return _subject(normalised=False)


def _subject(*, normalised: bool) -> Subject:
    network = sigmoid_network(4, normalised=normalised)
    return Subject(network, (two_classes(),), nn.functional.cross_entropy)


RULE = Rule(
    name="gradient_imbalance",
    what="The gradient, against the weights, differs much between layers near the loss and near the input.",
    why="One learning rate cannot suit both: one end hardly moves, or the other is thrown about.",
    advice="Put a normaliser after each linear layer or convolution that has none; else initialise by Xavier "
    "or Kaiming, or take an optimiser that scales each layer's step (Adam, LARS).",
    references=("Glorot & Bengio 2010, AISTATS", "You et al. 2017, arXiv:1708.03888"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

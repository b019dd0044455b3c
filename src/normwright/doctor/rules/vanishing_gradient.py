"""The gradient of the layers at the input is a tiny part of what other layers get."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.examples import sigmoid_network, two_classes
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.statistics.small_batches import larger_batches_first
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.training.arrival import first_reached, waiting
from normwright.doctor.training.profile import are_moved_alike, ladder


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault, at the layer that gets least of those from the input up to where the gradient suffices.

    A note where the optimiser's steps make up for it. Nothing where an embedding or normaliser nearer to the
    input gets enough, nor where a branch has yet to open.
    Another where none at all arrives: at the last of those layers.
    """
    reached = {facts.layer for facts in evidence.gradients if facts.steps}
    trained = {facts.layer for facts in evidence.parameters if facts.trained}
    layers = [facts.layer for facts in evidence.activations if facts.layer in trained]
    # from the input on: what ends in an output that the loss does not read is no fault
    cut_off = list(itertools.takewhile(lambda layer: layer not in reached, layers))
    if cut_off and reached:
        yield Fault(
            cut_off[-1], f"it takes a gradient, but none arrives, nor at any of the {len(cut_off)} layers up "
            "to it from the input: something after it detaches its input", 0.0, "vanishing_gradient",
        )  # fmt: skip
    rungs = ladder(evidence)
    most = max(rungs, key=lambda rung: rung.relative)
    shut = waiting(evidence)
    rungs = tuple(rung for rung in rungs if rung.parameter not in shut)
    if not rungs:
        return
    if most.relative == 0:
        advice = larger_batches_first(evidence)
        yield Fault("", "no weights get any gradient", 0.0, "vanishing_gradient", advice=advice)
        return
    enough = THRESHOLDS["vanishing_gradient"].value * most.relative
    end = first_reached(evidence, enough)
    starved = list(itertools.takewhile(lambda rung: rung.relative < enough and rung.place < end, rungs))
    if starved:
        least = min(starved, key=lambda rung: rung.relative)
        share = least.relative / most.relative
        made_up_for = are_moved_alike([rung.moved for rung in (most, *starved)])
        how = f", though {evidence.optimiser}'s steps move all of them about alike" * made_up_for
        yield Fault(
            least.layer, f"its gradient, against its weights, is {share:.1e} of that of {most.layer}; "
            f"{len(starved)} of {len(rungs)} layers, from the input on, are as starved{how}",
            share, "vanishing_gradient", "note" if made_up_for else None,
            advice=larger_batches_first(evidence),
        )  # fmt: skip


def healthy() -> Subject:
    """Eight sigmoid layers with batch norm."""
    return _subject(normalised=True)


def sick() -> Subject:
    """The same without."""
    return _subject(normalised=False)


def _subject(*, normalised: bool) -> Subject:
    network = sigmoid_network(8, normalised=normalised)
    return Subject(network, (two_classes(),), nn.functional.cross_entropy)


RULE = Rule(
    name="vanishing_gradient",
    what="Layers at the input get hardly any gradient, compared with their weights and with other layers.",
    why="They stay as they were initialised, and the network learns on what random layers make of its input.",
    advice="Put a normaliser after each linear layer or convolution that has none, take activations that do "
    "not saturate (ReLU), Xavier or Kaiming initialisation, or residual connections.",
    references=("Bengio et al. 1994, IEEE TNN 5(2)", "Glorot & Bengio 2010, AISTATS"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

"""Gradients or steps are many times the weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.examples import two_classes
from normwright.doctor.finding import Severity
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.training.profile import ends, ladder


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault, at the layer where it is worst; a note where the optimiser makes small steps of it."""
    rungs = ladder(evidence)
    worst = max(rungs, key=lambda rung: rung.update)
    if worst.update >= THRESHOLDS["exploding_update"].value:
        yield Fault(
            worst.layer, f"one optimiser step moves its weights by {worst.update:.3g} times their size",
            worst.update, "exploding_update",
        )  # fmt: skip
        return
    step = worst.update
    though = f", though {evidence.optimiser}'s steps are at most {step:.2g} of the weights" if step else ""
    severity: Severity | None = "note" if though else None
    worst = max(rungs, key=lambda rung: rung.largest)
    if worst.largest >= THRESHOLDS["exploding_gradient"].value:
        yield Fault(
            worst.layer, f"its gradient is {worst.largest:.3g} times as large as its weights{though}",
            worst.largest, "exploding_gradient", severity,
        )  # fmt: skip
        return
    at_input, at_loss = ends(rungs)
    if at_loss and at_input / at_loss >= THRESHOLDS["exploding_backwards"].value:
        yield Fault(
            rungs[0].layer, f"on its way from the loss to the input the gradient, against the weights, grows "
            f"{at_input / at_loss:.3g} times{though}", at_input / at_loss, "exploding_backwards", severity,
        )  # fmt: skip


def healthy() -> Subject:
    """Kaiming's initialisation."""
    return _subject(2**0.5 / 4)


def sick() -> Subject:
    """Weights of deviation 2."""
    return _subject(2.0)


def _subject(deviation: float) -> Subject:
    layers: list[nn.Module] = []
    for _ in range(8):
        layers += [nn.Linear(16, 16), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(16, 2))
    for layer in layers[::2]:
        nn.init.normal_(layer.get_parameter("weight"), std=deviation)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    return Subject(network, (two_classes(),), nn.functional.cross_entropy, optimiser)


RULE = Rule(
    name="exploding_gradient",
    what="Gradients, or the optimiser's steps, are many times the weights.",
    why="One step replaces what was learned, and the next gradient is larger still: the loss jumps or "
    "becomes NaN.",
    advice="Lower the learning rate or the initial weights, put a normaliser after each linear layer or "
    "convolution that has none, or clip gradients; clipping in a loop of your own is not seen here.",
    references=(
        "Pascanu et al. 2013, arXiv:1211.5063",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.3",
    ),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

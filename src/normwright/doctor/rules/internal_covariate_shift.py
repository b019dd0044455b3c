"""One step of the layers below moves a layer's input away from where it was."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import torch
from torch import nn

from normwright.doctor.evidence import Evidence
from normwright.doctor.examples import sigmoid_network, two_classes
from normwright.doctor.rule import Fault, Rule
from normwright.doctor.subject import Subject
from normwright.doctor.thresholds import THRESHOLDS


def check(evidence: Evidence) -> Iterator[Fault]:
    """One fault, at the layer whose input moves most.

    It is judged by the drift of the input alone. Santurkar et al.'s measure, the change of the gradient, is
    as large in healthy networks at an ordinary learning rate, with batch norm too, and is shown beside it.
    """
    evidence.need_optimiser()
    measured = [facts for facts in evidence.covariate_shift if not all(map(math.isnan, facts.drift))]
    if not measured:
        return
    worst = max(measured, key=lambda facts: _middle(facts.drift))
    drift = _middle(worst.drift)
    if drift >= THRESHOLDS["input_drift_some"].value:
        far = drift >= THRESHOLDS["input_drift"].value
        yield Fault(
            worst.layer, f"one step below moves the mean of its input by {drift:.3g} deviations; the "
            f"cosine of its gradients before and after is {_middle(worst.cosines):.2f}", drift,
            "input_drift" if far else "input_drift_some", None if far else "note",
        )  # fmt: skip


def _middle(values: tuple[float, ...]) -> float:
    return statistics.median([value for value in values if not math.isnan(value)] or [math.nan])


def healthy() -> Subject:
    """Layers with batch norm."""
    return _subject(normalised=True)


def sick() -> Subject:
    """The same without."""
    return _subject(normalised=False)


def _subject(*, normalised: bool) -> Subject:
    network = sigmoid_network(6, normalised=normalised)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    return Subject(network, (two_classes(),), nn.functional.cross_entropy, optimiser)


RULE = Rule(
    name="internal_covariate_shift",
    what="One step of the optimiser moves the distribution of a layer's input by more than its own width.",
    why="The layer is asked for answers on values that it has never seen, and its own step was made for "
    "others: training must be slow to go on at all.",
    advice="Lower the learning rate, or put a normaliser before the layer where there is none.",
    references=("Ioffe & Szegedy 2015, arXiv:1502.03167", "Santurkar et al. 2018, arXiv:1805.11604"),
    severity="warning",
    check=check,
    healthy=healthy,
    sick=sick,
)

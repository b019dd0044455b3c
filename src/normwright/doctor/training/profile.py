"""The gradient's size by depth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from normwright.doctor.evidence import Evidence
from normwright.doctor.missing import SkipError
from normwright.doctor.thresholds import THRESHOLDS
from normwright.doctor.training.gradients import GradientFacts, ratio

#: A batch holds few of their rows, and only they have a gradient.
EMBEDDINGS = ("Embedding", "EmbeddingBag")


@dataclass(frozen=True)
class Rung:
    """The weights of one layer that is no normaliser.

    Args:
        layer: qualified name.
        place: the layer's, in the order of the forward pass.
        parameter: qualified name of the weights.
        relative: ‖g‖/‖w‖, the median over steps: the share of themselves by which they would change at
            learning rate 1, whatever the layer's width.
        largest: the largest ‖g‖/‖w‖ of any step.
        update: the largest ‖Δw‖/‖w‖ of any step; 0 without an optimiser.
        moved: the median of it over steps; likewise.
    """

    layer: str
    place: int
    parameter: str
    relative: float
    largest: float
    update: float
    moved: float


def ladder(evidence: Evidence) -> tuple[Rung, ...]:
    """Layers with weights (matrices and filters; biases and embeddings left out), from input to loss.

    Weights that are 0 where they start are left out, for lack of a size; under weight norm the direction
    counts, and its length is left out, of which a normaliser that follows takes all gradient away.

    Raises:
        SkipError: there were no gradients, or none of such weights.
    """
    shapes = {parameter.name: parameter.shape for parameter in evidence.parameters}
    places = places_of(evidence)
    kinds = {facts.layer: facts.kind for facts in evidence.activations}
    weights = [
        facts
        for facts in evidence.gradients
        if len(shapes[facts.parameter]) > 1
        and not _is_length(facts.parameter, shapes)
        and not facts.of_normaliser
        and kinds.get(facts.layer, EMBEDDINGS[0]) not in EMBEDDINGS
        and facts.weights[0] > 0
    ]
    ordered = sorted(weights, key=lambda facts: places[facts.layer])
    rungs = (rung_of(facts, places[facts.layer]) for facts in ordered)
    found = tuple(rung for rung in rungs if not math.isnan(rung.relative))
    if not found:
        raise SkipError("no layer with weights was called and has a finite gradient")
    return found


def places_of(evidence: Evidence) -> dict[str, int]:
    """The place of each layer in the order of the forward pass."""
    return {facts.layer: place for place, facts in enumerate(evidence.activations)}


def _is_length(parameter: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it is g of a parametrised w = g·v/‖v‖, v being original1: here as in PyTorch."""
    holder, _, name = parameter.rpartition(".")
    direction = shapes.get(f"{holder}.original1", ())
    own = shapes[parameter]
    return name == "original0" and len(direction) == len(own) and math.prod(own) in direction


def rung_of(facts: GradientFacts, place: int) -> Rung:
    """How a parameter fares."""
    relative = [value for value in map(ratio, facts.norms, facts.weights) if not math.isnan(value)]
    updates = [value for value in facts.ratios if not math.isnan(value)]
    return Rung(
        facts.layer,
        place,
        facts.parameter,
        statistics.median(relative) if relative else math.nan,
        max(relative, default=math.nan),
        max(updates, default=0.0),
        statistics.median(updates) if updates else 0.0,
    )


def are_moved_alike(moved: Sequence[float]) -> bool:
    """Whether the optimiser's steps, against the weights, are about as large everywhere, as Adam's are."""
    least, most = min(moved), max(moved)
    return least > 0 and most / least < THRESHOLDS["gradient_imbalance"].value


def ends(rungs: Sequence[Rung], *, by: Literal["relative", "moved"] = "relative") -> tuple[float, float]:
    """The middle of one figure over the third of the layers at the input, and over that at the loss.

    Few that hardly a gradient reaches (attention's queries and keys, while it weighs all places alike) say
    nothing of how gradients fare on their way.
    """
    third = max(len(rungs) // 3, 1)
    first, last = (
        statistics.median(getattr(rung, by) for rung in part) for part in (rungs[:third], rungs[-third:])
    )
    return first, last

"""Where the gradient arrives, though weights nearby get little of it."""

from __future__ import annotations

import math

from normwright.doctor.evidence import Evidence
from normwright.doctor.training.profile import EMBEDDINGS, places_of, rung_of


def first_reached(evidence: Evidence, enough: float) -> float:
    """The place of the first embedding or normaliser whose weight gets enough; infinite where none does.

    What arrives there came through all that follows. Weights between it and the first that get enough are
    starved for their own sake, as queries and keys while attention weighs all places alike.

    Args:
        evidence: with gradients.
        enough: ‖g‖/‖w‖.
    """
    kinds = {facts.layer: facts.kind for facts in evidence.activations}
    shared = {facts.name for facts in evidence.parameters if facts.shared}  # with the output, above all
    places = places_of(evidence)
    reached = (
        places[facts.layer]
        for facts in evidence.gradients
        if (facts.of_normaliser or kinds.get(facts.layer) in EMBEDDINGS)
        and facts.parameter.endswith("weight")
        and facts.parameter not in shared
        and facts.layer in places
        and rung_of(facts, places[facts.layer]).relative >= enough
    )
    return min(reached, default=math.inf)


def waiting(evidence: Evidence) -> frozenset[str]:
    """Parameters that get nothing as yet, for a weight after them starts at 0: their branch is to open late.

    They got nothing at the first step; and at each step at which they did, a weight after them was 0 and got
    some. How the gradient fares on its way from there is not known yet.
    """
    places = places_of(evidence)
    last: dict[int, float] = {}  # of the weights that open at a step, the place of the last
    for facts in evidence.gradients:
        for step, norm, weight in zip(facts.steps, facts.norms, facts.weights, strict=True):
            if weight == 0 and norm > 0 and "bias" not in facts.parameter.rpartition(".")[2]:
                last[step] = max(last.get(step, 0), places.get(facts.layer, math.inf))
    return frozenset(
        facts.parameter
        for facts in evidence.gradients
        if facts.norms[0] == 0
        and all(
            norm > 0 or last.get(step, 0) > places.get(facts.layer, math.inf)
            for step, norm in zip(facts.steps, facts.norms, strict=True)
        )
    )

"""How far the layers below a layer pull the ground from under it while a network trains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CovariateShift:
    """One layer's internal covariate shift, at each step of training.

    With g the layer's gradient on a mini-batch, and g' the one on the same mini-batch after the layers before
    it (in the forward pass) were updated and it was not:

        distance = ‖g' − g‖₂,   relative = ‖g' − g‖₂ / ‖g‖₂,   cosine = g'·g / (‖g'‖‖g‖)

    Args:
        layer: qualified name.
        depth: layers with parameters before it.
        distances, relative, cosines: at each step.
        drift: beside it, how far the distribution of the layer's input moved on that same mini-batch: root
            mean square, over features, of the mean's move in the feature's standard deviations.
        rule: how the layers below were updated ("SGD, lr 0.1").
    References:
        Santurkar et al. 2018, arXiv:1805.11604, section 2.2 and definition 2.1.
    """

    layer: str
    depth: int
    distances: tuple[float, ...]
    relative: tuple[float, ...]
    cosines: tuple[float, ...]
    drift: tuple[float, ...]
    rule: str

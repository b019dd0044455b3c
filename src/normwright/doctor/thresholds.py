"""Every threshold of the doctor, with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Threshold:
    """A number that a figure is held against.

    Args:
        value: the number.
        unit: of the figure.
        source: the paper, the derivation, or the experiment that set it.
    """

    value: float
    unit: str
    source: str


THRESHOLDS: dict[str, Threshold] = {
    "stale_gap": Threshold(
        0.5,
        "relative error of a normaliser's outputs",
        "TODO",
    ),
    "norm_weight_decay": Threshold(
        0.0,
        "weight decay",
        "weight and bias of a normaliser set scale and position, which decay would pull to 0; every layer "
        "after it is then asked to make up for that (He et al. 2019, arXiv:1812.01187, section 3.1)",
    ),
}

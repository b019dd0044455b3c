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
    "group_elements": Threshold(
        2.0,
        "elements per moment",
        "m centred and scaled elements keep m - 2 degrees of freedom: of one 0 is left, of two ±1; without "
        "centring (RMS norm) m - 1, and of one ±1",
    ),
    "momentum_greatest": Threshold(
        0.5,
        "weight of the newest batch",
        "above 1/2 the newest batch weighs more in the running statistics than all before it together",
    ),
    "momentum_least": Threshold(
        1e-4,
        "weight of the newest batch",
        "the smallest in published recipes is 3e-4 (decay 0.9997 of TensorFlow's MobileNets, for 100,000s of "
        "batches); below 1e-4 more than 90 % of the initial 0 and 1 is left after 1,000 batches",
    ),
    "dropout_variance": Threshold(
        1.1,
        "variance in training over variance in inference",
        "5 % in the scale of what the normaliser gives",
    ),
}

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
        "lenet and a Transformers ResNet on Fashion-MNIST with batch norm, batches of 16 to 64, SGD at 0.05 "
        "to 0.1 or Adam at 0.001: from 64 to 256 mini-batches after the start the worst layer's error is 0.06 "
        "to 0.42, and the losses in both modes are within 26 % of each other",
    ),
    "stale_lag": Threshold(
        3.0,
        "times the lag that the moments' velocity explains",
        "in the same runs, from 8 mini-batches on, the error is at most 1.9 times what a moving average lags "
        "behind moments that move as fast as in the trial",
    ),
    "norm_weight_decay": Threshold(
        0.0,
        "weight decay",
        "weight and bias of a normaliser set scale and position, which decay would pull to 0; every layer "
        "after it is then asked to make up for that (He et al. 2019, arXiv:1812.01187, section 3.1)",
    ),
}

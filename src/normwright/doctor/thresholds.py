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
    "accumulated_noise": Threshold(
        0.3,
        "relative noise of a mini-batch's mean",
        "as batch_noise; the samples of one step of the optimiser together would stay below it",
    ),
    "averaged_gap": Threshold(
        0.1,
        "relative error of a normaliser's outputs",
        "of averaged weights the statistics can be estimated in one pass, which leaves less than 0.02 in "
        "resnet20 on the digits; a tenth of a deviation is as much as a batch of 100 samples errs",
    ),
    "batch_noise": Threshold(
        0.3,
        "relative noise of a mini-batch's mean",
        "1/√11: the mean of 11 independent elements. Wu & He 2018, arXiv:1803.08494, table 2: ResNet-50's "
        "error is the same from 32 down to 16 samples, then rises by 1.2, 3.7 and 11.1 points at 8, 4 and 2",
    ),
    "batch_samples": Threshold(
        8.0,
        "samples of a mini-batch",
        "Wu & He 2018, arXiv:1803.08494, table 2: at 4 samples ResNet-50's error is 3.7 points higher "
        "than at "
        "32, at 2 it is 11.1 points higher",
    ),
    "company_gap": Threshold(
        1e-3,
        "relative difference of the outputs",
        "what sums in another order may make of float32 in a deep network, √(2^-23) and as much again; in "
        "half precision √eps of that is allowed",
    ),
    "eps_share": Threshold(
        0.5,
        "share of channels",
        "a channel whose variance is eps comes out with a deviation of 1/√2 instead of 1, of less with less",
    ),
    "mode_loss": Threshold(
        1.25,
        "times the loss in training mode",
        "lenet and a Transformers ResNet on Fashion-MNIST, resnet20 on the digits, 48 steps or more of "
        "SGD at "
        "0.1 or Adam at 0.001, where the statistics follow: the ratio is at most 1.12 in lenet; where it is "
        "more in the others, the statistics lag",
    ),
    "mode_outputs": Threshold(
        1.0,
        "relative difference of the outputs in the two modes",
        "the outputs in inference are as far from those in training as those of different samples are",
    ),
    "padding_gap": Threshold(
        0.1,
        "relative error of the outputs at the other positions",
        "a tenth of a deviation, the noise of a mean of 100 independent elements: padding then does what a "
        "batch of 100 elements would",
    ),
    "rank_distance": Threshold(
        6.0,
        "times the noise of the running mean",
        "two moving averages of independent mini-batches differ by √2·√(momentum/(2 - momentum)) times "
        "the noise "
        "of a mini-batch's mean; six such deviations among thousands of channels are no chance",
    ),
    "stale_gap": Threshold(
        0.5,
        "relative error of a normaliser's outputs",
        "lenet and a Transformers ResNet on Fashion-MNIST with batch norm, batches of 16 to 64, SGD at "
        "0.05 to "
        "0.1 or Adam at 0.001: from 64 to 256 mini-batches after the start the worst layer's error is 0.06 "
        "to 0.42, and the losses in both modes are within 26 % of each other",
    ),
    "stale_lag": Threshold(
        5.0,
        "times the lag that the moments' velocity explains",
        "in the same runs and in resnet20 on Fashion-MNIST with SGD at 0.1, from 8 mini-batches on, the "
        "error "
        "is at most 4.2 times what a moving average lags behind moments that move as fast as in the trial; "
        "images scaled by 2 and shifted by 1 make it 8 to 16 times",
    ),
    "unlike_batches": Threshold(
        2.0,
        "times the noise of samples drawn at random",
        "lenet, resnet20 and a Transformers ResNet, shuffled, fresh and trained: 0.9 to 1.3 over 8 "
        "batches of 64; "
        "resnet20 on the digits sorted by class: 2.9",
    ),
    "norm_weight_decay": Threshold(
        0.0,
        "weight decay",
        "weight and bias of a normaliser set scale and position, which decay would pull to 0; every layer "
        "after it is then asked to make up for that (He et al. 2019, arXiv:1812.01187, section 3.1)",
    ),
}

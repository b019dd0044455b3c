"""The moments that each normaliser takes of a mini-batch: of how many elements, how noisy, how large."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoiseFacts:
    """How far moments of batches of one size lie apart, the weights being the same.

    Args:
        samples: of a batch, or of a part of one.
        elements: per moment, on average.
        batches: how many were measured.
        mean: deviation of the batches' means, in deviations of the population; root mean square over the
            channels.
        variance: deviation of the batches' variances, as a share of the population's; likewise.
    """

    samples: int
    elements: float
    batches: int
    mean: float
    variance: float


@dataclass(frozen=True)
class MomentFacts:
    """One normaliser that takes moments of what it is given, at the weights as they came.

    Batch and instance norm count, and layer, group and RMS norm, of which each row has moments of its own.

    Args:
        layer: qualified name.
        kind: its class's name.
        channels: that have moments of their own; groups, of group norm.
        per_sample: each sample has its own moments.
        in_training, in_inference: it normalises by the batch's (or sample's) moments in that mode.
        samples: of the batches, the most that came.
        elements: per moment, at that many samples.
        eps: as it is set.
        noise: at the batches' size, at its half, quarter and so on; () where each sample has its own moments.
        expected: the noise of a mean of that many independent elements, 1/√elements.
        corrected: the noise that a mean has by how far samples lie apart, since elements of one sample are
            alike: √(variance between samples / (samples · variance)).
        least_variance: the smallest variance of a channel that is not constant, or NaN.
        middle_variance: the median over such channels.
        below_eps: share of such channels whose variance is at most eps.
        gap: relative difference of its outputs in training and inference mode on the same inputs, root mean
            square over the batches; NaN where it keeps no running statistics.
    """

    layer: str
    kind: str
    channels: int
    per_sample: bool
    in_training: bool
    in_inference: bool
    samples: int
    elements: int
    eps: float
    noise: tuple[NoiseFacts, ...]
    expected: float
    corrected: float
    least_variance: float
    middle_variance: float
    below_eps: float
    gap: float

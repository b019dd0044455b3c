"""Running statistics against the population that they stand for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunningFacts:
    """One normaliser that keeps running statistics, at the weights as they came.

    The population is estimated from the batches, every normaliser being in training mode.

    Args:
        layer: qualified name.
        kind: its class's name.
        frozen: it normalises by its running statistics in training too, and does not move them.
        tracked: batches that they were moved by, or None where that is not counted.
        momentum: share of a batch in them; None for the mean over all batches.
        remainder: share of the initial values, mean 0 and variance 1, that is still in them:
            (1 - momentum)^tracked; 0 where it is not counted.
        untrained: never moved, and weight and bias are as built: the network is fresh.
        mean_shift: (C,) (running mean - mean)/√(variance + eps).
        variance_ratio: (C,) (running variance + eps)/(variance + eps).
        mean_error: (C,) standard error of the estimated mean, in deviations.
        variance_error: (C,) standard error of the estimated variance, as a share of it.
        gap: relative error of the outputs, in inference, by the running statistics in place of the
            population's, beyond what the standard errors explain.
        gap_beyond_start: the same for the running statistics without what is left in them of the initial
            values; what they would be wrong by had training gone on as it is.
    """

    layer: str
    kind: str
    frozen: bool
    tracked: int | None
    momentum: float | None
    remainder: float
    untrained: bool
    mean_shift: tuple[float, ...]
    variance_ratio: tuple[float, ...]
    mean_error: tuple[float, ...]
    variance_error: tuple[float, ...]
    gap: float
    gap_beyond_start: float

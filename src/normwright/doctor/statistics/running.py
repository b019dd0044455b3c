"""Running statistics against the population that they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from normwright.doctor.statistics.drift import Velocity
from normwright.doctor.statistics.gaps import output_apart, relative
from normwright.doctor.statistics.tally import Tally


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
            (1 - momentum)^tracked; 0 where that is not counted, or they never move.
        untrained: never moved, and weight and bias are as built.
        mean_shift: (C,) (running mean - mean)/√(variance + eps).
        variance_ratio: (C,) (running variance + eps)/(variance + eps).
        mean_error: (C,) standard error of the estimated mean, in deviations.
        variance_error: (C,) standard error of the estimated variance, as a share of it.
        gap: relative error of the outputs, in inference, by the running statistics in place of the
            population's, beyond what the standard errors explain.
        gap_beyond_start: the same for the running statistics without what is left in them of the initial
            values; of statistics as built, 0 where the layer is, too.
        lag: relative error of the outputs by a moving average that follows the moments at the velocity that
            they had in the trial; NaN where no trial moved the weights.
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
    lag: float


Moments = tuple[Tensor, Tensor]


def running_facts(
    tally: Tally, running: Moments, tracked: int | None, velocity: Velocity | None, *, untrained: bool
) -> RunningFacts | None:
    """The facts of one normaliser; None where each of its moments is of one element.

    Args:
        tally: its calls in the pass in training mode.
        running: its statistics as they came, (C,) each in float64.
        tracked: as in `RunningFacts`.
        velocity: of the moments in the trial.
        untrained: likewise.
    """
    sight, estimate = tally.sight, tally.estimate()
    if estimate is None:
        return None
    # what training moves towards: the mean of the mini-batches' unbiased variances
    population = estimate.elements.mean, estimate.variance("within")
    errors = tally.standard_errors(estimate)
    remainder = _remainder(sight.momentum, tracked, running)
    beyond = 0.0 if untrained else _gap(tally, population, errors, running, 0.0)
    if remainder < 1:
        kept = 1 - remainder
        later = running[0] / kept, (running[1] - remainder) / kept
        extra = tally.calls * _noise_left(sight.momentum, tracked)
        beyond = _gap(tally, population, errors, later, extra)
    spread = population[1] + sight.eps
    return RunningFacts(
        sight.layer,
        sight.kind,
        not tally.in_training,
        tracked,
        sight.momentum,
        remainder,
        untrained,
        tuple(((running[0] - population[0]) / spread.sqrt()).tolist()),
        tuple(((running[1] + sight.eps) / spread).tolist()),
        tuple(errors[0].tolist()),
        tuple(errors[1].tolist()),
        _gap(tally, population, errors, running, 0.0),
        beyond,
        _lag(tally, population, velocity, tracked),
    )


def _lag(tally: Tally, population: Moments, velocity: Velocity | None, tracked: int | None) -> float:
    if velocity is None:
        return math.nan
    sight = tally.sight
    age = _age(sight.momentum, tracked)
    _, whole = output_apart(*population, *population, sight.eps)
    spread = population[1] + sight.eps
    moved = velocity.mean.square() / spread + velocity.log_variance.square() / 4
    return relative(whole * age**2 * moved, whole, sight.weight)


def _gap(tally: Tally, population: Moments, errors: Moments, running: Moments, extra: float) -> float:
    """Relative error of the outputs, less what the population's and the running errors explain of it.

    A shift of a mean by e deviations moves outputs by e, a change of a variance by the share e by e/2.

    Args:
        extra: the squared error of the running statistics, in those of the population's estimate.
    """
    apart, whole = output_apart(*population, *running, tally.sight.eps)
    explained = whole * (errors[0].square() + errors[1].square() / 4) * (1 + extra)
    return relative(apart - explained, whole, tally.sight.weight)


def _remainder(momentum: float | None, tracked: int | None, running: Moments) -> float:
    if not tracked:
        # not counted, or statistics of an old checkpoint, which counts anew: they are what was loaded
        as_built = not bool(running[0].any()) and bool((running[1] == 1).all())
        return 1.0 if as_built else 0.0
    return 0.0 if not momentum else (1 - momentum) ** tracked


def _noise_left(momentum: float | None, tracked: int | None) -> float:
    """The variance of a moving average of independent terms of variance 1, without its initial value.

    Σ (momentum·(1 - momentum)^i)² / (Σ momentum·(1 - momentum)^i)²,   i from 0 to tracked - 1
    """
    if not tracked:
        return 0.0
    if momentum is None:
        return 1 / tracked
    if not 0 < momentum < 1:
        return 1.0
    kept = 1 - momentum
    return momentum / (1 + kept) * (1 - kept ** (2 * tracked)) / (1 - kept**tracked) ** 2


def _age(momentum: float | None, tracked: int | None) -> float:
    """How many mini-batches ago, on average, were those that the running statistics are of; the last is 1.

    Σ (i + 1)·(1 - momentum)^i / Σ (1 - momentum)^i,   i from 0 to tracked - 1
    """
    if momentum is None:
        return (tracked or 1) / 2
    if not 0 < momentum < 1:
        return 1.0
    kept = 1 - momentum
    if not tracked:
        return 1 / momentum
    left = kept**tracked
    return 1 / momentum - tracked * left / (1 - left)

"""Running statistics against the population that they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from normwright.doctor.statistics.drift import Velocity
from normwright.doctor.statistics.gaps import relative
from normwright.doctor.statistics.sight import Sight
from normwright.doctor.statistics.tally import Moments, Tally


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
        mean_shift: (C,) (running mean - mean)/√(variance + eps); of whitening, P·(running mean - mean), where
            P = (covariance + eps)^(-1/2).
        variance_ratio: (C,) (running variance + eps)/(variance + eps); of whitening, the eigenvalues of
            P·(running covariance + eps)·P, least first in each group.
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


def running_facts(
    tally: Tally, running: Moments, tracked: int | None, velocity: Velocity | None, *, untrained: bool
) -> RunningFacts | None:
    """The facts of one normaliser; None where each of its moments is of one element.

    Args:
        tally: its calls in the pass in training mode.
        running: its statistics as they came, (C,) each in float64; of whitening, with (G, d, d) covariances.
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
        later = running[0] / kept, (running[1] - remainder * _as_built(running[1])) / kept
        extra = tally.calls * _noise_left(sight.momentum, tracked)
        beyond = _gap(tally, population, errors, later, extra)
    shift, ratio = _shift_and_ratio(population, running, sight)
    return RunningFacts(
        sight.layer,
        sight.kind,
        not tally.in_training,
        tracked,
        sight.momentum,
        remainder,
        untrained,
        tuple(shift.tolist()),
        tuple(ratio.tolist()),
        tuple(errors[0].tolist()),
        tuple(errors[1].tolist()),
        _gap(tally, population, errors, running, 0.0),
        beyond,
        _lag(tally, population, velocity, tracked),
    )


def _shift_and_ratio(population: Moments, running: Moments, sight: Sight) -> Moments:
    """(C,) each, of the mean and the variance; of whitening, P·shift and the eigenvalues of P·Σ·P."""
    mean, variance = population
    if sight.whitening is None:
        spread = variance + sight.eps
        return (running[0] - mean) / spread.sqrt(), (running[1] + sight.eps) / spread
    projection = sight.whitening._replace(method="zca").projection(variance)
    shift = projection @ (running[0] - mean).view(len(projection), -1, 1)
    regular = running[1] + sight.eps * torch.eye(variance.shape[-1], dtype=variance.dtype)
    return shift.flatten(), torch.linalg.eigvalsh(projection @ regular @ projection).flatten()


def _lag(tally: Tally, population: Moments, velocity: Velocity | None, tracked: int | None) -> float:
    if velocity is None:
        return math.nan
    sight = tally.sight
    age = _age(sight.momentum, tracked)
    _, whole = tally.output_apart(population, population)
    return relative(whole * age**2 * velocity.moved(population[1], sight.eps), whole, sight.weight)


def _gap(tally: Tally, population: Moments, errors: Moments, running: Moments, extra: float) -> float:
    """Relative error of the outputs, less what the population's and the running errors explain of it.

    A shift of a mean by e deviations moves outputs by e, a change of a variance by the share e by e/2. What
    whitening's are moved by is seen from its mini-batches.

    Args:
        extra: the squared error of the running statistics, in those of the population's estimate.
    """
    apart, whole = tally.output_apart(population, running)
    if tally.sight.whitening is None:
        explained = whole * (errors[0].square() + errors[1].square() / 4)
    else:
        explained = tally.scatter(population)
    return relative(apart - explained * (1 + extra), whole, tally.sight.weight)


def _remainder(momentum: float | None, tracked: int | None, running: Moments) -> float:
    if not tracked:
        # not counted, or statistics of an old checkpoint, which counts anew: they are what was loaded
        as_built = not bool(running[0].any()) and torch.equal(running[1], _as_built(running[1]))
        return 1.0 if as_built else 0.0
    return 0.0 if not momentum else (1 - momentum) ** tracked


def _as_built(variance: Tensor) -> Tensor:
    """Variances of 1, or identities."""
    if variance.dim() == 1:
        return torch.ones_like(variance)
    return torch.eye(variance.shape[-1], dtype=variance.dtype).expand_as(variance)


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

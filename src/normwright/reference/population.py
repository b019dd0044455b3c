"""What stands in for a mini-batch's moments at inference: three estimates, and the map they make.

Batch norm in training normalises a sample together with its company. At inference there is no company,
or none that should matter, so the moments of a *population* take the place of the mini-batch's. The
population's moments are not known; they are estimated from mini-batches B = 1, 2, …, of which each
gives its mean μ_B, its biased variance σ_B² and the count m_B of elements behind them. There are
three estimates, they differ, and software seldom says which one it computes:

    estimate          mean                  variance
    moving average    recent μ_B            recent unbiased variances, in a decaying average
    within            mean of the μ_B       mean of the unbiased variances
    total             mean of the μ_B       mean of the σ_B², plus the variance of the μ_B

*Why unbiased.* The mean of a mini-batch lies nearer to its own elements than the mean of the
population does, so the biased variance is too small on average, by the factor (m−1)/m. Where a
mini-batch stands for a population, m/(m−1) makes up for that. Training keeps doing without: there the
mini-batch stands for itself (`moments.py`).

*Moving average* costs nothing, since training sees the moments anyway. It lags: it averages
over networks that no longer exist. *Within* is the estimate of the batch-norm paper, over mini-batches
that one finished network has normalised. *Total* is the variance of all elements together. It
adds how far the mini-batches' means lie apart. For shuffled mini-batches that is what the factor
m/(m−1) of `within` accounts for, and the two agree; for mini-batches that differ, as when each
holds one class, `within` misses it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normwright.errors import ShapeError
from normwright.reference.arrays import Array, float64, ieee


class Population(NamedTuple):
    """Estimated moments of a population.

    Args:
        mean: (C,), in the unit of x.
        variance: (C,), in the unit of x².
    """

    mean: Array
    variance: Array


class InferenceMap(NamedTuple):
    """The map y = scale·x + shift.

    Args:
        scale: (C,).
        shift: (C,).
    """

    scale: Array
    shift: Array


@ieee
def moving_average(
    means: npt.ArrayLike, variances: npt.ArrayLike, counts: npt.ArrayLike, momentum: float | None = 0.1
) -> Population:
    """Keeps the running moments that batch norm keeps in training.

        running ← (1 − momentum)·running + momentum·new

    The running mean starts at 0 and the running variance at 1; the new variance is the unbiased one,
    m/(m−1)·σ². Mini-batches weigh the same whatever their count, as in PyTorch.

    Args:
        means: (B, C), the mean of each mini-batch, in the order in which training saw them.
        variances: (B, C), their biased variances.
        counts: (B,), elements behind each; at least 2.
        momentum: share of the new value; None is the cumulative mean, whose share is 1, 1/2, 1/3, …,
            and which therefore forgets where it started.

    Returns:
        The running mean and the running (unbiased) variance.

    Raises:
        ShapeError: the shapes do not agree, there is no mini-batch, or a count is below 2.

    Example:
        >>> moving_average([[4.0]], [[2.0]], [2], momentum=0.5)
        Population(mean=array([2.]), variance=array([2.5]))
        >>> moving_average([[4.0], [6.0]], [[2.0], [3.0]], [2, 2], momentum=None)
        Population(mean=array([5.]), variance=array([5.]))
    """
    means, variances, counts = _mini_batches(means, variances, counts, least=2)
    mean, variance = np.zeros_like(means[0]), np.ones_like(variances[0])
    for seen, (new_mean, new_variance) in enumerate(zip(means, _unbiased(variances, counts), strict=True), 1):
        share = 1.0 / seen if momentum is None else momentum
        mean = (1.0 - share) * mean + share * new_mean
        variance = (1.0 - share) * variance + share * new_variance
    return Population(mean, variance)


@ieee
def within(means: npt.ArrayLike, variances: npt.ArrayLike, counts: npt.ArrayLike) -> Population:
    """Averages the mini-batches' moments: the estimate of the batch-norm paper.

        mean = Σ m_B·μ_B / Σ m_B,    variance = Σ m_B·(m_B/(m_B−1)·σ_B²) / Σ m_B

    Each unbiased variance is weighted by its count. Where the counts are equal, this is the paper's
    m/(m−1) · mean of the σ_B².

    Args:
        means: (B, C), the mean of each mini-batch.
        variances: (B, C), their biased variances.
        counts: (B,), elements behind each; at least 2.

    Returns:
        The mean, and the variance within mini-batches.

    Raises:
        ShapeError: the shapes do not agree, there is no mini-batch, or a count is below 2.

    References:
        Ioffe & Szegedy 2015, algorithm 2, arXiv:1502.03167.

    Example:
        >>> within([[0.0], [3.0]], [[1.0], [1.0]], [2, 4])
        Population(mean=array([2.]), variance=array([1.55555556]))
    """
    means, variances, counts = _mini_batches(means, variances, counts, least=2)
    share = (counts / counts.sum()).reshape(-1, *(1 for _ in means.shape[1:]))
    return Population((share * means).sum(axis=0), (share * _unbiased(variances, counts)).sum(axis=0))


@ieee
def total(means: npt.ArrayLike, variances: npt.ArrayLike, counts: npt.ArrayLike) -> Population:
    """Merges the mini-batches' moments into those of all their elements together.

        mean = Σ m_B·μ_B / M,    variance = Σ m_B·(σ_B² + (μ_B − mean)²) / M,    M = Σ m_B

    The mini-batches are merged one by one by Chan's formula, which holds for unequal counts and does
    not cancel. The variance is the biased one, divided by M: the set of all elements is taken to be
    the population itself. It is `numpy.var` of the elements laid end to end.

    Args:
        means: (B, C), the mean of each mini-batch.
        variances: (B, C), their biased variances.
        counts: (B,), elements behind each; at least 1.

    Returns:
        The mean and the biased variance of all elements.

    Raises:
        ShapeError: the shapes do not agree, there is no mini-batch, or a count is below 1.

    References:
        Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
        variances", Stanford STAN-CS-79-773.

    Example:
        >>> total([[0.0], [3.0]], [[1.0], [1.0]], [2, 4])
        Population(mean=array([2.]), variance=array([3.]))
    """
    means, variances, counts = _mini_batches(means, variances, counts, least=1)
    merged, mean, squares = 0.0, np.zeros_like(means[0]), np.zeros_like(means[0])
    for new_mean, new_variance, count in zip(means, variances, counts, strict=True):
        apart = new_mean - mean
        share = count / (merged + count)
        squares = squares + count * new_variance + apart**2 * merged * share
        mean = mean + apart * share
        merged = merged + count
    return Population(mean, squares / merged)


@ieee
def inference_map(
    mean: npt.ArrayLike,
    variance: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> InferenceMap:
    """Writes batch norm at inference as one multiply-add per element.

        y = scale·x + shift,    scale = weight/√(variance + eps),    shift = bias − mean·scale

    With the moments fixed, all of it is fixed, and two numbers per channel say everything. Being
    affine, the map can also be folded into a convolution or a linear layer next to it.

    Args:
        mean: (C,), of the population.
        variance: (C,), of the population.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: added to the variance; same unit as x².

    Returns:
        Scale and shift, each (C,).

    Raises:
        ShapeError: the shapes differ.

    Example:
        >>> inference_map(mean=[3.0], variance=[4.0], weight=[6.0], bias=[1.0], eps=0.0)
        InferenceMap(scale=array([3.]), shift=array([-8.]))
    """
    mean = np.asarray(mean, dtype=np.float64)
    scale = 1.0 / np.sqrt(float64("variance", variance, mean.shape) + eps)
    if weight is not None:
        scale = scale * float64("weight", weight, mean.shape)
    shift = -mean * scale
    if bias is not None:
        shift = shift + float64("bias", bias, mean.shape)
    return InferenceMap(scale, shift)


def _mini_batches(
    means: npt.ArrayLike, variances: npt.ArrayLike, counts: npt.ArrayLike, least: int
) -> tuple[Array, Array, Array]:
    """The three arrays, checked against one another."""
    means = np.asarray(means, dtype=np.float64)
    if means.ndim == 0 or len(means) == 0:
        raise ShapeError(f"means must hold at least one mini-batch, (B, C), but has shape {means.shape}")
    variances = float64("variances", variances, means.shape)
    counts = float64("counts", counts, means.shape[:1])
    if not (counts >= least).all():
        raise ShapeError(
            f"counts must be at least {least}, but are {counts.tolist()}: leave the smaller mini-batches out"
        )
    return means, variances, counts


def _unbiased(variances: Array, counts: Array) -> Array:
    """The unbiased variance of each mini-batch, m/(m−1) times the biased one."""
    correction = counts / (counts - 1.0)
    return variances * correction.reshape(-1, *(1 for _ in variances.shape[1:]))

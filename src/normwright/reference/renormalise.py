"""Batch renormalisation: batch norm that, in training too, computes nearly what inference will.

    r = clip(σ_B/σ, 1/r_max, r_max),   d = clip((μ_B − μ)/σ, −d_max, d_max),   both held constant
    y = (x̂·r + d)·weight + bias,       x̂ = (x − μ_B)/σ_B,    σ_B = √(variance_B + eps)

where μ_B and the biased variance_B are the mini-batch's, and μ and σ those of the running statistics.
Without the clipping, x̂·r + d = (x − μ)/σ: exactly what inference computes, whatever the mini-batch. But the
gradient is still that of batch norm, since r and d are not differentiated: it takes its components
along 1 and x̂ away (`normalise.py`), and so the activations cannot grow just to be normalised again.
Clipping holds r near 1 and d near 0 while the running statistics are young; with r_max = 1 and d_max = 0 it
is batch norm.

The running statistics are moving averages of μ_B and of σ_B itself, not of its square, and σ_B is biased.
Kept as batch norm keeps them, as a mean and a variance without eps, the step is

    μ ← μ + α(μ_B − μ),    σ ← σ + α(σ_B − σ),    variance = σ² − eps

References:
    Ioffe 2017, "Batch renormalization", algorithm 1, arXiv:1702.03275.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normwright.reference.arrays import Array, float64, ieee
from normwright.reference.axes import Axes, axes_of
from normwright.reference.moments import moments
from normwright.reference.normalise import Gradients, normalise, normalise_backward


class Renormalised(NamedTuple):
    """What batch renorm computes in training.

    Args:
        y: x's shape.
        r: (C,), the ratio of the deviations, clipped.
        d: (C,), the distance of the means, clipped.
        running_mean: (C,), after this mini-batch.
        running_var: (C,), after this mini-batch.
    """

    y: Array
    r: Array
    d: Array
    running_mean: Array
    running_var: Array


@ieee
def batch_renorm(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    r_max: float = 3.0,
    d_max: float = 5.0,
) -> Renormalised:
    """Normalises each channel of a mini-batch, corrected towards the running statistics.

    Args:
        x: (N, C, *space).
        running_mean: (C,), before this mini-batch.
        running_var: (C,), likewise; without eps.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        momentum: α, the share of this mini-batch in the running statistics.
        eps: added to the variances; same unit as x².
        r_max: at least 1.
        d_max: at least 0.
    Returns:
        The outputs, r and d, and the running statistics after the step.
    References:
        Ioffe 2017, algorithm 1, arXiv:1702.03275.
    Example:
        >>> far = batch_renorm([[1.0], [3.0]], [0.0], [1.0], eps=0.0, r_max=1e9, d_max=1e9)
        >>> far.y.tolist()  # x itself: the running mean is 0, the running variance 1
        [[1.0], [3.0]]
        >>> batch_renorm([[1.0], [3.0]], [0.0], [1.0], eps=0.0, r_max=1.0, d_max=0.0).y.tolist()
        [[-1.0], [1.0]]
    """
    axes, scale, shift, r, d = _effective(x, running_mean, running_var, weight, bias, eps, r_max, d_max)
    mean, variance = moments(x, axes)
    old_mean, old_var = (np.asarray(value, dtype=np.float64) for value in (running_mean, running_var))
    deviation, old_deviation = np.sqrt(variance + eps), np.sqrt(old_var + eps)
    new_deviation = old_deviation + momentum * (deviation - old_deviation)
    new_mean = old_mean + momentum * (mean - old_mean)
    new_var = np.maximum(new_deviation**2 - eps, 0.0)
    return Renormalised(normalise(x, axes, scale, shift, eps).y, r, d, new_mean, new_var)


@ieee
def batch_renorm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    r_max: float = 3.0,
    d_max: float = 5.0,
) -> Gradients:
    """The gradients of `batch_renorm`, with r and d as constants.

        dx of batch norm with the weight r·weight,   dweight = Σ dy·(x̂·r + d),   dbias = Σ dy

    Args:
        dy: x's shape; the other arguments are those of the forward.
    Returns:
        dx, dweight and dbias.
    References:
        Ioffe 2017, section 3, arXiv:1702.03275.
    """
    axes, scale, _, r, d = _effective(x, running_mean, running_var, weight, None, eps, r_max, d_max)
    dx, along, dbias = normalise_backward(dy, x, axes, scale, eps)
    return Gradients(dx, r * along + d * dbias, dbias)


def _effective(
    x: npt.ArrayLike,
    running_mean: npt.ArrayLike,
    running_var: npt.ArrayLike,
    weight: npt.ArrayLike | None,
    bias: npt.ArrayLike | None,
    eps: float,
    r_max: float,
    d_max: float,
) -> tuple[Axes, Array, Array, Array, Array]:
    """Axes; the weight and bias with which batch norm is batch renorm; r and d."""
    axes = axes_of("batch", np.shape(x))
    mean, variance = moments(x, axes)
    shape = axes.weight_shape
    deviation = np.sqrt(float64("running_var", running_var, shape) + eps)
    r = np.clip(np.sqrt(variance + eps) / deviation, 1 / r_max, r_max)
    d = np.clip((mean - float64("running_mean", running_mean, shape)) / deviation, -d_max, d_max)
    gain = np.ones(shape) if weight is None else float64("weight", weight, shape)
    start = np.zeros(shape) if bias is None else float64("bias", bias, shape)
    return axes, r * gain, d * gain + start, r, d

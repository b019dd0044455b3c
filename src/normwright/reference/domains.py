"""Batch norm over parts of a batch: virtual batches, and domains.

Batch norm asks which samples share a moment, and answers: all of them. Two of its kin answer otherwise and
change nothing else. *Ghost* batch norm cuts a large batch into virtual batches, in the order in which the
samples come, so that each has the noise of a small batch. *Split* batch norm keeps samples of several domains
apart (clean and adversarial ones), whose moments differ, and lets them share weight and bias.

The gradient is that of batch norm within each part, and the sum over the parts for weight and bias.

References:
    Hoffer, Hubara & Soudry 2017, arXiv:1705.08741; Xie et al. 2020, arXiv:1911.09665.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from normwright.errors import ShapeError
from normwright.reference.arrays import Array, float64, ieee
from normwright.reference.axes import axes_of
from normwright.reference.normalise import Gradients, normalise, normalise_backward


@ieee
def split_batch_norm(
    x: npt.ArrayLike,
    domains: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalises each channel of each sample by its moments over the samples of the same domain.

    Args:
        x: (N, C, *space).
        domains: (N,), equal where samples share their moments.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: added to the variances; same unit as x².
    Returns:
        y, of x's shape.
    Example:
        >>> split_batch_norm([[1.0], [10.0], [3.0], [30.0]], [0, 1, 0, 1], eps=0.0).tolist()
        [[-1.0], [-1.0], [1.0], [1.0]]
    """
    x = np.asarray(x, dtype=np.float64)
    y = np.empty_like(x)
    for rows in _parts(domains, len(x)):
        y[rows] = normalise(x[rows], axes_of("batch", x[rows].shape), weight, bias, eps).y
    return y


@ieee
def split_batch_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    domains: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Gradients:
    """The gradients of `split_batch_norm`: those of batch norm within each domain.

    Args:
        dy: x's shape; the other arguments are those of the forward.
    Returns:
        dx, and dweight and dbias summed over the domains.
    """
    x = np.asarray(x, dtype=np.float64)
    dy = float64("dy", dy, x.shape)
    dx, dweight, dbias = np.empty_like(x), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for rows in _parts(domains, len(x)):
        part = normalise_backward(dy[rows], x[rows], axes_of("batch", x[rows].shape), weight, eps)
        dx[rows], dweight, dbias = part.dx, dweight + part.dweight, dbias + part.dbias
    return Gradients(dx, dweight, dbias)


def virtual_batches(samples: int, ghost_size: int) -> npt.NDArray[np.intp]:
    """The virtual batch of each sample: the domains with which split batch norm is ghost batch norm.

    Raises:
        ShapeError: ghost_size does not divide the samples.
    Example:
        >>> virtual_batches(6, ghost_size=2).tolist()
        [0, 0, 1, 1, 2, 2]
    """
    if ghost_size < 1 or samples % ghost_size:
        raise ShapeError(f"ghost_size must divide the {samples} samples, but is {ghost_size}: take another")
    return np.arange(samples) // ghost_size


def _parts(domains: npt.ArrayLike, samples: int) -> list[npt.NDArray[np.intp]]:
    labels = np.asarray(domains)
    if labels.shape != (samples,):
        raise ShapeError(f"domains must be ({samples},), one for each sample, but has shape {labels.shape}")
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]

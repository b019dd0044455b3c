"""Batch norm of padded sequences: that of the sequences joined without their padding.

    M = Σ mask,   mean = Σ mask·x / M,   variance = Σ mask·(x − mean)² / M,   y = mask·(x̂·weight + bias)

A mask only chooses which elements a moment is taken over. Padding counts for nothing in the mean, the
variance, the count that the unbiased variance is made with, and the gradients; and y is 0 there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from normwright.errors import ShapeError
from normwright.reference.arrays import Array, ieee
from normwright.reference.axes import axes_of
from normwright.reference.normalise import Gradients, normalise, normalise_backward


@ieee
def masked_batch_norm(
    x: npt.ArrayLike,
    mask: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalises each channel over the elements that count.

    Args:
        x: (N, C, L).
        mask: (N, L), boolean; True where an element counts.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: added to the variance; same unit as x².
    Returns:
        (N, C, L), 0 where the mask is False.
    Raises:
        ShapeError: a mask of another shape.
    Example:
        >>> masked_batch_norm([[[1.0, 3.0, 99.0]]], [[True, True, False]], eps=0.0).tolist()
        [[[-1.0, 1.0, 0.0]]]
    """
    whole, counts = _checked(x, mask)
    joined = whole[counts]
    y = np.zeros_like(whole)
    y[counts] = normalise(joined, axes_of("batch", joined.shape), weight, bias, eps).y
    return np.swapaxes(y, 1, 2)


@ieee
def masked_batch_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    mask: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    eps: float = 1e-5,
) -> Gradients:
    """The gradients of `masked_batch_norm`: those of batch norm of the joined elements, 0 elsewhere.

    Args:
        dy: (N, C, L); the other arguments are those of the forward.
    Returns:
        dx, dweight and dbias.
    """
    whole, counts = _checked(x, mask)
    joined = whole[counts]
    given = np.asarray(dy, dtype=np.float64).transpose(0, 2, 1)[counts]
    inner, dweight, dbias = normalise_backward(given, joined, axes_of("batch", joined.shape), weight, eps)
    dx = np.zeros_like(whole)
    dx[counts] = inner
    return Gradients(dx.transpose(0, 2, 1), dweight, dbias)


def _checked(x: npt.ArrayLike, mask: npt.ArrayLike) -> tuple[Array, npt.NDArray[np.bool_]]:
    """x as (N, L, C), and the mask."""
    whole = np.asarray(x, dtype=np.float64).transpose(0, 2, 1)
    counts = np.asarray(mask, dtype=bool)
    if counts.shape != whole.shape[:2]:
        raise ShapeError(f"mask must be {whole.shape[:2]}, but is {counts.shape}")
    return whole, counts

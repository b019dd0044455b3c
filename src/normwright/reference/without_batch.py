"""What needs neither a batch nor a mean: filter response norm, dynamic tanh, and maxout beside them.

Filter response norm is instance norm's row of the table of axes with the mean taken as 0, as RMS norm is
layer norm's; its threshold makes good for the mean that stays. Dynamic tanh takes no moment at all: what the
layer norms of trained transformers do to their inputs looks like a tanh, and so does it. Maxout is no
normaliser but an activation, linear almost everywhere.

References:
    Singh & Krishnan 2020, arXiv:1911.09737; Zhu et al. 2025, arXiv:2503.10622;
    Goodfellow et al. 2013, arXiv:1302.4389.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from normwright.errors import ShapeError
from normwright.reference.arrays import Array, float64, ieee


@ieee
def filter_response_norm(
    x: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    threshold: npt.ArrayLike | None = None,
    eps: float = 1e-6,
) -> Array:
    """Divides each channel of each sample by its root mean square over space.

        y = max(x/√(mean(x²) + eps)·weight + bias, threshold)

    Args:
        x: (N, C, *space).
        weight, bias: (C,), or None for ones and zeros.
        threshold: (C,), or None for none.
        eps: added to the mean square.
    Returns:
        y, of x's shape.
    Example:
        >>> filter_response_norm([[[3.0, 3.0]]], threshold=[2.0], eps=0.0).tolist()
        [[[2.0, 2.0]]]
    """
    x = np.asarray(x, dtype=np.float64)
    space = tuple(range(2, x.ndim))
    y: Array = x / np.sqrt((x**2).mean(axis=space, keepdims=True) + eps)
    column = (-1, *[1] * len(space))
    if weight is not None:
        y = y * float64("weight", weight, x.shape[1:2]).reshape(column)
    if bias is not None:
        y = y + float64("bias", bias, x.shape[1:2]).reshape(column)
    if threshold is not None:
        y = np.maximum(y, float64("threshold", threshold, x.shape[1:2]).reshape(column))
    return y


@ieee
def dynamic_tanh(
    x: npt.ArrayLike,
    alpha: float = 0.5,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
) -> Array:
    """y = tanh(alpha·x)·weight + bias, with the channels along the last axis.

    Example:
        >>> dynamic_tanh([0.0, 1e9]).tolist()
        [0.0, 1.0]
    """
    y: Array = np.tanh(alpha * np.asarray(x, dtype=np.float64))
    if weight is not None:
        y = y * float64("weight", weight, y.shape[-1:])
    return y if bias is None else y + float64("bias", bias, y.shape[-1:])


def maxout(x: npt.ArrayLike, pieces: int) -> Array:
    """The largest of every `pieces` neighbouring channels of (N, C·pieces, *space).

    Raises:
        ShapeError: pieces does not divide the channels.
    Example:
        >>> maxout([[1.0, 3.0, -2.0, -4.0]], 2).tolist()
        [[3.0, -2.0]]
    """
    x = np.asarray(x, dtype=np.float64)
    if x.shape[1] % pieces:
        raise ShapeError(f"pieces must divide the {x.shape[1]} channels, but is {pieces}: take another")
    largest: Array = x.reshape(len(x), x.shape[1] // pieces, pieces, *x.shape[2:]).max(axis=2)
    return largest

"""Normalising a weight in place of what it computes.

Both take the weights that lead to one output as one row. Weight norm trains the row's length by itself, so
that the gradient by its direction v is at right angles to it:

    w = g·v/‖v‖,   dg = dw·v/‖v‖,   dv = g/‖v‖·(dw − (dw·v)/‖v‖²·v)

Weight standardisation is the formula of `normalise.py` on the row.

References:
    Salimans & Kingma 2016, arXiv:1602.07868; Qiao et al. 2019, arXiv:1903.10520.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from normwright.reference.arrays import Array, ieee
from normwright.reference.axes import axes_of
from normwright.reference.normalise import normalise


@ieee
def weight_norm(v: npt.ArrayLike, g: npt.ArrayLike) -> Array:
    """The weight of length g and direction v: (outputs, *inputs) and (outputs,) -> (outputs, *inputs).

    Example:
        >>> weight_norm([[3.0, 4.0]], [10.0]).tolist()
        [[6.0, 8.0]]
    """
    v = np.asarray(v, dtype=np.float64)
    rows = v.reshape(len(v), -1)
    scale = np.asarray(g, dtype=np.float64) / np.sqrt((rows**2).sum(axis=1))
    w: Array = (rows * scale[:, np.newaxis]).reshape(v.shape)
    return w


@ieee
def standardise_weight(weight: npt.ArrayLike, eps: float = 1e-5) -> Array:
    """Each output's weights with mean 0 and variance 1: (outputs, *inputs) -> the same.

    Example:
        >>> standardise_weight([[1.0, 3.0]], eps=0.0).tolist()
        [[-1.0, 1.0]]
    """
    weight = np.asarray(weight, dtype=np.float64)
    rows = weight.reshape(len(weight), -1)
    axes = axes_of("layer", rows.shape, normalized_shape=rows.shape[1:])
    return normalise(rows, axes, eps=eps).y.reshape(weight.shape)

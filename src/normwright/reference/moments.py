"""Mean and variance over the reduced axes, in two passes.

    mean = Σ x / m,    variance = Σ (x − mean)² / m

The first pass finds the mean; the second, the squared deviations from it. The identity
variance = mean(x²) − mean² would do with one pass, and must not be used: where the mean is large
against the deviation, it subtracts two numbers that agree in nearly all their digits, and what is
left is rounding. Three numbers around ten thousand million, of variance 2/3:

    >>> from normwright.reference.axes import axes_of
    >>> x = 1e10 + np.array([[0.0, 1.0, 2.0]])
    >>> float(np.mean(x**2) - np.mean(x) ** 2)
    16384.0
    >>> moments(x, axes_of("layer", x.shape)).variance.tolist()
    [0.6666666666666666]

The variance is the *biased* one, divided by m and not by m − 1. In training the moments estimate
nothing: they are what standardises these very m elements, and only Σ(x − mean)²/m makes x̂² average
to 1. The variance of a *population* from which a mini-batch is drawn is another matter, and there
m − 1 is right: see `population.py`.

RMS norm takes the mean as 0, so that its variance is the mean square Σ x² / m.

Every sum here runs along a row of m elements that lie side by side, in the order of the view. So a
moment's bits follow from its elements alone, and normalisers that share a class of elements agree
to the last bit, as group norm with one group and layer norm do.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normwright.reference.arrays import Array, float64, ieee
from normwright.reference.axes import Axes


class Moments(NamedTuple):
    """Mean and biased variance.

    Args:
        mean: (*axes.moment_shape), in the unit of x; zeros for RMS.
        variance: (*axes.moment_shape), in the unit of x²; the mean square for RMS.
    """

    mean: Array
    variance: Array


def sum_over(view: Array, axes: tuple[int, ...]) -> Array:
    """Sums over some axes, each sum along one contiguous row.

    Args:
        view: any shape.
        axes: the axes to sum over.

    Returns:
        The shape of the axes that are left.

    Example:
        >>> sum_over(np.ones((2, 3, 4)), (0, 2)).tolist()
        [8.0, 8.0, 8.0]
    """
    kept = tuple(axis for axis in range(view.ndim) if axis not in axes)
    length = math.prod(view.shape[axis] for axis in axes)
    rows = np.ascontiguousarray(view.transpose(kept + axes))
    sums: Array = rows.reshape(*(view.shape[axis] for axis in kept), length).sum(axis=-1)
    return sums


def mean_over(view: Array, axes: tuple[int, ...]) -> Array:
    """Averages over some axes; see `sum_over`."""
    count = math.prod(view.shape[axis] for axis in axes)
    means: Array = sum_over(view, axes) / count
    return means


@ieee
def moments(x: npt.ArrayLike, axes: Axes, *, center: bool = True) -> Moments:
    """Takes the mean and the biased variance over the reduced axes.

    Args:
        x: (*axes.shape).
        axes: from `axes_of`.
        center: False takes the mean as 0.

    Returns:
        The moments, each (*axes.moment_shape).

    Raises:
        ShapeError: x has another shape.

    Example:
        >>> from normwright.reference.axes import axes_of
        >>> moments([[1.0, 10.0], [3.0, 50.0]], axes_of("batch", (2, 2)))
        Moments(mean=array([ 2., 30.]), variance=array([  1., 400.]))
    """
    view = float64("x", x, axes.shape).reshape(axes.view)
    mean = mean_over(view, axes.reduce) if center else np.zeros(axes.moment_shape)
    deviation = view - np.expand_dims(mean, axes.reduce)
    return Moments(mean, mean_over(deviation**2, axes.reduce))

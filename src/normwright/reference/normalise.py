"""The one pair of functions: standardise by the moments, then scale and shift; and the way back.

    x̂ = (x − mean) · rstd,    rstd = 1/√(variance + eps),    y = x̂·weight + bias

What eps does. It keeps rstd finite where all m elements are equal; there x̂ is 0, and y is the bias.
Everywhere else it makes x̂ a little small: its variance is variance/(variance + eps), just below 1.
It has the unit of x², so what counts as small depends on the scale of x: eps = 1e-5 is nothing to
activations around 1, and everything to activations around 0.001.

What weight and bias do. Standardising takes two numbers from every class of elements, and weight and
bias give two back. With weight = √(variance + eps) and bias = mean, y is x again: the layer can learn
to do nothing, so that normalising costs a network none of what it could represent.

Invariants. Adding a constant to all the elements of a moment leaves y as it was (not in RMS norm,
which takes no mean away). Multiplying them by a constant c > 0 leaves y as it was too, if eps is
multiplied by c², or is small against the variance. A layer before a normaliser therefore
needs no bias, and the scale of its weights does not matter.

The backward formula, step by step. Take one moment of m elements, write r for rstd and v for
variance, and let g = dy·weight be the gradient at x̂. All of x̂ depends on every x, in three ways: by x
itself, by the mean and by r. One at a time, and writing [i=j] for 1 where i is j, and 0 elsewhere:

    1  the mean        ∂mean/∂x_j = 1/m

    2  the variance    ∂v/∂x_j = (2/m) Σ_i (x_i − mean)·([i=j] − 1/m)
                               = (2/m) (x_j − mean)                   the deviations sum to 0

    3  rstd            r = (v + eps)^(−1/2), so dr/dv = −r³/2
                       ∂r/∂x_j = −(r³/2)·(2/m)(x_j − mean)
                               = −r²·x̂_j/m                            x_j − mean = x̂_j/r

    4  x̂               x̂_i = (x_i − mean)·r
                       ∂x̂_i/∂x_j = ([i=j] − 1/m)·r − (x_i − mean)·r²·x̂_j/m
                                 = r·([i=j] − 1/m − x̂_i·x̂_j/m)

    5  the loss        dx_j = Σ_i g_i·∂x̂_i/∂x_j
                            = r·(g_j − mean(g) − x̂_j·mean(g·x̂))

Read it as geometry: the gradient g loses its component along (1, …, 1) and its component along x̂,
and what is left is scaled by r. It could not be otherwise. Those are the two directions, shifting x and
stretching x, in which y does not change. It follows that Σ dx = 0, and, as eps → 0, that Σ dx·x̂ = 0.

RMS norm takes no mean, so the terms −1/m in steps 2 and 4 vanish, and mean(g) from step 5 with them.

Weight and bias are shared over other axes than the moments; each gradient is a sum over all elements
that use the same number: dweight = Σ dy·x̂, dbias = Σ dy.

References:
    Ioffe & Szegedy 2015 (batch), arXiv:1502.03167. Ba et al. 2016 (layer), arXiv:1607.06450.
    Ulyanov et al. 2016 (instance), arXiv:1607.08022. Wu & He 2018 (group), arXiv:1803.08494.
    Zhang & Sennrich 2019 (RMS), arXiv:1910.07467.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normwright.reference.arrays import Array, float64, ieee
from normwright.reference.axes import Axes
from normwright.reference.moments import mean_over, moments, sum_over


class Normalised(NamedTuple):
    """What the forward map computes.

    Args:
        y: (*axes.shape), the output.
        x_hat: (*axes.shape), standardised x, before weight and bias.
        mean: (*axes.moment_shape); zeros for RMS.
        variance: (*axes.moment_shape), biased; the mean square for RMS.
        rstd: (*axes.moment_shape), 1/√(variance + eps).
    """

    y: Array
    x_hat: Array
    mean: Array
    variance: Array
    rstd: Array


class Gradients(NamedTuple):
    """What the backward map computes.

    Args:
        dx: (*axes.shape).
        dweight: (*axes.weight_shape); without a weight, what one of ones would have got.
        dbias: (*axes.weight_shape); without a bias, what one of zeros would have got.
    """

    dx: Array
    dweight: Array
    dbias: Array


@ieee
def normalise(
    x: npt.ArrayLike,
    axes: Axes,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    center: bool = True,
) -> Normalised:
    """Standardises x over the reduced axes, and applies weight and bias.

        y = (x − mean)/√(variance + eps) · weight + bias

    Args:
        x: (*axes.shape).
        axes: from `axes_of`; which normaliser this is.
        weight: (*axes.weight_shape), or None for ones.
        bias: (*axes.weight_shape), or None for zeros.
        eps: added to the variance; same unit as x².
        center: False takes the mean as 0, which makes it RMS norm.

    Returns:
        The output and all that led to it.

    Raises:
        ShapeError: x, weight or bias does not have the shape that the axes ask for.

    Example:
        >>> from normwright.reference.axes import axes_of
        >>> x = [[1.0, 3.0]]
        >>> normalise(x, axes_of("layer", (1, 2)), weight=[2.0, 2.0], bias=[0.0, 5.0], eps=0.0).y.tolist()
        [[-2.0, 7.0]]
    """
    mean, variance = moments(x, axes, center=center)
    rstd = 1.0 / np.sqrt(variance + eps)
    x_hat = _standardise(x, axes, mean, rstd)
    y = x_hat
    if weight is not None:
        y = y * _parameter("weight", weight, axes)
    if bias is not None:
        y = y + _parameter("bias", bias, axes)
    return Normalised(y.reshape(axes.shape), x_hat.reshape(axes.shape), mean, variance, rstd)


@ieee
def normalise_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    axes: Axes,
    weight: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    center: bool = True,
) -> Gradients:
    """Carries the gradient at y back to x, weight and bias.

        dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·weight,   dweight = Σ dy·x̂,   dbias = Σ dy

    The derivation is at the head of this file. The bias is no argument: no gradient depends on it.

    Args:
        dy: (*axes.shape), the gradient of the loss by y.
        x: (*axes.shape), as `normalise` had it, and so are the others.
        axes: from `axes_of`.
        weight: (*axes.weight_shape), or None for ones.
        eps: added to the variance; same unit as x².
        center: False for RMS norm.

    Returns:
        The gradients by x, weight and bias.

    Raises:
        ShapeError: dy, x or weight does not have the shape that the axes ask for.

    Example:
        >>> from normwright.reference.axes import axes_of
        >>> axes = axes_of("layer", (1, 4))
        >>> normalise_backward([[1.0, 1.0, 1.0, 1.0]], [[0.0, 1.0, 2.0, 5.0]], axes).dx.tolist()  # a shift
        [[0.0, 0.0, 0.0, 0.0]]
    """
    mean, variance = moments(x, axes, center=center)
    rstd = 1.0 / np.sqrt(variance + eps)
    x_hat = _standardise(x, axes, mean, rstd)
    dy = float64("dy", dy, axes.shape).reshape(axes.view)

    g = dy if weight is None else dy * _parameter("weight", weight, axes)
    inner = g - x_hat * _per_element(mean_over(g * x_hat, axes.reduce), axes)
    if center:
        inner = inner - _per_element(mean_over(g, axes.reduce), axes)
    dx = inner * _per_element(rstd, axes)

    dweight = sum_over(dy * x_hat, axes.shared).reshape(axes.weight_shape)
    dbias = sum_over(dy, axes.shared).reshape(axes.weight_shape)
    return Gradients(dx.reshape(axes.shape), dweight, dbias)


def _standardise(x: npt.ArrayLike, axes: Axes, mean: Array, rstd: Array) -> Array:
    """The standardised x, in the view of the axes."""
    view = float64("x", x, axes.shape).reshape(axes.view)
    return (view - _per_element(mean, axes)) * _per_element(rstd, axes)


def _per_element(moment: Array, axes: Axes) -> Array:
    """A number per moment, in a shape that broadcasts against the view."""
    return np.expand_dims(moment, axes.reduce)


def _parameter(name: str, values: npt.ArrayLike, axes: Axes) -> Array:
    """Weight or bias, in a shape that broadcasts against the view."""
    return float64(name, values, axes.weight_shape).reshape(axes.parameter_shape)

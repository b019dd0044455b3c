"""The whole map: normalise, add a residual, activate.

    y = activation(x̂·weight + bias + residual)

A network seldom stops at the normaliser. What follows it, in a residual block for instance, is an
addition and an activation, and neither needs to look at another element. So a kernel does them while
it still holds the element, and saves two trips to memory. To the mathematics that is nothing new,
only the chain rule once more: with z for what the activation is given,

    dz = dy·activation'(z),    dresidual = dz,

and dz is the dy of the plain normaliser.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy.typing as npt

from normwright.reference.activation import activate, activate_backward
from normwright.reference.arrays import Array, float64, ieee
from normwright.reference.axes import Axes
from normwright.reference.normalise import Normalised, normalise, normalise_backward


class FusedGradients(NamedTuple):
    """What the backward of the whole map computes.

    Args:
        dx: (*axes.shape).
        dresidual: (*axes.shape); without a residual, what one of zeros would have got.
        dweight: (*axes.weight_shape); without a weight, what one of ones would have got.
        dbias: (*axes.weight_shape); without a bias, what one of zeros would have got.
    """

    dx: Array
    dresidual: Array
    dweight: Array
    dbias: Array


@ieee
def fused(
    x: npt.ArrayLike,
    axes: Axes,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    center: bool = True,
    activation: str | None = None,
) -> Normalised:
    """Normalises x, adds the residual, and activates.

        y = activation(x̂·weight + bias + residual)

    Args:
        x: (*axes.shape).
        axes: from `axes_of`.
        weight: (*axes.weight_shape), or None for ones.
        bias: (*axes.weight_shape), or None for zeros.
        residual: (*axes.shape), or None for zeros.
        eps: added to the variance; same unit as x².
        center: False takes the mean as 0, which makes it RMS norm.
        activation: one of `ACTIVATIONS`.

    Returns:
        As `normalise`, with the y of the whole map.

    Raises:
        OptionError: the activation is unknown.
        ShapeError: an argument does not have the shape that the axes ask for.

    Example:
        >>> from normwright.reference.axes import axes_of
        >>> axes = axes_of("layer", (1, 2))
        >>> fused([[1.0, 3.0]], axes, residual=[[0.5, 0.5]], eps=0.0, activation="relu").y.tolist()
        [[0.0, 1.5]]
    """
    plain = normalise(x, axes, weight, bias, eps, center=center)
    z = plain.y if residual is None else plain.y + float64("residual", residual, axes.shape)
    return plain._replace(y=activate(z, activation))


def fused_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    axes: Axes,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    residual: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    center: bool = True,
    activation: str | None = None,
) -> FusedGradients:
    """Carries the gradient at y = fused(...) back to x, residual, weight and bias.

    Args:
        dy: (*axes.shape), the gradient of the loss by y.
        x: as `fused` had it, and so are the others.
        axes: from `axes_of`.
        weight: (*axes.weight_shape), or None.
        bias: (*axes.weight_shape), or None; it matters here, for the activation's slope depends on it.
        residual: (*axes.shape), or None; it matters for the same reason.
        eps: added to the variance; same unit as x².
        center: False for RMS norm.
        activation: one of `ACTIVATIONS`.

    Returns:
        The gradients by x, residual, weight and bias.

    Raises:
        OptionError: the activation is unknown.
        ShapeError: an argument does not have the shape that the axes ask for.
    """
    z = fused(x, axes, weight, bias, residual, eps, center=center, activation=None).y
    dz = activate_backward(dy, z, activation)
    dx, dweight, dbias = normalise_backward(dz, x, axes, weight, eps, center=center)
    return FusedGradients(dx, dz, dweight, dbias)

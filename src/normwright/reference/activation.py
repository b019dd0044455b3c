"""The activations that may follow a normaliser, and their derivatives.

They fall into two kinds, and the difference is much of why normalising helps. Sigmoid and tanh
*saturate*: far from 0 on either side they are flat, their derivative vanishes, and no gradient comes
through. The others pass a gradient wherever their input is large and positive. A normaliser keeps z
near 0, where even the first kind has a slope.

    name          value                          derivative
    None          z                              1
    relu          max(z, 0)                      1 where z > 0, else 0
    leaky_relu    z where z > 0, else z/100      1 where z > 0, else 1/100
    silu          z·σ(z)                         σ(z)·(1 + z·σ(−z))
    gelu          z·Φ(z)                         Φ(z) + z·φ(z)
    sigmoid       σ(z) = 1/(1 + exp(−z))         σ(z)·σ(−z)
    tanh          tanh(z)                        4·σ(2z)·σ(−2z)

Φ and φ are the distribution function and the density of the standard normal. Each derivative is
written so that nothing cancels: 1 − tanh(z)² would lose every digit where tanh(z) rounds to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from normwright.errors import unknown_name
from normwright.reference.arrays import Array, float64, ieee

LEAKY_SLOPE = 0.01

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _sigmoid(z: Array) -> Array:
    # exp of a number that is never positive: no overflow on either side
    decay = np.exp(-np.abs(z))
    return np.where(z < 0, decay, 1.0) / (1.0 + decay)


def _normal_distribution(z: Array) -> Array:
    # erfc keeps its digits in the lower tail, where 1 + erf cancels
    below: Array = 0.5 * _erfc(-z / math.sqrt(2.0))
    return below


def _normal_density(z: Array) -> Array:
    density: Array = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return density


def _relu_slope(z: Array) -> Array:
    # asked as "not below", so that a NaN passes the gradient on, as in PyTorch
    return np.where(z <= 0, 0.0, 1.0)


def _leaky_slope(z: Array) -> Array:
    return np.where(z > 0, 1.0, LEAKY_SLOPE)


def _silu_slope(z: Array) -> Array:
    return _sigmoid(z) * (1.0 + z * _sigmoid(-z))


def _gelu_slope(z: Array) -> Array:
    return _normal_distribution(z) + z * _normal_density(z)


def _sigmoid_slope(z: Array) -> Array:
    return _sigmoid(z) * _sigmoid(-z)


_VALUE_AND_SLOPE: dict[str | None, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    None: (np.copy, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0.0), _relu_slope),
    "leaky_relu": (lambda z: z * _leaky_slope(z), _leaky_slope),
    "silu": (lambda z: z * _sigmoid(z), _silu_slope),
    "gelu": (lambda z: z * _normal_distribution(z), _gelu_slope),
    "sigmoid": (_sigmoid, _sigmoid_slope),
    "tanh": (np.tanh, lambda z: 4.0 * _sigmoid_slope(2.0 * z)),
}

ACTIVATIONS: tuple[str | None, ...] = tuple(_VALUE_AND_SLOPE)


def _of(activation: str | None) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    if activation not in _VALUE_AND_SLOPE:
        raise unknown_name("activation", str(activation), map(str, ACTIVATIONS))
    return _VALUE_AND_SLOPE[activation]


@ieee  # silu and gelu of −infinity are −infinity · 0 = NaN, as in PyTorch
def activate(z: npt.ArrayLike, activation: str | None) -> Array:
    """Applies an activation to each element.

    Args:
        z: any shape.
        activation: one of `ACTIVATIONS`; None changes nothing.

    Returns:
        The shape of z.

    Raises:
        OptionError: the activation is unknown.

    References:
        Hendrycks & Gimpel 2016 (gelu), arXiv:1606.08415. Ramachandran et al. 2017 (silu), arXiv:1710.05941.

    Example:
        >>> activate([-1.0, 0.0, 2.0], "leaky_relu").tolist()
        [-0.01, 0.0, 2.0]
    """
    value, _ = _of(activation)
    return value(np.asarray(z, dtype=np.float64))


@ieee
def activate_backward(dy: npt.ArrayLike, z: npt.ArrayLike, activation: str | None) -> Array:
    """Carries the gradient at y = activate(z, activation) back to z.

        dz = dy · activation'(z)

    Where relu and leaky_relu have no derivative, at 0, the one from below is taken, as in PyTorch.

    Args:
        dy: (*z.shape), the gradient of the loss by y.
        z: any shape.
        activation: one of `ACTIVATIONS`.

    Returns:
        The shape of z.

    Raises:
        OptionError: the activation is unknown.
        ShapeError: dy has another shape than z.

    Example:
        >>> activate_backward([5.0, 5.0], [-1.0, 1.0], "relu").tolist()
        [0.0, 5.0]
    """
    _, slope = _of(activation)
    z = np.asarray(z, dtype=np.float64)
    return float64("dy", dy, z.shape) * slope(z)

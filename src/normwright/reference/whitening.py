"""Whitening: standardising, and decorrelating too.

Channels stand in groups of d. Of the m elements of each channel, x_c = x − mean is centred, and a group has
a covariance matrix where batch norm has d variances:

    Σ = Σ_m x_c·x_cᵀ/m + eps·I,    y = (P·x_c)·weight + bias,    P = Σ^(−1/2)

Any P with PΣPᵀ = I would whiten, and rotating one gives another. The symmetric root (ZCA) is the one that
moves x the least; the others turn channels into each other from one mini-batch to the next, and training
does not survive it. With d = 1 all this is batch norm.

    zca         Σ = V·diag(λ)·Vᵀ,   P = V·diag(1/√λ)·Vᵀ
    iterative   S = Σ/tr(Σ),   P_0 = I,   P_k = (3·P_(k−1) − P_(k−1)³·S)/2,   P = P_T/√tr(Σ)

Newton's iteration converges to the same root, each direction by itself, and those of large eigenvalues first:
after a few steps it has whitened them, and hardly touched the smallest, which are noise for the most part.

The gradient of the root. Differentiating P·Σ·P = I through R = Σ^(1/2) = P⁻¹, R·dR + dR·R = dΣ and
dP = −P·dR·P. In the eigenvectors' basis each is a division:

    (Vᵀ·dP·V)_ij = −(Vᵀ·dΣ·V)_ij · 1/(√λ_i·√λ_j·(√λ_i + √λ_j))

The map is its own adjoint, so that dL/dΣ comes of dL/dP in the same way. Nothing is divided by λ_i − λ_j,
as it is on the way through the eigenvectors, which turn without bound where two eigenvalues meet, though
the root they make up does not move.

At inference the covariance of a population takes the place of the mini-batch's, and P is made of that. It is
covariances that a moving average may be taken of (unbiased, as batch norm's variances are: `population.py`),
not P. Where channels depend on one another, P scales the directions without variance by 1/√eps, and these
turn as the weights move: in an average of such P each old one is still scaled so, and now meets variance. An
average of covariances knows variance wherever any of its mini-batches had it: with the share a in it,
Σ ≥ a·Σ_B, so that no direction of that mini-batch comes out with a variance above 1/a.

References:
    Huang, Yang, Lang & Deng 2018, "Decorrelated batch normalization", arXiv:1804.08450.
    Huang, Zhou, Zhu, Liu & Shao 2019, "Iterative normalization", arXiv:1904.03441.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normwright.errors import unknown_name
from normwright.reference.arrays import Array, float64, ieee
from normwright.reference.normalise import Gradients

METHODS = ("zca", "iterative")


class Whitened(NamedTuple):
    """What whitening computes.

    Args:
        y: x's shape.
        mean: (C,).
        covariance: (G, d, d), biased and without eps.
        projection: (G, d, d), P.
    """

    y: Array
    mean: Array
    covariance: Array
    projection: Array


@ieee
def whitening_norm(
    x: npt.ArrayLike,
    group_size: int,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    method: str = "zca",
    iterations: int = 5,
) -> Whitened:
    """Whitens each group of channels by its covariance over batch and space.

    Args:
        x: (N, C, *space).
        group_size: d, which divides C; neighbouring channels make a group.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: added to each variance; same unit as x².
        method: "zca" or "iterative".
        iterations: T, of the latter.
    Returns:
        The outputs, mean, covariance and projection.
    Raises:
        OptionError: another method.
    References:
        Huang et al. 2018, arXiv:1804.08450; Huang et al. 2019, arXiv:1904.03441.
    Example:
        >>> x = [[3.0, 3.0], [1.0, 1.0], [-1.0, 1.0], [-3.0, -1.0], [1.0, 1.0], [-1.0, -5.0]]
        >>> y = whitening_norm(x, 2, eps=0.0).y
        >>> (y.T @ y / 6).round(6).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    array = np.asarray(x, dtype=np.float64)
    mean, centred = _centred(array, group_size)
    covariance = centred @ centred.swapaxes(1, 2) / centred.shape[2]
    projection = _projection(covariance, eps, method, iterations)
    y = _mapped(_elements(projection @ centred, array.shape), weight, bias)
    return Whitened(y, mean, covariance, projection)


@ieee
def whiten_by(
    x: npt.ArrayLike,
    mean: npt.ArrayLike,
    covariance: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    method: str = "zca",
    iterations: int = 5,
) -> Array:
    """Whitens each group of channels by the covariance of a population, as in inference.

    Args:
        x: (N, C, *space).
        mean: (C,), the population's.
        covariance: (G, d, d), the population's, without eps.
        weight, bias, eps, method, iterations: as `whitening_norm`'s.
    Returns:
        x's shape.
    Raises:
        OptionError: another method.
    Example:
        >>> whiten_by([[3.0, 5.0]], [1.0, 1.0], [[[4.0, 0.0], [0.0, 16.0]]], eps=0.0).tolist()
        [[1.0, 1.0]]
    """
    array = np.asarray(x, dtype=np.float64)
    matrices = np.asarray(covariance, dtype=np.float64)
    grouped = _grouped(array, matrices.shape[1])
    centred = grouped - float64("mean", mean, array.shape[1:2]).reshape(*grouped.shape[:2], 1)
    projection = _projection(matrices, eps, method, iterations)
    return _mapped(_elements(projection @ centred, array.shape), weight, bias)


@ieee
def whitening_norm_backward(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    group_size: int,
    weight: npt.ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    method: str = "zca",
    iterations: int = 5,
) -> Gradients:
    """The gradients of `whitening_norm`, with g = dy·weight.

        dP = Σ_m g·x_cᵀ,    dx = P·(g − mean(g)) + 2/m·dΣ·x_c,    dweight = Σ dy·(P·x_c),    dbias = Σ dy

    dΣ is dP through the root, symmetric; x_c has no mean, so that centring takes nothing from its term.

    Args:
        dy: x's shape; the other arguments are those of the forward.
    Returns:
        dx, dweight and dbias.
    References:
        As `whitening_norm`.
    """
    array = np.asarray(x, dtype=np.float64)
    mean, centred = _centred(array, group_size)
    count = centred.shape[2]
    covariance = centred @ centred.swapaxes(1, 2) / count
    projection = _projection(covariance, eps, method, iterations)
    handed = _grouped(float64("dy", dy, array.shape), group_size)
    gain = np.ones(mean.shape) if weight is None else float64("weight", weight, mean.shape)
    g = handed * gain.reshape(-1, group_size, 1)
    of_projection = g @ centred.swapaxes(1, 2)
    of_covariance = _projection_backward(of_projection, covariance, eps, method, iterations)
    dx = projection @ (g - g.mean(2, keepdims=True)) + 2 / count * of_covariance @ centred
    dweight = (handed * (projection @ centred)).sum(2).reshape(-1)
    return Gradients(_elements(dx, array.shape), dweight, handed.sum(2).reshape(-1))


def _grouped(x: Array, group_size: int) -> Array:
    """(G, d, m)."""
    channels = x.shape[1]
    return np.moveaxis(x, 1, 0).reshape(channels // group_size, group_size, x.size // channels)


def _elements(grouped: Array, shape: tuple[int, ...]) -> Array:
    """(N, C, *space) again."""
    return np.moveaxis(grouped.reshape(shape[1], shape[0], *shape[2:]), 0, 1)


def _mapped(y: Array, weight: npt.ArrayLike | None, bias: npt.ArrayLike | None) -> Array:
    """y·weight + bias."""
    channels, column = y.shape[1:2], (-1, *[1] * (y.ndim - 2))
    if weight is not None:
        y = y * float64("weight", weight, channels).reshape(column)
    return y if bias is None else y + float64("bias", bias, channels).reshape(column)


def _centred(x: Array, group_size: int) -> tuple[Array, Array]:
    """(C,) the mean, and (G, d, m)."""
    grouped = _grouped(x, group_size)
    mean = grouped.mean(2, keepdims=True)
    return mean.reshape(-1), grouped - mean


def _projection(covariance: Array, eps: float, method: str, iterations: int) -> Array:
    if method == "zca":
        values, vectors = np.linalg.eigh(covariance)
        roots = np.sqrt(np.maximum(values, 0.0) + eps)
        whitening: Array = vectors / roots[:, None, :] @ vectors.swapaxes(1, 2)
        return whitening
    if method == "iterative":
        trace, steps = _iterated(covariance, eps, iterations)
        last: Array = steps[-1] / np.sqrt(trace)
        return last
    raise unknown_name("method", method, METHODS)


def _iterated(covariance: Array, eps: float, iterations: int) -> tuple[Array, list[Array]]:
    """tr(Σ), and P_0 to P_T."""
    identity = np.broadcast_to(np.eye(covariance.shape[1]), covariance.shape)
    regular = covariance + eps * identity
    trace = np.trace(regular, axis1=1, axis2=2)[:, None, None]
    steps = [identity]
    for _ in range(iterations):
        cube = steps[-1] @ steps[-1] @ steps[-1]
        steps.append((3 * steps[-1] - cube @ (regular / trace)) / 2)
    return trace, steps


def _projection_backward(
    of_projection: Array, covariance: Array, eps: float, method: str, iterations: int
) -> Array:
    """dL/dΣ, symmetric, of dL/dP."""
    if method == "zca":
        values, vectors = np.linalg.eigh(covariance)
        roots = np.sqrt(np.maximum(values, 0.0) + eps)
        turned = vectors.swapaxes(1, 2) @ _symmetric(of_projection) @ vectors
        rows, columns = roots[:, :, None], roots[:, None, :]
        turned = -turned / (rows * columns * (rows + columns))
        whole: Array = vectors @ turned @ vectors.swapaxes(1, 2)
        return whole
    trace, steps = _iterated(covariance, eps, iterations)
    identity = np.eye(covariance.shape[1])
    scaled = (covariance + eps * identity) / trace
    of_step = _symmetric(of_projection) / np.sqrt(trace)
    of_scaled = np.zeros_like(covariance)
    for step in reversed(steps[:-1]):
        square, forward = step @ step, step @ scaled
        of_scaled = of_scaled - square @ step @ of_step / 2
        # d(P³S) = dP·P²S + P·dP·PS + P²·dP·S; P and S are symmetric, and commute
        product = of_step @ forward @ step + step @ of_step @ forward + square @ of_step @ scaled
        of_step = (3 * of_step - product) / 2
    # P = P_T·tr^(−1/2), and S = Σ/tr: what the trace takes of both, along the identity
    along = -(_symmetric(of_projection) * steps[-1]).sum((1, 2), keepdims=True) / (2 * trace**1.5)
    along = along - (of_scaled * scaled).sum((1, 2), keepdims=True) / trace
    of_covariance: Array = _symmetric(of_scaled) / trace + along * identity
    return of_covariance


def _symmetric(matrices: Array) -> Array:
    half: Array = (matrices + matrices.swapaxes(1, 2)) / 2
    return half

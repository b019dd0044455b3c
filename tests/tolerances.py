"""The only tolerances of the operators' tests, each with its derivation.

A bound is computed beside the float64 reference, by following the rounding errors through the operator
line by line. Nothing here was measured, and no bound is loosened to let a case pass.

Units. u = 2^-p is the unit roundoff: one operation on floats with p bits returns its exact result times (1
+ δ), |δ| ≤ u. Elements are computed in float32, or in float64 for a float64 input; moments are summed in
float64, or by Triton's kernels as elements are computed. An error of the operator and an error of the
reference may point in opposite directions, so that u stands for u + 2^-53 throughout: that doubles it in
float64, and is nothing in float32.

Near zero a rounding is half the smallest subnormal instead (`tiny`).

In the formulas below e(v) bounds the error of a computed v, to first order in u. The second order is
smaller by 1e-6 and lies within the whole numbers that the counts are rounded up to.
"""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np
import torch

from normwright.backends import triton
from normwright.reference import Axes, activate, activate_backward
from normwright.reference.moments import mean_over, sum_over

UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}

# Whether the tests run on Triton's kernels: in its interpreter, or on a GPU.
KERNELS_ARE_TRITONS = triton.interprets() or os.environ.get("NORMWRIGHT_TEST_DEVICE") == "cuda"

# sup|a'|, sup|a''| (away from a kink), and roundings of a(z) in units of u·(|z| + |a(z)|), a library
# function (exp, erf, tanh) counting as 2: vectorised, they are good to one unit in the last place.
#     silu      z·σ(z)                      1 + 4
#     gelu      z·0.5·(1 + erf(z/√2))       1, then erf's 2 and a sum's 1 against 1, then 1
#     sigmoid   1/(1 + exp(-z))             2 + 1 + 1
#     tanh                                  2
ACTIVATION = {
    None: (1.0, 0.0, 0),
    "relu": (1.0, 0.0, 0),
    "leaky_relu": (1.0, 0.0, 2),
    "silu": (1.1, 0.5, 5),
    "gelu": (1.13, 0.8, 5),
    "sigmoid": (0.25, 0.1, 4),
    "tanh": (1.0, 0.77, 2),
}

# a'(z) in units of u·(1 + |z|). The longest is gelu's, Φ(z) + z·φ(z): erf with 2, a sum with 1 and the
# halving, then φ with a relative 2 + z² + 2 roundings, where |z|³·φ(z) < 0.5: 8 in all.
SLOPE_ROUNDINGS = 8


class Bounds(NamedTuple):
    """Largest errors of y, and of the gradients by x, residual, weight and bias, in their shapes."""

    y: np.ndarray
    dx: np.ndarray
    dresidual: np.ndarray
    dweight: np.ndarray
    dbias: np.ndarray


def depth(count: int) -> int:
    """Most additions that one of `count` summands passes through in a float sum.

    PyTorch's cascade has four levels of at most 16 for up to 2^16 summands, and adds at most 32 lanes at
    the end; NumPy adds blocks of 128 in 8 lanes, 16 + 3, and then in pairs, log2(count).
    """
    return min(count, 96)


def rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """The error of storing values in dtype: half an ulp, or half the smallest subnormal near zero."""
    return UNIT[dtype] * np.abs(values) + torch.finfo(dtype).smallest_normal * UNIT[dtype]


# An empty class of elements has NaN for its moments, as in the operators.
_ieee = np.errstate(invalid="ignore", divide="ignore")


class Analysis:
    """Rounding errors of one call, from its inputs in float64 and the dtypes it was computed in.

    mean, variance and rstd have the view's rank, the reduced axes kept at length 1. `fixed_moments` says
    that they were given to the operator (inference), and not taken from x.
    """

    @_ieee
    def __init__(
        self,
        x: np.ndarray,
        axes: Axes,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        residual: np.ndarray | None,
        mean: np.ndarray,
        rstd: np.ndarray,
        activation: str | None,
        dtype: torch.dtype,
        *,
        center: bool = True,
        fixed_moments: bool = False,
    ) -> None:
        self.axes, self.activation, self.dtype = axes, activation, dtype
        self.center, self.fixed_moments = center, fixed_moments
        self.compute = torch.float64 if dtype == torch.float64 else torch.float32
        self.u = UNIT[self.compute] + 2.0**-53
        self.tiny = UNIT[self.compute] * torch.finfo(self.compute).smallest_normal
        self.weight = 1.0 if weight is None else weight.reshape(axes.parameter_shape)
        view = x.reshape(axes.view)
        self.rstd = rstd
        self.x_hat = (view - mean) * rstd
        affine = self.x_hat * self.weight
        size = np.abs(affine)
        if bias is not None:
            affine = affine + bias.reshape(axes.parameter_shape)
            size = size + np.abs(bias.reshape(axes.parameter_shape))
        if residual is not None:
            affine = affine + residual.reshape(axes.view)
            size = size + np.abs(residual.reshape(axes.view))
        self.z = affine
        self.e_x_hat = self._standardised(view, mean)
        # x̂·weight + bias + residual: a product and two sums, each a rounding of at most |x̂w| + |b| + |r|
        self.e_z = np.abs(self.weight) * self.e_x_hat + 3 * (self.u * size + self.tiny)

    def _standardised(self, view: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """e(x̂), where x̂ = (x - shift)·rstd - low·rstd, mean = shift + low.

        x - shift is one rounding, 1u. The mean square of it has a relative 2·1u + 1u, its float64 sum none
        in this unit; -1/2 of that is rstd's, 1.5u; rounding it to the element's dtype makes 2.5u. The
        product adds 1u, and the last sum 1u of x̂: in all 4.5u of |x - shift|·rstd and 1u of |x̂|.
        low, at most u·|mean|, contributes the 1.5u of rstd and 1u for its own rounding, of Λ = |low|·rstd;
        and |x - shift|·rstd ≤ |x̂| + Λ. Together 5.5u·|x̂| + 7u·Λ.

        The float64 mean and mean square, in the operator and in the reference, are wrong by depth·2^-53 of
        mean|x| and of the variance. A shift of the mean by δ moves x̂ by δ·rstd and, the deviations summing
        to zero, the variance by δ² alone.

        Triton's kernels sum x - hi and its square in the elements' dtype, where hi is a float near the mean:
        they are wrong by depth·u of mean|x - mean| (lo makes good what hi is wrong by) and of the variance;
        taking the square's root, adding eps and the quotients make 4 more roundings.
        """
        u, wide = self.u, 2.0**-53
        low = 0.0 if self.compute == torch.float64 else UNIT[torch.float32] * np.abs(mean) * self.rstd
        error = 5.5 * u * np.abs(self.x_hat) + 7 * u * low + 2 * self.tiny
        if not self.fixed_moments:
            sums = 2 * depth(self.axes.count) * wide
            typical = np.expand_dims(mean_over(np.abs(view), self.axes.reduce), self.axes.reduce)
            shifted = sums * typical * self.rstd if self.center else 0.0
            error = error + sums / 2 * np.abs(self.x_hat) + shifted
            if KERNELS_ARE_TRITONS:
                sums = (depth(self.axes.count) + 4) * self.u
                spread = np.expand_dims(mean_over(np.abs(self.x_hat), self.axes.reduce), self.axes.reduce)
                error = error + sums * (np.abs(self.x_hat) + (spread if self.center else 0.0))
        return error

    def kink(self) -> np.ndarray:
        """Where z is too near to the kink of a relu to tell its side; a gradient there is not defined."""
        kinked = self.activation in ("relu", "leaky_relu")
        return (np.abs(self.z) <= self.e_z).reshape(self.axes.shape) & kinked

    def y(self) -> np.ndarray:
        """e(y): e(z) through a Lipschitz function, its own roundings, and the rounding to y's dtype."""
        slope, _, roundings = ACTIVATION[self.activation]
        y = activate(self.z, self.activation)
        error = slope * self.e_z + roundings * self.u * (np.abs(self.z) + np.abs(y))
        return (error + rounded(y, self.dtype)).reshape(self.axes.shape)

    @_ieee
    def gradients(self, dy: np.ndarray, weight_dtype: torch.dtype) -> Bounds:
        """The bounds of all five; dy is (*axes.shape), and zero in `kink()`."""
        u, axes, x_hat = self.u, self.axes, self.x_hat
        dy = dy.reshape(axes.view)
        dz = activate_backward(dy, self.z, self.activation)
        e_dz = np.zeros_like(dz)
        if self.activation is not None:
            curvature = ACTIVATION[self.activation][1]
            slope_error = curvature * self.e_z + SLOPE_ROUNDINGS * u * (1 + np.abs(self.z))
            e_dz = np.abs(dy) * slope_error + u * np.abs(dz)
        g = dz * self.weight
        e_g = np.abs(self.weight) * e_dz + u * np.abs(g)
        e_dx, scale = e_g, np.abs(g)
        if not self.fixed_moments:
            along, e_along = self._mean(g * x_hat, np.abs(x_hat) * e_g + np.abs(g) * self.e_x_hat)
            e_dx = e_dx + np.abs(x_hat) * e_along + np.abs(along) * self.e_x_hat
            scale = scale + np.abs(x_hat * along)
            if self.center:
                level, e_level = self._mean(g, e_g)
                e_dx = e_dx + e_level
                scale = scale + np.abs(level)
        # the product and the two sums, 3u of all that is added up; rstd's 2.5u and its product, 3.5u
        e_dx = self.rstd * (e_dx + 6.5 * u * scale)
        dx = self._dx(g)
        e_dweight = np.abs(x_hat) * e_dz + np.abs(dz) * self.e_x_hat + u * np.abs(dz * x_hat) + self.tiny
        return Bounds(
            self.y(),
            (e_dx + rounded(dx, self.dtype)).reshape(axes.shape),
            (e_dz + (rounded(dz, self.dtype) if self.activation else 0.0)).reshape(axes.shape),
            self._sum(dz * x_hat, e_dweight, weight_dtype),
            self._sum(dz, e_dz, weight_dtype),
        )

    def _dx(self, g: np.ndarray) -> np.ndarray:
        """dx itself, for the size of its rounding."""
        if self.fixed_moments:
            return g * self.rstd
        along, _ = self._mean(g * self.x_hat, g)
        level = self._mean(g, g)[0] if self.center else 0.0
        return (g - self.x_hat * along - level) * self.rstd

    def _mean(self, terms: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A mean over the reduced axes and its error: the product's rounding, the sum's, the division's."""
        reduce = self.axes.reduce
        sums = (depth(self.axes.count) + 2) * self.u
        mean = mean_over(terms, reduce)
        error = mean_over(errors, reduce) + sums * mean_over(np.abs(terms), reduce)
        return np.expand_dims(mean, reduce), np.expand_dims(error, reduce)

    def _sum(self, terms: np.ndarray, errors: np.ndarray, dtype: torch.dtype) -> np.ndarray:
        """The error of a parameter's gradient, a sum over the axes that share the parameter."""
        shared = self.axes.shared
        count = math.prod(self.axes.view[axis] for axis in shared)
        total = sum_over(errors, shared) + depth(count) * self.u * sum_over(np.abs(terms), shared)
        total = total + rounded(sum_over(terms, shared), dtype)
        return total.reshape(self.axes.weight_shape)


@_ieee
def renormalised(
    analysis: Analysis,
    dy: np.ndarray,
    shift_by_d: np.ndarray,
    r: np.ndarray,
    d: np.ndarray,
    weight_dtype: torch.dtype,
) -> Bounds:
    """The bounds of batch renorm: those of batch norm with the weight r·γ and the bias d·γ + β, and theirs.

    r and d come of float64 moments and are rounded once, u, as is their product with γ: together 2u of r·γ
    and of d·γ, and u of the sum; 2.5 for the float64 that they come of. y takes these as they are. dx is
    linear in r·γ, so that it takes 2.5u of each of its terms. dγ = r·Σ dy·x̂ + d·Σ dy has the errors of the
    sums times r and d, and four roundings of each term: r's or d's, the sum's to the dtype it is handed on
    in, the product's and the last sum's.

    Args:
        analysis: of batch norm with that weight and bias, and no activation.
        dy: (*axes.shape).
        shift_by_d: d·γ, (C,).
        r: (C,).
        d: (C,).
        weight_dtype: of γ.
    """
    axes, u = analysis.axes, analysis.u
    plain = analysis.gradients(dy, torch.float64 if weight_dtype == torch.float64 else torch.float32)
    column = axes.parameter_shape
    scale, x_hat = np.abs(analysis.weight), analysis.x_hat
    size = np.abs(x_hat) * scale + np.abs(shift_by_d).reshape(column)
    e_y = 2.5 * u * size + u * np.abs(analysis.z)
    along = np.expand_dims(mean_over(np.abs(dy * x_hat), axes.reduce), axes.reduce)
    level = np.expand_dims(mean_over(np.abs(dy), axes.reduce), axes.reduce)
    e_dx = 2.5 * u * scale * analysis.rstd * (np.abs(dy) + level + np.abs(x_hat) * along)
    sums = sum_over(dy * x_hat, axes.shared), sum_over(dy, axes.shared)
    terms = [np.abs(factor * total) for factor, total in zip((r, d), sums, strict=True)]
    e_dweight = np.abs(r) * plain.dweight + np.abs(d) * plain.dbias + 4 * u * (terms[0] + terms[1])
    e_dweight = e_dweight + rounded(r * sums[0] + d * sums[1], weight_dtype)
    return Bounds(plain.y + e_y, plain.dx + e_dx, plain.dresidual, e_dweight, plain.dbias)


@_ieee
def whitened(
    x: np.ndarray,
    dy: np.ndarray,
    group_size: int,
    weight: np.ndarray,
    bias: np.ndarray,
    eps: float,
    dtype: torch.dtype,
    parameters: torch.dtype,
) -> Bounds:
    """The bounds of whitening, by norms within a group; x and dy are (N, C, *space), m positions.

    x - mean has one rounding, a product of two of them three, and a sum of m in any order at most m more: the
    covariance is wrong by e = (m + 3)·u·mean(‖x_c‖²). The root's derivative has the norm λ^(-3/2)/2, λ the
    least eigenvalue and eps. Newton's iteration p has it too, by induction from |p'| ≤ p³/2: with q = p²S,
    the next slope is at most p³(5 - 3q)/4, and the cube of the next p half of p³(3 - q)³/8, of which the
    former is the tangent at q = 1; by its trace, it moves by e·λ^(-3/2) besides. So P is wrong by
    1.5·e·λ^(-3/2), its second derivative's norm 3/4·λ^(-5/2) is that of its derivative's error, and what is
    d-dimensional takes (d + 6)·√d roundings of the product of norms, √d for the signs.
    """
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    u = UNIT[compute] + 2 * depth(x[:, 0].size) * 2.0**-53
    n, channels = x.shape[:2]
    groups, count = channels // group_size, x[:, 0].size
    view = (n, groups, group_size, -1)
    centred = x - x.mean(tuple(a for a in range(x.ndim) if a != 1), keepdims=True)
    centred, dy = centred.reshape(view), dy.reshape(view)
    gain, start = (part.reshape(1, groups, group_size, 1) for part in (weight, bias))
    covariance = np.einsum("ngis,ngjs->gij", centred, centred) / count
    values, vectors = np.linalg.eigh(covariance)
    least = values[:, 0].clip(min=0) + eps
    root = (vectors / np.sqrt(values.clip(min=0) + eps)[:, None, :]) @ vectors.swapaxes(1, 2)
    size = np.linalg.norm(centred, axis=2, keepdims=True)
    # a mean far from zero is split in two, of which the lower part is rounded with the offset
    low = UNIT[torch.float32] * np.abs(x).max() * math.sqrt(group_size)
    size = size + low

    def each(values: np.ndarray) -> np.ndarray:
        return values.reshape(1, groups, 1, 1)

    def over(values: np.ndarray) -> np.ndarray:
        return values.sum((0, 3), keepdims=True)

    e_covariance = each((count + 3) * u * over(size**2)[0, :, 0, 0] / count)
    norm, least = each(least**-0.5), each(least)
    e_root = 1.5 * e_covariance * least**-1.5
    roundings = (group_size + 6) * math.sqrt(group_size) * u
    y = np.einsum("gij,ngjs->ngis", root, centred) * gain + start
    e_y = np.abs(gain) * size * (e_root + roundings * norm) + 3 * u * (np.abs(y) + np.abs(start))
    g = np.linalg.norm(gain * dy, axis=2, keepdims=True)
    along = over(g * size)
    e_along = (count + 4) * u * along
    of_covariance = along / (2 * least**1.5)
    e_of_covariance = e_along / (2 * least**1.5) + 3 * 0.75 * e_covariance * along * least**-2.5
    level = g + over(g) / count
    e_dx = e_root * level + 2 / count * e_of_covariance * size
    e_dx = e_dx + 2 * roundings * (norm * level + 2 / count * of_covariance * size)
    terms = np.abs(dy) * size
    e_dweight = over(terms * (e_root + (count + 4) * u * norm)).reshape(-1)
    dweight, dbias = over(terms * norm).reshape(-1), over(np.abs(dy)).reshape(-1)
    unit = UNIT[parameters]
    return Bounds(
        (e_y + rounded(y, dtype)).reshape(x.shape),
        (e_dx + UNIT[dtype] * (norm * level + 2 / count * of_covariance * size) + 0 * dy).reshape(x.shape),
        np.zeros(()),
        e_dweight + unit * dweight,
        count * u * dbias + unit * dbias,
    )


# Two chains of the same float64 operations in another order, as two formulas of one derivative are.
# Each order of derivative multiplies the number of operations that a value goes through by about eight:
# below 8^3 = 512 for the third, each rounding by 2^-53 of the largest value on the way, which the
# smooth maps here keep within eight times the largest result.
SAME_DERIVATIVE = 512 * 8 * 2.0**-53


def assert_within(actual: torch.Tensor, expected: np.ndarray, bound: np.ndarray, what: str) -> None:
    """Asserts |actual - expected| ≤ bound, element by element, and says where it fails most."""
    assert tuple(actual.shape) == expected.shape, (
        f"{what} has shape {tuple(actual.shape)}, not {expected.shape}"
    )
    computed = actual.detach().to(torch.float64).numpy()
    error = np.abs(computed - expected)
    beyond = ~(error <= bound)
    if beyond.any():
        worst = np.unravel_index(np.argmax(np.where(beyond, error - bound, -np.inf)), beyond.shape)
        raise AssertionError(
            f"{what}: {beyond.sum()} of {beyond.size} elements are beyond the bound; at {worst} "
            f"{computed[worst]!r} for {expected[worst]!r}, an error of {error[worst]:.3g} "
            f"where {bound[worst]:.3g} is allowed"
        )


# k + alpha·(Σ of 4 squares)/4, to the power -3/4, times x, plus a residual: a square, 4 additions, the
# division, alpha and k make 8 roundings, of which the power keeps three quarters and adds 2 (as a library
# function); then the quotient and the sum, 10 in all, and a reserve of 4 for PyTorch's order of them.
# A gradient has three such factors.
LOCAL_RESPONSE = 14
LOCAL_RESPONSE_GRADIENT = 3 * LOCAL_RESPONSE

# Running statistics in float32 or float64, in units of the two shares, factor·batch and (1 - factor)·running:
# a rounding each of the batch's moment, of the factor, of 1 - factor, of a product and of the sum; for the
# variance one of the sum of squares and one of the quotient. The float64 moments, ours and the reference's,
# are sums of at most 35 numbers, with a square each.
RUNNING = {
    dtype: 7 * UNIT[dtype] + 2 * (depth(35) + 1) * 2.0**-53 for dtype in (torch.float32, torch.float64)
}

# As above, and instance norm takes its variance back from rstd: a root, a quotient, a square, a quotient and
# eps, with a relative error twice over in the square, of numbers at most 8 times the variance.
RUNNING_FROM_RSTD = RUNNING[torch.float64] + 8 * 8 * 2.0**-53

# The same where rstd is a float32, with four roundings of its own, as Triton's kernels give it; per step.
RUNNING_FROM_FLOAT32_RSTD = RUNNING[torch.float32] + 8 * 8 * UNIT[torch.float32]

# x̂·√(variance + eps) + mean gives back x: 5.5 roundings of x̂, some 8 each of the float32 deviation and
# mean, two of the map; in units of max|x| + max|mean|.
ROUND_TRIP = 24 * UNIT[torch.float32]

# How far our float32 answer may lie from PyTorch's, in units of the largest element, where the inputs are of
# size 1 and a sum has at most 120 terms: theirs and ours each within some 16 roundings forward, and in a
# gradient of a square within depth(120) more, 2·(32 + 96)·u.
AGREEMENT = 256 * UNIT[torch.float32]


# A normalised LSTM over T steps, in units of the largest output, with eps = 1/2, gains of at most 1/2 and 5
# units of weights below 1/√5. A change of h comes back through W_hh (its rows add up to √5 at most), the
# normaliser (1/√eps·gain = 0.71, and three times that where the moments move along), the gates' slopes (1/4,
# 1/4 and 1), and the cell's normaliser: times 2.24·0.71·3·1.5 < 8. A step has fewer than 64 roundings of its
# own, in ours and in the reference. A backward carries the forward's errors back through as many steps.
def recurrent(dtype: torch.dtype, steps: int) -> float:
    """Largest error of an output, for outputs of size 1."""
    return 64 * 8.0**steps * UNIT[dtype]


def recurrent_gradient(dtype: torch.dtype, steps: int) -> float:
    """Largest error of a gradient, likewise."""
    return 64 * 8.0 ** (2 * steps) * UNIT[dtype]

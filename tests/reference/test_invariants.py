"""What holds of every normaliser, whatever its axes."""

import numpy as np
import pytest

from normwright.reference import axes_of, moment_labels, moments, normalise, normalise_backward

EPS = 0.1
DYADIC = [
    ("batch", (4, 3, 4)),
    ("layer", (3, 16)),
    ("instance", (2, 3, 8)),
    ("group", (2, 4, 4)),
    ("rms", (3, 16)),
]


def test_the_mean_of_x_hat_is_0_and_its_variance_just_below_1(case, assert_rounding):
    axes, center, x, *_ = case
    forward = normalise(x, axes, eps=EPS, center=center)
    mean, variance = moments(forward.x_hat, axes, center=center)
    scale = 4 * forward.rstd.max()  # x · rstd
    assert_rounding(mean, 0, additions=axes.count, scale=scale)
    expected = forward.variance / (forward.variance + EPS)
    assert_rounding(variance, expected, additions=axes.count, scale=scale**2)


def test_weight_and_bias_can_undo_it(assert_rounding):
    """Batch norm's moments and weights are shared alike, so that one weight per moment exists."""
    x = np.random.default_rng(0).uniform(-2, 4, (5, 3, 4))
    axes = axes_of("batch", x.shape)
    mean, variance = moments(x, axes)
    y = normalise(x, axes, weight=np.sqrt(variance + EPS), bias=mean, eps=EPS).y
    assert_rounding(y, x, additions=0, scale=4)


@pytest.mark.parametrize(("kind", "shape"), DYADIC[:-1])
def test_a_shift_changes_nothing(kind, shape):
    """Eighths, a power of two of them to a moment: shift and mean are exact, so the bits must be equal."""
    axes = axes_of(kind, shape, groups=2)
    x = np.random.default_rng(4).integers(-100, 100, shape) / 8
    shifts = np.random.default_rng(5).integers(-(2**30), 2**30, axes.moment_shape)
    shifted = x + shifts.ravel()[moment_labels(axes)]
    one, other = normalise(x, axes, eps=EPS), normalise(shifted, axes, eps=EPS)
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.mean + shifts, other.mean)
    dy = np.random.default_rng(6).normal(size=shape)
    np.testing.assert_array_equal(
        normalise_backward(dy, x, axes, eps=EPS).dx, normalise_backward(dy, shifted, axes, eps=EPS).dx
    )


def test_rms_norm_sees_a_shift():
    x = np.arange(8.0).reshape(2, 4)
    axes = axes_of("rms", x.shape)
    assert (normalise(x, axes, center=False).y != normalise(x + 1, axes, center=False).y).all()


@pytest.mark.parametrize("power", [-100, -1, 1, 100])
def test_a_scale_changes_nothing_if_eps_is_scaled(case, power):
    """By a power of two, every step is scaled without rounding; 2^100 is about 1e30."""
    axes, center, x, dy, weight, bias = case
    factor = 2.0**power
    one = normalise(x, axes, weight, bias, EPS, center=center)
    other = normalise(factor * x, axes, weight, bias, factor**2 * EPS, center=center)
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.rstd, factor * other.rstd)
    one = normalise_backward(dy, x, axes, weight, EPS, center=center)
    other = normalise_backward(dy, factor * x, axes, weight, factor**2 * EPS, center=center)
    np.testing.assert_array_equal(one.dx, factor * other.dx)


@pytest.mark.parametrize("eps", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize(("kind", "shape"), DYADIC)
def test_a_scale_changes_nothing_as_eps_vanishes(kind, shape, eps):
    """x̂ shrinks by √(v/(v + eps)), which is 1 − eps/(2v) and a little more: so much can a scale undo."""
    axes, center = axes_of(kind, shape, groups=2), kind != "rms"
    x = np.random.default_rng(8).uniform(-2, 4, shape)
    one, other = (normalise(factor * x, axes, eps=eps, center=center) for factor in (1.0, 3.0))
    shrunk = eps / (2 * one.variance.min())
    np.testing.assert_allclose(one.y, other.y, rtol=shrunk + 1e-12, atol=1e-12)
    if eps == 1e-3:
        assert np.abs(one.y - other.y).max() > 1e-6


def test_the_gradient_is_square_to_shift_and_stretch(case, assert_rounding):
    """Σ dx = 0, and Σ dx·x̂ = rstd · Σ g·x̂ · eps/(variance + eps), which vanishes with eps."""
    axes, center, x, dy, weight, _ = case
    forward = normalise(x, axes, eps=EPS, center=center)
    dx = normalise_backward(dy, x, axes, weight, EPS, center=center).dx
    g = dy * np.broadcast_to(weight.reshape(axes.parameter_shape), axes.view).reshape(axes.shape)

    def sums(values):
        return moments(values, axes).mean * axes.count

    largest = 2 * max(1, np.abs(forward.x_hat).max()) ** 2 * forward.rstd.max()
    if center:
        assert_rounding(sums(dx), 0, additions=axes.count, scale=largest * axes.count)
    expected = forward.rstd * sums(g * forward.x_hat) * EPS / (forward.variance + EPS)
    scale = largest * axes.count * max(1, np.abs(forward.x_hat).max())
    assert_rounding(sums(dx * forward.x_hat), expected, additions=axes.count, scale=scale)

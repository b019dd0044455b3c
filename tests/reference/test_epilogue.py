import numpy as np
import pytest

from normwright.errors import ShapeError
from normwright.reference import (
    ACTIVATIONS,
    activate,
    axes_of,
    fused,
    fused_backward,
    normalise,
    normalise_backward,
)

EPS = 0.1


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_backward_is_the_slope_of_the_forward(case, activation, assert_gradient):
    axes, center, x, dy, weight, bias = case
    plain = normalise(x, axes, weight, bias, EPS, center=center).y
    # z at least a half away from 0, further than any step moves it: relu has no slope there
    random = np.random.default_rng(9)
    z = random.choice([-1, 1], plain.shape) * random.uniform(0.5, 2, plain.shape)
    residual = z - plain
    names = ("x", "residual", "weight", "bias")
    arguments = dict(zip(names, (x, residual, weight, bias), strict=True))
    options = {"axes": axes, "eps": EPS, "center": center, "activation": activation}
    gradients = fused_backward(dy, **arguments, **options)
    for name, gradient in zip(names, gradients, strict=True):

        def y(point, name=name):
            return fused(**{**arguments, name: point}, **options).y

        assert_gradient(gradient, y, arguments[name], dy)


def test_without_residual_and_activation_it_is_the_plain_normaliser(case):
    axes, center, x, dy, weight, bias = case
    for one, other in zip(
        fused(x, axes, weight, bias, eps=EPS, center=center),
        normalise(x, axes, weight, bias, EPS, center=center),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    dx, dresidual, dweight, dbias = fused_backward(dy, x, axes, weight, bias, eps=EPS, center=center)
    plain = normalise_backward(dy, x, axes, weight, EPS, center=center)
    for one, other in zip((dx, dweight, dbias), plain, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(dresidual, dy)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_residual_is_a_residual_of_zeros(case, activation):
    axes, center, x, dy, weight, bias = case
    zeros = np.zeros(axes.shape)
    options = {"eps": EPS, "center": center, "activation": activation}
    for one, other in zip(
        fused_backward(dy, x, axes, weight, bias, None, **options),
        fused_backward(dy, x, axes, weight, bias, zeros, **options),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_the_residual_comes_before_the_activation():
    axes = axes_of("batch", (2, 1))
    y = fused([[1.0], [3.0]], axes, residual=[[0.5], [-3.0]], eps=0.0, activation="relu").y
    np.testing.assert_array_equal(y, activate([[-0.5], [-2.0]], "relu"))


def test_infinity_is_no_accident():
    axes = axes_of("rms", (1, 2))
    y = fused([[1.0, 2.0]], axes, bias=[np.inf, 0.0], residual=[[-np.inf, 0.0]], center=False).y
    np.testing.assert_array_equal(np.isnan(y), [[True, False]])


def test_a_wrong_residual_is_refused():
    axes = axes_of("batch", (2, 3))
    with pytest.raises(ShapeError, match=r"residual must have shape \(2, 3\), but has \(3,\)"):
        fused(np.ones((2, 3)), axes, residual=np.ones(3))

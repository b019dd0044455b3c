from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from normwright.errors import ShapeError
from normwright.reference import (
    axes_of,
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    moment_labels,
    moments,
    normalise,
    normalise_backward,
    rms_norm,
)

EPS = 0.1  # large, so that a wrong place for it shows


def test_the_backward_is_the_slope_of_the_forward(case, assert_gradient):
    axes, center, x, dy, weight, bias = case
    dx, dweight, dbias = normalise_backward(dy, x, axes, weight, EPS, center=center)
    assert_gradient(dx, lambda x: normalise(x, axes, weight, bias, EPS, center=center).y, x, dy)
    assert_gradient(
        dweight, lambda weight: normalise(x, axes, weight, bias, EPS, center=center).y, weight, dy
    )
    assert_gradient(dbias, lambda bias: normalise(x, axes, weight, bias, EPS, center=center).y, bias, dy)


def test_no_weight_is_a_weight_of_ones(case):
    axes, center, x, dy, *_ = case
    ones, zeros = np.ones(axes.weight_shape), np.zeros(axes.weight_shape)
    without = normalise(x, axes, eps=EPS, center=center)
    np.testing.assert_array_equal(without.y, normalise(x, axes, ones, zeros, EPS, center=center).y)
    np.testing.assert_array_equal(without.y, without.x_hat)
    for absent, given in zip(
        normalise_backward(dy, x, axes, None, EPS, center=center),
        normalise_backward(dy, x, axes, ones, EPS, center=center),
        strict=True,
    ):
        np.testing.assert_array_equal(absent, given)


def test_shapes(case):
    axes, center, x, dy, weight, bias = case
    forward = normalise(x, axes, weight, bias, center=center)
    assert forward.y.shape == forward.x_hat.shape == x.shape
    assert forward.mean.shape == forward.variance.shape == forward.rstd.shape == axes.moment_shape
    dx, dweight, dbias = normalise_backward(dy, x, axes, weight, center=center)
    assert dx.shape == x.shape
    assert dweight.shape == dbias.shape == axes.weight_shape


def test_arguments_are_left_alone(case):
    axes, center, *arrays = case
    for array in arrays:
        array.flags.writeable = False
    x, dy, weight, bias = arrays
    normalise(x, axes, weight, bias, center=center)
    normalise_backward(dy, x, axes, weight, center=center)


def of_torch(name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    if name == "batch":
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)
    if name == "layer":
        return F.layer_norm(x, weight.shape, weight, bias, EPS)
    if name == "instance":
        return F.instance_norm(x, weight=weight, bias=bias, eps=EPS)
    if name == "group":
        return F.group_norm(x, 3, weight, bias, EPS)
    return F.rms_norm(x, weight.shape, weight, EPS) + bias


@pytest.mark.parametrize("kind", ["batch", "layer", "instance", "group", "rms"])
@pytest.mark.parametrize("shape", [(4, 6, 5), (2, 6, 3, 4), (2, 3, 2, 3, 2)])
def test_pytorch_agrees(kind, shape, assert_rounding):
    axes, center = axes_of(kind, shape, groups=3), kind != "rms"
    random = np.random.default_rng(3)
    x, dy = random.uniform(-2, 4, shape), random.uniform(-1, 1, shape)
    weight, bias = random.uniform(0.5, 2, axes.weight_shape), random.uniform(-1, 1, axes.weight_shape)

    leaves = [torch.tensor(array, requires_grad=True) for array in (x, weight, bias)]
    y = of_torch(kind, *leaves)
    y.backward(torch.tensor(dy))

    ours = normalise(x, axes, weight, bias, EPS, center=center)
    scale = 2 * 4 * ours.rstd.max()  # weight · x · rstd
    assert_rounding(ours.y, y.detach(), additions=axes.count, scale=scale)
    gradients = normalise_backward(dy, x, axes, weight, EPS, center=center)
    # g·x̂², times rstd in dx and the number of summands in dweight and dbias
    sharers = x.size // weight.size
    scale = 2 * max(1, np.abs(ours.x_hat).max()) ** 2 * max(ours.rstd.max(), sharers)
    for gradient, leaf in zip(gradients, leaves, strict=True):
        assert_rounding(gradient, leaf.grad, additions=max(axes.count, sharers), scale=scale)


def test_the_names_are_rows_of_the_table():
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    weight, bias = np.arange(1.0, 5), np.arange(4.0)
    wide, offset = np.arange(12.0).reshape(4, 3), np.ones((4, 3))

    def of(kind, *arguments, **options):
        return normalise(x, axes_of(kind, x.shape, groups=2), *arguments, EPS, **options)

    pairs = [
        (batch_norm(x, weight, bias, EPS), of("batch", weight, bias)),
        (layer_norm(x, (4, 3), wide, offset, EPS), of("layer", wide, offset)),
        (instance_norm(x, weight, bias, EPS), of("instance", weight, bias)),
        (group_norm(x, 2, weight, bias, EPS), of("group", weight, bias)),
        (rms_norm(x, (4, 3), wide, EPS), of("rms", wide, None, center=False)),
    ]
    for named, general in pairs:
        for one, other in zip(named, general, strict=True):
            np.testing.assert_array_equal(one, other)


def test_moments_of_dyadic_fractions_are_exact():
    """Eighths below 2^10 sum without rounding, so one rounding, of the division, is all there is."""
    x = np.random.default_rng(1).integers(-(2**13), 2**13, size=(5, 3, 7)) / 8
    mean, _ = moments(x, axes_of("batch", x.shape))
    for channel in range(3):
        exact = sum(map(Fraction, x[:, channel].ravel().tolist())) / 35
        assert mean[channel] == float(exact)
    x = x[:4, :, :4]
    mean, variance = moments(x, axes_of("batch", x.shape))  # 16 elements: the division is exact, too
    for channel in range(3):
        values = list(map(Fraction, x[:, channel].ravel().tolist()))
        centre = sum(values) / 16
        assert Fraction(mean[channel]) == centre
        assert Fraction(variance[channel]) == sum((value - centre) ** 2 for value in values) / 16


def test_moments_of_infinity_are_no_accident():
    mean, variance = moments([[np.inf, 1.0], [1.0, -np.inf], [-np.inf, np.inf]], axes_of("layer", (3, 2)))
    np.testing.assert_array_equal(mean, [np.inf, -np.inf, np.nan])
    assert np.isnan(variance).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_moment(case, bad):
    axes, center, x, dy, weight, bias = case
    spoilt = x.copy()
    spoilt.flat[0] = bad
    clean, dirty = (normalise(values, axes, weight, bias, center=center) for values in (x, spoilt))
    others = moment_labels(axes) != 0
    assert not np.isfinite(dirty.y.flat[0])
    np.testing.assert_array_equal(dirty.y[others], clean.y[others])
    clean, dirty = (normalise_backward(dy, values, axes, weight, center=center).dx for values in (x, spoilt))
    np.testing.assert_array_equal(dirty[others], clean[others])


def test_a_constant_moment_becomes_the_bias():
    x = np.full((4, 2, 3), 7.0)
    y = batch_norm(x, weight=[3.0, 3.0], bias=[1.0, 2.0]).y
    np.testing.assert_array_equal(y, np.broadcast_to([[[1.0], [2.0]]], x.shape))


def test_no_elements_are_no_accident():
    axes = axes_of("layer", (0, 4))
    assert normalise(np.empty((0, 4)), axes).y.shape == (0, 4)
    np.testing.assert_array_equal(
        normalise_backward(np.empty((0, 4)), np.empty((0, 4)), axes).dweight, np.zeros(4)
    )
    forward = batch_norm(np.empty((0, 4)))
    assert forward.y.shape == (0, 4)
    assert np.isnan(forward.mean).all()


def test_anything_that_numpy_reads_is_taken():
    axes = axes_of("layer", (1, 2))
    expected = normalise(np.array([[1.0, 2.0]]), axes).y
    for x in ([[1, 2]], np.array([[1, 2]], np.int8), torch.tensor([[1.0, 2.0]])):
        y = normalise(x, axes).y
        assert y.dtype == np.float64
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones((3, 2))}, r"x must have shape \(2, 3\), but has \(3, 2\)"),
        ({"dy": np.ones(3)}, r"dy must have shape \(2, 3\), but has \(3,\)"),
        ({"weight": np.ones(2)}, r"weight must have shape \(3,\), but has \(2,\)"),
    ],
)
def test_a_wrong_shape_is_refused(change, message):
    arguments = {"dy": np.ones((2, 3)), "x": np.ones((2, 3)), "weight": np.ones(3), **change}
    with pytest.raises(ShapeError, match=message):
        normalise_backward(axes=axes_of("batch", (2, 3)), **arguments)
    if "dy" not in change:
        del arguments["dy"]
        with pytest.raises(ShapeError, match=message):
            normalise(axes=axes_of("batch", (2, 3)), **arguments)


def test_a_wrong_bias_is_refused():
    with pytest.raises(ShapeError, match=r"bias must have shape \(3,\)"):
        normalise(np.ones((2, 3)), axes_of("batch", (2, 3)), bias=np.ones((1, 3)))

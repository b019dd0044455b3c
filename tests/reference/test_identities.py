"""Normalisers that share their classes of elements agree to the last bit."""

import numpy as np
import pytest

from normwright.reference import axes_of, normalise, normalise_backward

EPS = 1e-5


WITH_SPACE = [(3, 6, 7), (2, 6, 5, 9), (2, 6, 3, 2, 4), (1, 6, 40, 33)]


@pytest.fixture(params=[(3, 6), *WITH_SPACE], ids=str)
def shape(request):
    return request.param


@pytest.fixture
def arrays(shape):
    random = np.random.default_rng(11)
    x, dy = random.normal(3, 2, shape), random.normal(size=shape)
    weight, bias = random.normal(size=shape[1]), random.normal(size=shape[1])
    return x, dy, weight, bias


def both_ways(x, dy, axes, weight, bias, center=True):
    forward = normalise(x, axes, weight, bias, EPS, center=center)
    return forward, normalise_backward(dy, x, axes, weight, EPS, center=center)


def per_element(parameter, shape):
    """A parameter per channel, written out for every channel and position."""
    column = parameter.reshape(-1, *(1 for _ in shape[2:]))
    return np.broadcast_to(column, shape[1:])


def equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.ravel(), b.ravel())


def test_one_group_is_layer_norm_over_channels_and_space(shape, arrays):
    x, dy, weight, bias = arrays
    group, group_grad = both_ways(x, dy, axes_of("group", shape, groups=1), weight, bias)
    wide = (per_element(weight, shape), per_element(bias, shape))
    layer, layer_grad = both_ways(x, dy, axes_of("layer", shape), *wide)
    equal(group, layer)
    np.testing.assert_array_equal(group_grad.dx, layer_grad.dx)


@pytest.mark.parametrize("shape", WITH_SPACE, indirect=True, ids=str)
def test_as_many_groups_as_channels_is_instance_norm(shape, arrays):
    x, dy, weight, bias = arrays
    group = both_ways(x, dy, axes_of("group", shape, groups=shape[1]), weight, bias)
    instance = both_ways(x, dy, axes_of("instance", shape), weight, bias)
    equal(group[0], instance[0])
    equal(group[1], instance[1])


def test_batch_norm_is_instance_norm_of_one_long_sample(shape, arrays):
    x, dy, weight, bias = arrays

    def one_sample(a):
        return np.moveaxis(a, 1, 0).reshape(1, shape[1], -1)

    batch, batch_grad = both_ways(x, dy, axes_of("batch", shape), weight, bias)
    long = one_sample(x)
    instance, instance_grad = both_ways(long, one_sample(dy), axes_of("instance", long.shape), weight, bias)
    np.testing.assert_array_equal(one_sample(batch.y), instance.y)
    equal(batch[2:], instance[2:])
    np.testing.assert_array_equal(one_sample(batch_grad.dx), instance_grad.dx)
    equal(batch_grad[1:], instance_grad[1:])


def test_batch_norm_is_layer_norm_of_the_transpose():
    random = np.random.default_rng(5)
    x, dy = random.normal(size=(2, 37, 5))
    batch, batch_grad = both_ways(x, dy, axes_of("batch", (37, 5)), None, None)
    rows, drows = np.ascontiguousarray(x.T), np.ascontiguousarray(dy.T)  # another order in memory, too
    layer, layer_grad = both_ways(rows, drows, axes_of("layer", (5, 37)), None, None)
    np.testing.assert_array_equal(batch.y.T, layer.y)
    np.testing.assert_array_equal(batch_grad.dx.T, layer_grad.dx)


def test_rms_norm_of_what_is_centred_is_layer_norm():
    """Dyadic fractions, 8 to a moment: the mean is exact, and so is taking it away."""
    x = np.random.default_rng(2).integers(-1000, 1000, (5, 8)) / 16
    layer = normalise(x, axes_of("layer", x.shape), eps=EPS)
    centred = x - x.mean(axis=1, keepdims=True)
    rms = normalise(centred, axes_of("rms", x.shape), eps=EPS, center=False)
    np.testing.assert_array_equal(rms.y, layer.y)
    np.testing.assert_array_equal(rms.mean, np.zeros(5))


@pytest.mark.parametrize("kind", ["batch", "layer", "instance", "group", "rms"])
@pytest.mark.parametrize("shape", WITH_SPACE, indirect=True, ids=str)
def test_the_layout_of_space_and_of_memory_is_nothing(kind, shape, arrays):
    x, dy, weight, bias = arrays
    flat = (*shape[:2], int(np.prod(shape[2:])))
    axes, flat_axes = axes_of(kind, shape, groups=3), axes_of(kind, flat, groups=3)
    if kind in ("layer", "rms"):
        weight, bias = per_element(weight, shape), per_element(bias, shape)
    narrow = (weight.reshape(flat_axes.weight_shape), bias.reshape(flat_axes.weight_shape))
    center = kind != "rms"
    spread = both_ways(x, dy, axes, weight, bias, center)
    merged = both_ways(x.reshape(flat), dy.reshape(flat), flat_axes, *narrow, center)
    fortran = both_ways(np.asfortranarray(x), np.asfortranarray(dy), axes, weight, bias, center)
    for one, other, third in zip(spread, merged, fortran, strict=True):
        equal(one, other)
        equal(one, third)

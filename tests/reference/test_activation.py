import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from normwright.errors import OptionError, ShapeError
from normwright.reference import ACTIVATIONS, activate, activate_backward

TORCH = {
    None: lambda z: z,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def test_every_activation_is_tested():
    assert set(ACTIVATIONS) == set(TORCH)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_backward_is_the_slope_of_the_forward(activation, assert_gradient):
    z = np.array([-6.0, -3, -1, -0.25, 0.25, 0.5, 2, 5])
    dy = np.array([1.0, -2, 1, 1, -1, 3, 1, 1])
    gradient = activate_backward(dy, z, activation)
    assert_gradient(gradient, lambda z: activate(z, activation), z, dy)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_pytorch_agrees(activation, assert_rounding):
    z = np.concatenate([np.linspace(-12, 12, 97), [-0.0, 0.0, 1e-300, -1e-300, 300, -300]])
    leaf = torch.tensor(z, requires_grad=True)
    y = TORCH[activation](leaf)
    y.sum().backward()
    # sixteen roundings hold for a library's exponential and erf, which err by an ulp or two
    assert_rounding(activate(z, activation), y.detach(), additions=0, scale=300)
    assert_rounding(activate_backward(np.ones_like(z), z, activation), leaf.grad, additions=0, scale=12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("z", [np.nan, np.inf, -np.inf, 1e308, -1e308])
def test_the_ends_are_those_of_pytorch(activation, z):
    assert_same = np.testing.assert_array_equal
    assert_same(activate([z], activation), TORCH[activation](torch.tensor([z], dtype=torch.float64)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("z", [0.0, -0.0, np.nan, np.inf, -np.inf])
def test_the_slope_at_a_kink_and_at_the_ends_is_that_of_pytorch(activation, z):
    leaf = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    TORCH[activation](leaf).backward(torch.tensor([3.0], dtype=torch.float64))
    np.testing.assert_array_equal(activate_backward([3.0], [z], activation), leaf.grad)


def test_nothing_cancels_in_the_tails():
    """Leading terms of the tails: gelu's is right to 1/z², the others' to 2·exp(−z), relative."""
    z = 30.0
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    assert activate(-z, "gelu") == pytest.approx(-density, rel=2 / z**2, abs=0)
    assert activate_backward(1.0, z, "tanh") == pytest.approx(4 * math.exp(-2 * z), rel=8 * 2**-53, abs=0)
    assert activate_backward(1.0, z, "sigmoid") == pytest.approx(math.exp(-z), rel=3 * math.exp(-z), abs=0)
    assert activate(-z, "sigmoid") == pytest.approx(math.exp(-z), rel=3 * math.exp(-z), abs=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_shapes(activation, shape):
    z = np.ones(shape)
    assert activate(z, activation).shape == activate_backward(z, z, activation).shape == shape


def test_nothing_is_a_copy():
    z = np.ones(3)
    assert not np.shares_memory(activate(z, None), z)


def test_an_unknown_activation_is_refused_with_the_nearest():
    with pytest.raises(OptionError, match="did you mean 'gelu'"):
        activate([1.0], "gelou")
    with pytest.raises(OptionError, match="unknown activation"):
        activate_backward([1.0], [1.0], "mish")


def test_a_wrong_shape_is_refused():
    with pytest.raises(ShapeError, match=r"dy must have shape \(2,\)"):
        activate_backward([1.0], [1.0, 2.0], "relu")

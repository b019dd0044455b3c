import numpy as np
import pytest
import torch
from torch.nn import functional as F

from normwright.errors import OptionError, ShapeError
from normwright.reference import local_response_norm, local_response_norm_backward

OPTIONS = {"alpha": 0.7, "beta": 0.75, "k": 1.5}
SHAPES = [(2, 5, 3), (2, 4, 2, 3), (2, 3, 2, 1, 2)]


def arrays(shape):
    random = np.random.default_rng(2)
    return random.uniform(-2, 3, shape), random.uniform(-1, 1, shape)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("shape", [(3, 5), *SHAPES])
def test_the_backward_is_the_slope_of_the_forward(shape, size, assert_gradient):
    x, dy = arrays(shape)
    dx = local_response_norm_backward(dy, x, size, **OPTIONS)
    assert_gradient(dx, lambda x: local_response_norm(x, size, **OPTIONS), x, dy)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_pytorch_agrees(shape, size, assert_rounding):
    x, dy = arrays(shape)
    leaf = torch.tensor(x, requires_grad=True)
    y = F.local_response_norm(leaf, size, **OPTIONS)
    y.backward(torch.tensor(dy))
    assert_rounding(local_response_norm(x, size, **OPTIONS), y.detach(), additions=size, scale=3)
    # D > 1.5, and 2·alpha·beta·x·x sums to less than 10 over the window
    ours = local_response_norm_backward(dy, x, size, **OPTIONS)
    assert_rounding(ours, leaf.grad, additions=size, scale=10)


def test_the_usual_options_are_those_of_pytorch(assert_rounding):
    x, _ = arrays((2, 7, 3))
    x = 100 * x  # so that alpha = 1e-4 shows
    assert_rounding(
        local_response_norm(x, 5), F.local_response_norm(torch.tensor(x), 5), additions=5, scale=300
    )


def test_an_even_window_reaches_further_down():
    x = np.array([[1.0, 10.0, 100.0]])
    y = local_response_norm(x, size=2, alpha=2.0, beta=1.0, k=0.0)
    np.testing.assert_array_equal(y, [[1 / 1, 10 / 101, 100 / 10100]])


def test_nan_stays_in_its_window():
    x = np.ones((1, 7))
    x[0, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(local_response_norm(x, 3))[0], [0, 1, 1, 1, 0, 0, 0])


def test_infinity_is_no_accident():
    x = np.array([[np.inf, 1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(local_response_norm(x, 3)[0, :2], [np.nan, 0.0])
    dx = local_response_norm_backward(np.ones((1, 4)), x, 3)
    np.testing.assert_array_equal(
        dx[0, 3], local_response_norm_backward(np.ones((1, 4)), np.ones((1, 4)), 3)[0, 3]
    )


def test_no_samples():
    x = np.empty((0, 3, 2))
    assert local_response_norm(x, 3).shape == local_response_norm_backward(x, x, 3).shape == (0, 3, 2)


def test_bad_input_is_refused():
    with pytest.raises(OptionError, match="size must be at least 1, but is 0"):
        local_response_norm(np.ones((1, 3)), 0)
    with pytest.raises(ShapeError, match=r"x must be \(N, C, \*space\), but has shape \(3,\)"):
        local_response_norm(np.ones(3), 5)
    with pytest.raises(ShapeError, match="dy must have shape"):
        local_response_norm_backward(np.ones((1, 2)), np.ones((1, 3)), 5)

"""Local response norm against the reference; its map is PyTorch's, so that only the ends are ours."""

import numpy as np
import pytest
import torch
from cases import LAYOUTS, laid_out
from tolerances import (
    ACTIVATION,
    LOCAL_RESPONSE,
    LOCAL_RESPONSE_GRADIENT,
    SLOPE_ROUNDINGS,
    UNIT,
    assert_within,
    rounded,
)

from normwright.functional import local_response_norm
from normwright.reference import (
    ACTIVATIONS,
    activate,
    activate_backward,
    local_response_norm_backward,
)
from normwright.reference import local_response_norm as reference

SHAPES = [(2, 5, 7), (2, 5, 4, 3), (2, 5, 4, 3, 2), (1, 1, 3), (0, 5, 4, 3)]
SETTINGS = {"size": 4, "alpha": 0.5, "beta": 0.75, "k": 1.0}
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def draw(shape, dtype, layout="contiguous", seed=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return laid_out(values.to(dtype), layout)


LAID_OUT = [(s, layout) for s in SHAPES for layout in LAYOUTS if layout != "channels-last" or len(s) > 3]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "layout"), LAID_OUT, ids=str)
def test_forward_and_gradient(shape, layout, dtype):
    x, dy = draw(shape, dtype, layout).requires_grad_(), draw(shape, dtype, seed=1)
    y = local_response_norm(x, **SETTINGS)
    (dx,) = torch.autograd.grad(y, x, dy)
    exact, slope = x.detach().double().numpy(), dy.double().numpy()
    expected = reference(exact, **SETTINGS)
    assert y.dtype == dx.dtype == dtype
    if layout in ("contiguous", "channels-last"):
        assert y.stride() == x.stride()
    u = UNIT[torch.float64 if dtype == torch.float64 else torch.float32] + 2.0**-53
    assert_within(y, expected, LOCAL_RESPONSE * u * np.abs(expected) + rounded(expected, dtype), "y")
    # dx is a difference of two terms: the second a sum over 4 windows of products of such powers
    terms = np.abs(slope) + np.abs(exact) * np.abs(slope * exact).sum(axis=1, keepdims=True)
    dx_exact = local_response_norm_backward(slope, exact, **SETTINGS)
    assert_within(dx, dx_exact, LOCAL_RESPONSE_GRADIENT * u * terms + rounded(dx_exact, dtype), "dx")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_residual_and_activation(activation):
    x, residual, dy = (draw((2, 5, 4, 3), torch.float64, seed=seed) for seed in range(3))
    leaves = [x.requires_grad_(), residual.requires_grad_()]
    y = local_response_norm(x, **SETTINGS, residual=residual, activation=activation)
    dx, dresidual = torch.autograd.grad(y, leaves, dy)
    exact, plus, slope = (tensor.detach().numpy() for tensor in (x, residual, dy))
    z = reference(exact, **SETTINGS) + plus
    dz = activate_backward(slope, z, activation)
    u = 2 * UNIT[torch.float64]
    steepness, curvature, roundings = ACTIVATION[activation]
    e_z = LOCAL_RESPONSE * u * (np.abs(z) + np.abs(plus))
    assert_within(y, activate(z, activation), steepness * e_z + (roundings + 1) * u * (np.abs(z) + 1), "y")
    e_dz = np.abs(slope) * (curvature * e_z + SLOPE_ROUNDINGS * u * (1 + np.abs(z)))
    assert_within(dresidual, dz, e_dz, "dresidual")
    terms = np.abs(dz) + np.abs(exact) * np.abs(dz * exact).sum(axis=1, keepdims=True)
    spread = e_dz + np.abs(exact) * np.abs(e_dz * exact).sum(axis=1, keepdims=True)
    expected = local_response_norm_backward(dz, exact, **SETTINGS)
    assert_within(dx, expected, spread + LOCAL_RESPONSE_GRADIENT * u * terms, "dx")


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 5, 4, 3), (2, 5, 4, 3, 2)], ids=str)
def test_without_extras_it_is_pytorchs_to_the_bit(shape):
    x = draw(shape, torch.float32)
    assert torch.equal(local_response_norm(x, 3), torch.nn.functional.local_response_norm(x, 3))


def test_second_derivatives():
    x = draw((1, 4, 2), torch.float64).requires_grad_()
    for activation in ("silu", "gelu", "sigmoid", "tanh"):
        assert torch.autograd.gradgradcheck(
            lambda x, a=activation: local_response_norm(x, 3, 0.5, activation=a), x
        )


def test_half_precision_on_meta_of_which_autocast_cannot_be_asked():
    x = torch.empty(2, 3, 4, dtype=torch.bfloat16, device="meta")
    assert local_response_norm(x, 3).dtype == torch.bfloat16

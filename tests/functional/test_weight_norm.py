"""Weight norm and weight standardisation as functions, against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tolerances import UNIT, Analysis, assert_within, depth, rounded

from normwright.errors import DtypeError, OptionError, ShapeError
from normwright.functional import standardise_weight, weight_norm
from normwright.reference import axes_of, moments
from normwright.reference import standardise_weight as reference_standardised
from normwright.reference import weight_norm as reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(5, 7), (4, 3, 3), (4, 3, 2, 3), (2, 3, 2, 2, 2)]


def call_of(shape, dtype):
    draw = torch.Generator().manual_seed(0)
    v = torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
    g = torch.rand(shape[0], generator=draw, dtype=torch.float64).to(dtype) + 0.5
    return v, g


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_norm(shape, dtype):
    v, g = call_of(shape, dtype)
    column = (-1, *[1] * (len(shape) - 1))
    w = weight_norm(v, g.view(column))
    assert w.dtype == dtype
    expected = reference(v.double().numpy(), g.double().numpy())
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    # The squares and their sum, halved by the root; the root, the quotient and the product.
    bound = (depth(v[0].numel()) + 4) * UNIT[compute] * np.abs(expected) + rounded(expected, dtype)
    assert_within(w, expected, bound, "w")
    transposed = weight_norm(v.transpose(0, 1), g.view(1, -1, *[1] * (len(shape) - 2)), 1)
    assert_within(transposed.transpose(0, 1), expected, bound, "w by another axis")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_standardise_weight(shape, dtype):
    weight, _ = call_of(shape, dtype)
    eps = 2.0**-7
    array = weight.double().numpy()
    rows = array.reshape(shape[0], -1)
    axes = axes_of("layer", rows.shape, normalized_shape=rows.shape[1:])
    mean, variance = (np.expand_dims(part, axes.reduce) for part in moments(rows, axes))
    bound = Analysis(rows, axes, None, None, None, mean, 1 / np.sqrt(variance + eps), None, dtype).y()
    expected = reference_standardised(array, eps)
    w = standardise_weight(weight, eps)
    assert w.dtype == dtype
    assert_within(w, expected, bound.reshape(shape), "w")
    transposed = standardise_weight(weight.transpose(0, 1), eps, dim=1).transpose(0, 1)
    assert_within(transposed, expected, bound.reshape(shape), "w by another axis")


def test_derivatives_of_both_orders():
    v, g = (part.requires_grad_() for part in call_of((3, 2, 2), torch.float64))
    for dim in (0, None):
        length = g.detach().view(3, 1, 1).requires_grad_() if dim == 0 else g.detach()[:1].requires_grad_()
        assert torch.autograd.gradcheck(lambda v, g, dim=dim: weight_norm(v, g, dim), (v, length))
        assert torch.autograd.gradgradcheck(lambda v, g, dim=dim: weight_norm(v, g, dim), (v, length))
    assert torch.autograd.gradcheck(standardise_weight, v)
    assert torch.autograd.gradgradcheck(standardise_weight, v)


def test_the_gradient_by_the_direction_is_at_right_angles_to_it():
    v, g = (part.requires_grad_() for part in call_of((3, 8), torch.float64))
    weight_norm(v, g.view(3, 1)).pow(3).sum().backward()
    assert float((v.detach() * v.grad).sum(1).abs().max()) <= 1e-14
    assert float(v.grad.abs().max()) > 0.1


def test_a_direction_of_zeros_gives_zeros():
    v = torch.zeros(2, 3, requires_grad=True)
    w = weight_norm(v, torch.ones(2, 1))
    w.sum().backward()
    assert not w.any()
    assert torch.isfinite(v.grad).all()


def test_bad_calls():
    v = torch.randn(3, 4)
    for call, error, message in (
        (lambda: weight_norm(v, torch.ones(3, 1), 2), OptionError, "one of the 2 axes of the weight"),
        (lambda: weight_norm(v.int(), torch.ones(3, 1)), DtypeError, "not implemented for 'Int'"),
        (lambda: standardise_weight(v, 0.0), OptionError, "eps must be above 0"),
        (lambda: standardise_weight(v, dim=2), OptionError, "one of the 2 axes"),
        (lambda: standardise_weight(v[0]), OptionError, "a weight of two or more"),
        (lambda: standardise_weight(v[:, :1]), ShapeError, "more than one input"),
        (lambda: standardise_weight(v.int()), DtypeError, "not implemented for 'Int'"),
    ):
        with pytest.raises(error, match=message):
            call()
